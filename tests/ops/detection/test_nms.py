"""Non-maximum suppression against the loop over boxes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paca_jax import ops
from tests.ops.detection.test_boxes import REFERENCE, plain_iou

kept = jax.jit(ops.nms)
best = jax.jit(ops.batched_nms, static_argnums=5)


def plain_nms(boxes, scores, valid, threshold):
    """Returns the indices that remain, by falling score."""
    remaining = []
    for i in sorted(np.flatnonzero(valid), key=lambda i: -scores[i]):
        if all(plain_iou(boxes[i], boxes[j]) <= threshold for j in remaining):
            remaining.append(i)
    return remaining


def crowded(rng, count):
    """Returns boxes around few places, on a grid so that overlaps repeat, some empty and some reversed; scores with ties."""
    corners = 8 * rng.integers(0, 10, (count, 2))
    sides = rng.choice([-8, 0, 16, 24, 32], (count, 2), p=[0.02, 0.03, 0.35, 0.3, 0.3])
    boxes = np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
    return boxes, np.round(rng.random(count), 2).astype(np.float32), rng.random(count) < 0.9


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7])
def test_matches_the_loop(threshold):
    # More than two tiles, so that boxes are suppressed within a tile and by earlier ones.
    boxes, scores, valid = crowded(np.random.default_rng(0), 600)
    expected = plain_nms(boxes.astype(float), scores, valid, threshold)
    assert 20 < len(expected) < 500
    np.testing.assert_array_equal(np.flatnonzero(kept(boxes, scores, valid, threshold)), np.sort(expected))


def test_a_chain_as_long_as_a_tile():
    # Each box overlaps its neighbors alone, so every second one remains.
    left = 2.0 * np.arange(300, dtype=np.float32)
    boxes = np.stack([left, 0 * left, left + 3, 0 * left + 1], axis=1)
    result = kept(boxes, -left, np.ones(300, bool), 0.1)
    np.testing.assert_array_equal(result, np.arange(300) % 2 == 0)


def test_suppresses_above_the_threshold_only_and_the_first_of_equals_remains():
    boxes = np.array([[0, 0, 2, 1], [0, 0, 1, 1], [0, 0, 2, 1], [0, 0, 2, 1]], np.float32)
    scores, valid = np.array([0.5, 0.9, 0.5, 0.5], np.float32), np.array([True, True, True, False])
    np.testing.assert_array_equal(kept(boxes, scores, valid, 0.5), [True, True, False, False])
    np.testing.assert_array_equal(kept(boxes, scores, valid, 0.49), [False, True, False, False])


@pytest.mark.parametrize("most", [5, 100, 700])
def test_groups_are_suppressed_by_themselves(most):
    rng = np.random.default_rng(1)
    boxes, scores, valid = crowded(rng, 600)
    groups = rng.integers(0, 3, 600)
    parts = [plain_nms(boxes.astype(float), scores, valid & (groups == g), 0.5) for g in range(3)]
    expected = sorted((i for part in parts for i in part), key=lambda i: (-scores[i], i))[:most]
    indices, exists = best(boxes, scores, groups, valid, 0.5, most)
    assert indices.shape == exists.shape == (most,)
    np.testing.assert_array_equal(indices[exists], expected)
    assert np.all(np.asarray(exists) == (np.arange(most) < len(expected)))


def test_nothing_valid_gives_nothing_and_batches_are_mapped_over():
    boxes, scores, valid = crowded(np.random.default_rng(2), 40)
    both = jax.jit(jax.vmap(ops.batched_nms, in_axes=(None, None, None, 0, None, None)), static_argnums=5)
    indices, exists = both(boxes, scores, np.zeros(40, int), np.stack([valid, np.zeros(40, bool)]), 0.5, 50)
    np.testing.assert_array_equal(indices[0][exists[0]], plain_nms(boxes.astype(float), scores, valid, 0.5))
    assert not np.any(exists[1])


def test_chosen_boxes_carry_gradients():
    boxes, _, valid = crowded(np.random.default_rng(3), 40)

    @jax.jit
    @jax.grad
    def gradient(boxes):
        indices, exists = ops.batched_nms(boxes, boxes[:, 0], jnp.zeros(40, int), jnp.asarray(valid), 0.5, 10)
        return (boxes[indices] * exists[:, None]).sum()

    expected = np.isin(np.arange(40), plain_nms(boxes.astype(float), boxes[:, 0], valid, 0.5)[:10])
    np.testing.assert_array_equal(gradient(boxes), np.repeat(expected[:, None], 4, axis=1))


@pytest.mark.parametrize("image", [0, 1])
def test_recorded_detections_of_a_class_remain(image):
    boxes, scores, labels = (REFERENCE[f"detections{image}/{name}"] for name in ("boxes", "scores", "labels"))
    # Of each detection and a copy of lower score, a little to its right, the detection remains.
    copies = boxes + 0.05 * (boxes[:, 2:3] - boxes[:, :1]) * np.array([1, 0, 1, 0], np.float32)
    both = np.concatenate([copies, boxes]), np.concatenate([scores - 1, scores]), np.concatenate([labels, labels])
    indices, exists = best(*both, np.ones(200, bool), 0.5, 200)
    np.testing.assert_array_equal(indices[exists], 100 + np.arange(100))
