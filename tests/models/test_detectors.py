"""Detectors against the recorded outputs of the official implementation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paca_jax import convert, ops
from tests import golden
from tests.golden import Differences

pytestmark = pytest.mark.xdist_group("detectors")  # so that one worker computes their fixtures

NAME = "mask_rcnn_tiny"


@pytest.fixture(scope="module")
def reference():
    return np.load(golden.DETECTION / f"{NAME}.192x256.npz")


@pytest.fixture(scope="module")
def official(reference):
    """The model with the reference's weights, its images and their true sizes; the images' padding is zero."""
    model = golden.model(NAME, drop_path_rate=0.0)
    variables = convert.from_torch(golden.state_dict(NAME, int(reference["salt"])), model)
    images = golden.images(int(reference["input_seed"]), tuple(reference["input_shape"]))
    return model, variables, images, reference["image_sizes"].astype(np.int32)


@pytest.fixture(scope="module")
def networks(official):
    """The pyramid, the proposals' scores and deltas, and the proposals."""
    model, variables, images, sizes = official

    def run(module, images, sizes):
        pyramid = module.pyramid(images)
        scores, deltas = module.region_scores(pyramid)
        return pyramid, scores, deltas, module.propose(pyramid, scores, deltas, sizes, model.config.candidates)

    with jax.default_matmul_precision("highest"):
        return jax.jit(lambda v, x, s: model.apply(v, x, s, method=run))(variables, images, sizes)


def test_the_pyramid_and_the_region_scores(networks, reference):
    found = Differences()
    pyramid, scores, deltas, _ = networks
    for index, level in enumerate(pyramid):
        maps = np.moveaxis(np.asarray(level), -1, 1)
        found.check(f"level {index} mean", maps.mean((2, 3)), reference[f"fpn{index}/mean"], 1e-4)
        found.check(f"level {index} std", maps.std((2, 3)), reference[f"fpn{index}/std"], 1e-4)
        found.check(f"level {index} corner", maps[:, :, :2, :2], reference[f"fpn{index}/corner"][:, :, : maps.shape[2]], 1e-4)
        height, width = maps.shape[2:]
        score = np.asarray(scores[index]).reshape(2, height, width, 3).transpose(0, 3, 1, 2)[:, :, ::4, ::4]
        delta = np.asarray(deltas[index]).reshape(2, height, width, 12).transpose(0, 3, 1, 2)[:, :, ::4, ::4]
        found.check(f"level {index} score", score, reference[f"rpn{index}/score"], 1e-4)
        found.check(f"level {index} delta", delta, reference[f"rpn{index}/delta"], 1e-4)
    assert not found.failures, "\n".join(found.failures)


def test_proposals_match_the_recorded_ones(networks, reference):
    proposals = networks[3]
    for image in range(2):
        valid = np.asarray(proposals.valid[image])
        boxes, scores = np.asarray(proposals.boxes[image])[valid], np.asarray(proposals.scores[image])[valid]
        expected, expected_scores = reference[f"proposals{image}/boxes"], reference[f"proposals{image}/scores"]
        iou = np.asarray(ops.box_iou(jnp.asarray(expected), jnp.asarray(boxes)))
        best = iou.argmax(1)
        alike = (iou.max(1) > 0.99) & (np.abs(scores[best] - expected_scores) < 1e-4)
        assert len(set(best[alike])) >= 0.99 * len(expected)
        assert abs(len(boxes) - len(expected)) <= 0.01 * len(expected)


def test_region_features_and_heads(official, networks, reference):
    model, variables, _, _ = official
    pyramid, rois = networks[0], reference["rois"]
    order = [np.flatnonzero(rois[:, 0] == image) for image in range(2)]
    count = max(map(len, order))
    boxes, valid = np.zeros((2, count, 4), np.float32), np.zeros((2, count), bool)
    for image, rows in enumerate(order):
        boxes[image, : len(rows)], valid[image, : len(rows)] = rois[rows, 1:], True

    boxes, valid = jnp.asarray(boxes), jnp.asarray(valid)

    @jax.jit
    def heads(variables, pyramid):
        features = [ops.pyramid_roi_align(pyramid[:4], boxes, valid, side) for side in (7, 14)]
        outputs = model.apply(variables, pyramid, boxes, valid, method="classify")
        return *features, *outputs, model.apply(variables, pyramid, boxes, valid, method="draw")

    def in_order(x):
        result = np.zeros((len(rois), *x.shape[2:]), np.float32)
        for image, rows in enumerate(order):
            result[rows] = np.asarray(x)[image, : len(rows)]
        return result

    with jax.default_matmul_precision("highest"):
        box_features, mask_features, logits, deltas, masks = map(in_order, heads(variables, pyramid))
    found = Differences()
    found.check("box features", box_features.transpose(0, 3, 1, 2)[:, ::16], reference["roi_bbox_feature"], 1e-4)
    found.check("mask features", mask_features.transpose(0, 3, 1, 2)[:, ::32], reference["roi_mask_feature"], 1e-4)
    found.check("logits", logits, reference["roi/cls"], 1e-4)
    found.check("deltas", deltas.reshape(len(rois), -1)[:, :16], reference["roi/delta"], 1e-4)
    found.check("masks", masks.transpose(0, 3, 1, 2)[:, ::20], reference["roi/mask"], 1e-4)
    assert not found.failures, "\n".join(found.failures)


def test_detections_match_the_recorded_ones(official, reference):
    model, variables, images, sizes = official
    with jax.default_matmul_precision("highest"):
        found = jax.jit(model.apply)(variables, images, sizes)
    for image in range(2):
        height, width = sizes[image].tolist()
        boxes, labels = reference[f"detections{image}/boxes"], reference[f"detections{image}/labels"]
        packed = reference[f"detections{image}/masks"]
        bitmaps = np.unpackbits(packed)[: len(boxes) * height * width].reshape(len(boxes), height, width).astype(bool)
        ours = {name: np.asarray(value[image]) for name, value in found.items()}
        assert ours["valid"].sum() == len(boxes)
        iou = np.asarray(ops.box_iou(jnp.asarray(boxes), jnp.asarray(ours["boxes"])))
        iou = np.where(labels[:, None] == ours["labels"], iou, 0)
        best = iou.argmax(1)
        alike = (iou.max(1) > 0.99) & (np.abs(ours["scores"][best] - reference[f"detections{image}/scores"]) < 1e-4)
        assert alike.sum() >= 98
        chosen = jnp.asarray(ours["masks"][best]), jnp.asarray(ours["boxes"][best])
        pasted = np.asarray(ops.paste_masks(*chosen, (height, width))) >= 0.5
        union = (pasted | bitmaps).sum((1, 2))
        overlap = (pasted & bitmaps).sum((1, 2)) / np.maximum(union, 1)
        assert np.sum((overlap > 0.98) | (union == 0)) >= 98
