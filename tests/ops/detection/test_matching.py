"""Assignment and sampling against mmdet's rules and its recorded assignments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paca_jax import ops
from tests.ops.detection.test_boxes import GROUND_TRUTHS, REFERENCE, reference_anchors

RPN = {"positive": 0.7, "negative": 0.3, "min_positive": 0.3}
RCNN = {"positive": 0.5, "negative": 0.5, "min_positive": 0.5}
TRUTHS, EVERYONE = jnp.asarray(GROUND_TRUTHS), jnp.ones(len(GROUND_TRUTHS), bool)


def plain_assignment(iou, gt_valid, valid, positive, negative, min_positive, low_quality=True):
    """Returns the assignment, one box and one ground truth after the other."""
    assigned = np.full(iou.shape[1], -1)
    truths, boxes = np.flatnonzero(gt_valid), np.flatnonzero(valid)
    for n in boxes:
        overlaps = [iou[g, n] for g in truths]
        if not overlaps or max(overlaps) < negative:
            assigned[n] = 0
        elif max(overlaps) >= positive:
            assigned[n] = truths[overlaps.index(max(overlaps))] + 1
    for g in truths if low_quality and len(boxes) else ():
        if iou[g, boxes].max() >= min_positive:
            assigned[[n for n in boxes if iou[g, n] == iou[g, boxes].max()]] = g + 1
    return assigned


@pytest.mark.parametrize("low_quality", [True, False])
@pytest.mark.parametrize("rules", [RPN, RCNN])
def test_matches_the_rules_one_by_one(rules, low_quality):
    assign = jax.jit(lambda *inputs: ops.assign_boxes(*inputs, **rules, low_quality=low_quality))
    rng = np.random.default_rng(0)
    for fraction in (1.0, 0.7, 0.0):
        # Few distinct values, so that both maxima are shared by many.
        iou = (rng.integers(0, 11, (6, 50)) * rng.integers(0, 2, (6, 50)) / 10).astype(np.float32)
        gt_valid, valid = rng.random(6) < fraction, rng.random(50) < 0.8
        expected = plain_assignment(iou, gt_valid, valid, **rules, low_quality=low_quality)
        np.testing.assert_array_equal(assign(iou, gt_valid, valid), expected)


def test_recorded_assignments():
    anchors = reference_anchors()

    @jax.jit
    def assign(anchors):
        iou = ops.box_iou(TRUTHS, anchors)
        return iou, ops.assign_boxes(iou, EVERYONE, jnp.ones(len(anchors), bool), **RPN)

    iou, assigned = assign(anchors)
    np.testing.assert_array_equal(assigned, REFERENCE["rpn_assigned_gt"])
    np.testing.assert_allclose(np.max(np.asarray(iou, float), axis=0).sum(), REFERENCE["rpn_max_overlap_sum"], atol=1e-4)
    rois = jnp.asarray(REFERENCE["rois"][:, 1:])
    assigned = ops.assign_boxes(ops.box_iou(TRUTHS, rois), EVERYONE, jnp.ones(len(rois), bool), **RCNN)
    np.testing.assert_array_equal(assigned, REFERENCE["rcnn_assigned_gt"])


draw = jax.jit(ops.sample, static_argnums=(3, 4))


@pytest.mark.parametrize(
    ("positives", "negatives", "expected"), [(50, 50, (8, 24)), (3, 80, (3, 29)), (60, 10, (8, 10)), (0, 0, (0, 0))]
)
def test_samples_positives_first_and_negatives_fill_up(positives, negatives, expected):
    kinds = np.random.default_rng(0).permutation([1] * positives + [0] * negatives + [-1] * (130 - positives - negatives))
    indices, valid, positive = (np.asarray(x) for x in draw(jax.random.key(0), kinds == 1, kinds == 0, 32, 0.25))
    assert indices.shape == valid.shape == positive.shape == (32,)
    assert (positive.sum(), (valid & ~positive).sum()) == expected
    assert np.all(kinds[indices[positive]] == 1)
    assert np.all(kinds[indices[valid & ~positive]] == 0)
    assert len(set(indices[valid])) == valid.sum()


def test_samples_more_than_there_are_boxes():
    indices, valid, positive = draw(jax.random.key(0), np.array([True, False]), np.array([False, True]), 8, 0.5)
    np.testing.assert_array_equal(indices[:2], [0, 1])
    np.testing.assert_array_equal((valid.sum(), positive.sum()), (2, 1))


def test_every_box_is_equally_likely():
    keys = jax.random.split(jax.random.key(1), 2000)
    positive = jnp.arange(20) < 8
    indices, _, _ = jax.jit(jax.vmap(lambda key: ops.sample(key, positive, ~positive, 8, 0.5)))(keys)
    counts = np.bincount(np.asarray(indices).ravel(), minlength=20) / 2000
    np.testing.assert_allclose(counts[:8], 4 / 8, atol=0.06)
    np.testing.assert_allclose(counts[8:], 4 / 12, atol=0.06)
