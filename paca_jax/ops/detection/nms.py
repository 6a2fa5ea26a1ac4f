"""Greedy non-maximum suppression with static shapes.

The boxes, sorted by score, are settled tile by tile: a tile loses what kept boxes of earlier tiles suppress, and the
suppression within it is repeated until nothing changes. That is exactly the greedy result, in a few large steps instead of one
for each box.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from paca_jax.ops.detection.arguments import check_number, check_shapes
from paca_jax.ops.detection.boxes import box_iou

_TILE = 256


def nms(
    boxes: Float[Array, "N 4"], scores: Float[Array, "N"], valid: Bool[Array, "N"], iou_threshold: float | Float[Array, ""]
) -> Bool[Array, "N"]:
    """Tells which boxes remain when each, from the highest score down, suppresses those that overlap it by more.

    Args:
        boxes: in pixels.
        scores: of equal ones the first comes first.
        valid: which boxes exist; the others neither remain nor suppress.
        iou_threshold: suppresses above it, not at it.

    Raises:
        UserError: the arrays have other shapes.
    """
    check_shapes({"boxes": (boxes, "N 4"), "scores": (scores, "N"), "valid": (valid, "N")})
    check_number("iou_threshold", iou_threshold)
    order = _by_score(scores, valid)
    kept = _settle(order, boxes, jnp.zeros(len(order), jnp.int32), valid, iou_threshold, len(order))
    return jnp.zeros_like(valid).at[order].set(kept)


def batched_nms(
    boxes: Float[Array, "N 4"],
    scores: Float[Array, "N"],
    groups: Int[Array, "N"],
    valid: Bool[Array, "N"],
    iou_threshold: float | Float[Array, ""],
    max_outputs: int,
) -> tuple[Int[Array, "K"], Bool[Array, "K"]]:
    """Returns the boxes of highest score that remain when boxes suppress only those of their own group (see `nms`).

    Args:
        boxes: in pixels.
        scores: of equal ones the first comes first.
        groups: the class or the pyramid level of each box.
        valid: which boxes exist.
        iou_threshold: suppresses above it, not at it.
        max_outputs: K, the most boxes to return.

    Returns:
        Indices of the boxes by falling score, 0 where there are no more, and which of these entries there are.

    Raises:
        UserError: the arrays have other shapes.
    """
    check_shapes({"boxes": (boxes, "N 4"), "scores": (scores, "N"), "groups": (groups, "N"), "valid": (valid, "N")})
    check_number("iou_threshold", iou_threshold)
    order = _by_score(scores, valid)
    if not len(order):
        return jnp.zeros(max_outputs, order.dtype), jnp.zeros(max_outputs, bool)
    kept = _settle(order, boxes, groups, valid, iou_threshold, max_outputs)
    first = jnp.argsort(jnp.where(kept, 0, 1), stable=True)[:max_outputs]
    missing = max(max_outputs - len(order), 0)
    return jnp.pad(jnp.where(kept[first], order[first], 0), (0, missing)), jnp.pad(kept[first], (0, missing))


def _by_score(scores: Float[Array, "N"], valid: Bool[Array, "N"]) -> Int[Array, "N"]:
    return jnp.argsort(jnp.where(valid, -scores, jnp.inf), stable=True)


def _settle(
    order: Int[Array, "N"],
    boxes: Float[Array, "N 4"],
    groups: Int[Array, "N"],
    valid: Bool[Array, "N"],
    iou_threshold: float | Float[Array, ""],
    enough: int,
) -> Bool[Array, "N"]:
    """Tells which of the boxes remain, in the order given; once `enough` do, later tiles are left out."""
    boxes = jax.lax.stop_gradient(boxes)  # a loop of unknown length has no gradient, nor has a choice
    boxes, groups, valid = (jnp.asarray(x)[order] for x in (boxes, groups, valid))
    count = len(boxes)
    tile = min(_TILE, max(count, 1))
    padding = max(-count % tile, tile - count)  # there is a tile even without boxes
    boxes = jnp.pad(boxes, ((0, padding), (0, 0)))
    groups, valid = jnp.pad(groups, (0, padding)), jnp.pad(valid, (0, padding))
    tiles = tuple(x.reshape(-1, tile, *x.shape[1:]) for x in (boxes, groups))
    valid = valid.reshape(-1, tile)

    def suppressing(rows: Sequence[Array], columns: Sequence[Array]) -> Bool[Array, "rows columns"]:
        return (box_iou(rows[0], columns[0]) > iou_threshold) & (rows[1][:, None] == columns[1])

    def unfinished(state: tuple[Array, Array]) -> Bool[Array, ""]:
        index, kept = state
        return (index < len(kept)) & (jnp.sum(kept) < enough)

    def settle_tile(state: tuple[Array, Array]) -> tuple[Array, Array]:
        index, kept = state
        chosen = jnp.arange(len(valid)) == index  # a slice would have an index for each image, and be a gather
        here = [jnp.sum(jnp.where(jnp.expand_dims(chosen, range(1, x.ndim)), x, 0), axis=0) for x in tiles]
        by_earlier = jnp.any(suppressing((boxes, groups), here) & kept.reshape(-1, 1), axis=0)
        candidates = jnp.any(chosen[:, None] & valid, axis=0) & ~by_earlier
        within = jnp.triu(suppressing(here, here), k=1)
        settled = _greedy(candidates, within)
        return index + 1, kept | (chosen[:, None] & settled)

    _, kept = jax.lax.while_loop(unfinished, settle_tile, (jnp.asarray(0), jnp.zeros_like(valid)))
    return kept.reshape(-1)[:count]


def _greedy(candidates: Bool[Array, "T"], suppressing: Bool[Array, "T T"]) -> Bool[Array, "T"]:
    """Returns the candidates that no remaining earlier one suppresses.

    After i rounds the first i are settled for good, so what a round does not change is the answer.
    """

    def again(state: tuple[Array, Array]) -> tuple[Array, Array]:
        kept, _ = state
        following = candidates & ~jnp.any(suppressing & kept[:, None], axis=0)
        return following, jnp.any(following != kept)

    return jax.lax.while_loop(lambda state: state[1], again, (candidates, jnp.asarray(True)))[0]
