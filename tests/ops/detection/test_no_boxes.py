import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paca_jax import ops
from paca_jax.errors import UserError

NO_BOXES, NONE, NONE_VALID = jnp.zeros((0, 4)), jnp.zeros(0), jnp.zeros(0, bool)
MAP = jnp.ones((8, 8, 3))

CALLS = {
    "nms": (lambda: ops.nms(NO_BOXES, NONE, NONE_VALID, 0.5), [(0,)]),
    "batched_nms": (lambda: ops.batched_nms(NO_BOXES, NONE, jnp.zeros(0, int), NONE_VALID, 0.5, 5), [(5,), (5,)]),
    "roi_align": (lambda: ops.roi_align(MAP, NO_BOXES, 4.0, 7), [(0, 7, 7, 3)]),
    "pyramid_roi_align": (
        lambda: ops.pyramid_roi_align([MAP[None]], NO_BOXES[None], NONE_VALID[None], 7, (4,)),
        [(1, 0, 7, 7, 3)],
    ),
    "paste_masks": (lambda: ops.paste_masks(jnp.zeros((0, 28, 28)), NO_BOXES, (5, 6)), [(0, 5, 6)]),
    "mask_targets": (lambda: ops.mask_targets(jnp.zeros((0, 5, 6)), NO_BOXES, jnp.zeros(0, int)), [(0, 28, 28)]),
    "sample": (lambda: ops.sample(jax.random.key(0), NONE_VALID, NONE_VALID, 5, 0.5), [(5,), (5,), (5,)]),
    "box_iou": (lambda: ops.box_iou(NO_BOXES, jnp.ones((3, 4))), [(0, 3)]),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("jit", [False, True])
def test_no_boxes_give_results_without_rows(name, jit):
    call, shapes = CALLS[name]
    results = jax.tree.leaves((jax.jit(call) if jit else call)())
    assert [result.shape for result in results] == shapes
    assert not any(np.asarray(result).any() for result in results)


def test_no_boxes_have_a_gradient_of_zero():
    gradient = jax.grad(lambda features: ops.roi_align(features, NO_BOXES, 4.0, 7).sum())(MAP)
    assert gradient.shape == MAP.shape
    assert not gradient.any()


def test_boxes_without_ground_truths_are_background():
    assigned = ops.assign_boxes(
        jnp.zeros((0, 3)), NONE_VALID, jnp.array([True, True, False]), positive=0.7, negative=0.3, min_positive=0.3
    )
    assert assigned.tolist() == [0, 0, -1]


@pytest.mark.parametrize("boxes", [None, "boxes", [], 5, np.zeros((3, 5)), np.zeros(4), [[0, 0, 1, 1.0]]])
def test_boxes_of_other_types_and_shapes(boxes):
    scores, valid = jnp.zeros(3), jnp.ones(3, bool)
    with pytest.raises(UserError, match=r"Expected boxes to be an array of shape \((N|3), 4\), got "):
        inspect.unwrap(ops.nms)(boxes, scores, valid, 0.5)  # without the tests' own check of annotations
