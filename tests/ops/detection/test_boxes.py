"""Boxes and anchors against plain statements and mmdet's recorded ones."""

import jax
import jax.numpy as jnp
import numpy as np

from paca_jax import ops
from tests import golden

REFERENCE = np.load(golden.FOLDER / "detection" / "mask_rcnn_tiny.192x256.npz")
GROUND_TRUTHS = REFERENCE["gt_boxes"]
PROPOSALS = GROUND_TRUTHS + np.array([3, -4, 5, 2], np.float32)
RCNN_STDS = (0.1, 0.1, 0.2, 0.2)
RPN_STDS = (1.0, 1.0, 1.0, 1.0)

# Ordinary, the same, inside, touching, apart, empty, reversed along one axis and along both, huge.
BOXES = np.array(
    [
        *([0, 0, 10, 20], [0, 0, 10, 20], [2, 3, 4, 5], [10, 0, 20, 20], [50, 60, 70, 80]),
        *([5, 5, 5, 9], [9, 5, 2, 8], [9, 8, 2, 5], [-1e5, -1e5, 1e5, 1e5]),
    ],
    np.float32,
)


def plain_iou(a, b):
    """Returns the overlap of two boxes."""
    shared = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    areas = [max(box[2] - box[0], 0) * max(box[3] - box[1], 0) for box in (a, b)]
    return shared / max(sum(areas) - shared, 1e-6)


def test_overlaps():
    expected = [[plain_iou(a, b) for b in BOXES.astype(float)] for a in BOXES.astype(float)]
    np.testing.assert_allclose(jax.jit(ops.box_iou)(BOXES, BOXES), expected, atol=1e-6)
    np.testing.assert_array_equal(ops.box_area(jnp.asarray(BOXES))[jnp.array([0, 5, 6, 7])], [200, 0, 0, 0])


def test_clipping_to_the_image():
    clipped = jax.jit(ops.clip_boxes)(BOXES, jnp.array([7, 9]))
    np.testing.assert_array_equal(clipped[jnp.array([0, 2, 4, 8])], [[0, 0, 9, 7], [2, 3, 4, 5], [9, 7, 9, 7], [0, 0, 9, 7]])


def test_deltas_are_mmdets():
    np.testing.assert_allclose(
        ops.encode_boxes(*map(jnp.asarray, (PROPOSALS, GROUND_TRUTHS)), RCNN_STDS), REFERENCE["rcnn_encoded"], atol=1e-6
    )


def test_decoding_undoes_encoding():
    rng = np.random.default_rng(0)
    corners = rng.uniform(-50, 300, (2, 40, 2))
    boxes, targets = jnp.concatenate([corners, corners + rng.uniform(8, 200, (2, 40, 2))], axis=-1)
    for stds in (RPN_STDS, RCNN_STDS):
        deltas = jax.jit(ops.encode_boxes, static_argnums=2)(boxes, targets, stds)
        np.testing.assert_allclose(ops.decode_boxes(boxes, deltas, stds), targets, atol=1e-3)
    classes = ops.decode_boxes(boxes[:, None], jnp.zeros((40, 3, 4)), RCNN_STDS)
    np.testing.assert_allclose(classes, np.broadcast_to(boxes[:, None], (40, 3, 4)), atol=1e-4)


def test_sides_are_limited_and_degenerate_boxes_stay_finite():
    box = jnp.array([10.0, 20.0, 18.0, 24.0])
    grown = ops.decode_boxes(box, jnp.array([0.25, -0.5, 1e4, -1e4]), RPN_STDS)
    np.testing.assert_allclose(grown, [16 - 250, 20 - 0.032, 16 + 250, 20 + 0.032], rtol=1e-6)
    boxes = jnp.asarray(BOXES)
    for target in boxes:
        deltas = ops.encode_boxes(boxes, jnp.broadcast_to(target, boxes.shape), RCNN_STDS)
        assert np.all(np.isfinite(deltas))
        assert np.all(np.isfinite(ops.decode_boxes(boxes, deltas, RCNN_STDS)))


def reference_anchors():
    """Returns the anchors of the recorded model's five levels."""
    return jnp.concatenate([ops.anchor_grid(-(-192 // s), -(-256 // s), s) for s in (4, 8, 16, 32, 64)])


def test_anchors_are_mmdets():
    anchors = reference_anchors()
    assert anchors.shape == (len(REFERENCE["rpn_assigned_gt"]), 4)
    np.testing.assert_allclose(anchors[:9], REFERENCE["anchors_first"], atol=1e-5)
    np.testing.assert_allclose(anchors[-9:], REFERENCE["anchors_last"], atol=1e-4)


def test_anchors_go_by_row_column_and_ratio():
    anchors = np.asarray(ops.anchor_grid(2, 3, 10, scale=4, ratios=(1.0, 4.0))).reshape(2, 3, 2, 4)
    np.testing.assert_allclose(anchors[1, 2, 0], [20 - 20, 10 - 20, 20 + 20, 10 + 20], atol=1e-5)
    np.testing.assert_allclose(anchors[1, 2, 1], [20 - 10, 10 - 40, 20 + 10, 10 + 40], atol=1e-5)
