"""RoIAlign: feature maps averaged over the bins of boxes (He et al., Mask R-CNN, ICCV 2017).

As mmcv's `roi_align` with `aligned=True`, `sampling_ratio=0` and average pooling: along each axis a bin holds ceil(box side /
bins) equally spaced bilinear samples, the side in cells of the map. Samples more than one cell outside the map count as 0,
others outside it as the border; empty boxes give 0. Bins and samples are separable, so pooling a box is one small matrix along
each axis, exact for every shape of box.

The matrices multiply whole maps, as matrix units like it. Boxes are sorted by level and taken in chunks, and a chunk leaves out
the levels that none of its boxes is on. Windows gathered around the boxes take far fewer operations and a quarter of the time
on a CPU, but by its compiler's estimate a TPU v5e needs over three times the cycles for them, mostly to scatter the windows'
gradients.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from paca_jax.errors import UserError
from paca_jax.ops.detection.arguments import check_number, check_shapes

_CHUNK = 64  # boxes at a time: their rows or columns of a whole level are in memory
_FINEST_SIDE = 56  # pixels: boxes of twice this side leave the finest level
_NEAR_SAMPLES = 6  # two samples or more in a bin are over half a cell apart: at most 4 touch a cell, and rounding may skip one


def roi_align(features: Float[Array, "H W C"], boxes: Float[Array, "N 4"], stride: float, out: int) -> Float[Array, "N P P C"]:
    """Pools each box of one feature map into `out` by `out` bins.

    Sums are in float32. Gradients reach the features, not the boxes.

    Args:
        features: a map of one image.
        boxes: (x1, y1, x2, y2) in pixels of the image.
        stride: pixels in a cell of the map.
        out: P, bins along each axis.

    Raises:
        UserError: the arrays have other shapes, or there are no bins.
    """
    check_shapes({"features": (features, "H W C"), "boxes": (boxes, "N 4")})
    valid = jnp.ones((1, boxes.shape[0]), bool)
    return pyramid_roi_align([features[None]], boxes[None], valid, out, (stride,))[0]


def pyramid_roi_align(
    levels: Sequence[Float[Array, "B _ _ C"]],
    boxes: Float[Array, "B N 4"],
    valid: Bool[Array, "B N"],
    out: int,
    strides: Sequence[float] = (4, 8, 16, 32),
) -> Float[Array, "B N P P C"]:
    """Pools each box from the level of its image's pyramid that its size belongs to (see `roi_align` and `pyramid_level`).

    Args:
        levels: maps of each image, from fine to coarse.
        boxes: (x1, y1, x2, y2) in pixels of the image.
        valid: which boxes exist; the others give 0, whatever they hold.
        out: P, bins along each axis.
        strides: pixels in a cell of each level.

    Raises:
        UserError: the arrays have other shapes, there are not as many levels as strides, or there are no bins.
    """
    maps = {f"levels[{index}]": (features, f"B H{index} W{index} C") for index, features in enumerate(levels)}
    check_shapes({"boxes": (boxes, "B N 4"), "valid": (valid, "B N"), **maps})
    if not 0 < len(levels) == len(strides):
        raise UserError(f"Expected a level for each of {len(strides)} strides, got {len(levels)} levels. Correct the strides.")
    for stride in strides:
        check_number("strides", stride, above=0)
    if isinstance(out, bool) or not isinstance(out, int) or out < 1:
        raise UserError(f"Expected out to be a whole number of bins above 0, got {out!r}. Correct it.")
    if not boxes.shape[1]:
        return jnp.zeros((boxes.shape[0], 0, out, out, levels[0].shape[-1]), levels[0].dtype)
    boxes = jnp.where(valid[..., None], boxes, 0).astype(jnp.float32)
    level = jnp.where(valid, pyramid_level(boxes, len(levels)), len(levels))
    return _pyramid(out, tuple(strides), tuple(levels), boxes, level)


def pyramid_level(boxes: Float[Array, "*N 4"], count: int = 4) -> Int[Array, "*N"]:
    """Returns each box's level: floor(log2(sqrt(area) / 56 pixels + 1e-6)) within 0 .. count - 1 (Lin et al., CVPR 2017)."""
    sides = boxes[..., 2:] - boxes[..., :2]
    size = jnp.sqrt(jnp.maximum(sides[..., 0] * sides[..., 1], 0)) / _FINEST_SIDE + 1e-6
    return jnp.sum(size[..., None] >= 2.0 ** jnp.arange(1, count), axis=-1)


def sampling_weights(
    low: Float[Array, "*N"], high: Float[Array, "*N"], stride: float, out: int, size: int
) -> Float[Array, "*N P S"]:
    """Returns what each cell of an axis contributes to each bin: the mean over the bin's samples of their bilinear weights.

    Args:
        low: where the boxes begin, in pixels.
        high: where they end.
        stride: pixels in a cell.
        out: P, bins in a box.
        size: S, cells of the axis.
    """
    start = (low.astype(jnp.float32) / stride - 0.5)[..., None, None]
    length = (high.astype(jnp.float32) / stride - 0.5)[..., None, None] - start
    samples = jnp.ceil(length / out)
    samples = jnp.where((samples - 1) * out >= length, samples - 1, samples)  # a quotient may be rounded up over an integer
    span = length / out
    step = span / jnp.maximum(samples, 1)
    origin = start + jnp.arange(out)[:, None] * span
    cell = jnp.arange(size)
    near = jnp.floor((cell - 1 - origin) / jnp.where(step > 0, step, 1) - 0.5)
    near = jnp.clip(near, 0, jnp.maximum(samples - _NEAR_SAMPLES, 0))
    total = jnp.zeros(())
    for offset in range(_NEAR_SAMPLES):
        sample = near + offset
        position = origin + (sample + 0.5) * step
        counts = (sample < samples) & (position >= -1) & (position <= size)
        weight = jnp.maximum(1 - jnp.abs(jnp.clip(position, 0, size - 1) - cell), 0)
        total = total + jnp.where(counts, weight, 0)
    return total / jnp.maximum(samples, 1)


class _Chunks(NamedTuple):
    """The boxes by level, in chunks (K, B, n, ...); `level` is that of none for what fills up the last chunk."""

    order: Int[Array, "B N"]
    boxes: Float[Array, "K B n 4"]
    level: Int[Array, "K B n"]


def _split(x: Shaped[Array, "B N *D"], order: Int[Array, "B N"], fill: int = 0) -> Shaped[Array, "K B n *D"]:
    batch, count = order.shape
    chunk = min(_CHUNK, count)
    rest = ((0, 0),) * (x.ndim - 2)
    x = jnp.pad(_reorder(x, order), ((0, 0), (0, -count % chunk), *rest), constant_values=fill)
    return jnp.moveaxis(x.reshape(batch, -1, chunk, *x.shape[2:]), 1, 0)


def _reorder(x: Shaped[Array, "B N *D"], order: Int[Array, "B M"]) -> Shaped[Array, "B M *D"]:
    return jnp.take_along_axis(x, jnp.expand_dims(order, range(2, x.ndim)), axis=1, mode="promise_in_bounds")


def _by_level(boxes: Float[Array, "B N 4"], level: Int[Array, "B N"], nowhere: int) -> _Chunks:
    order = jnp.argsort(level, axis=1, stable=True)
    return _Chunks(order, _split(boxes, order), _split(level, order, nowhere))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _pyramid(
    out: int, strides: tuple[float, ...], levels: tuple[Array, ...], boxes: Float[Array, "B N 4"], level: Int[Array, "B N"]
) -> Float[Array, "B N P P C"]:
    chunks = _by_level(boxes, level, len(levels))

    def pool(chunk: tuple[Array, Array]) -> Float[Array, "B n P P C"]:
        boxes, level = chunk
        pooled = jnp.zeros((*level.shape, out, out, levels[0].shape[-1]))
        for index, (features, stride) in enumerate(zip(levels, strides, strict=True)):

            def add(pooled: Array, features: Array = features, stride: float = stride, index: int = index) -> Array:
                rows, columns = _weights(boxes, level == index, stride, out, features)
                along_x = jnp.einsum("bnqx,byxc->bnqyc", columns, features)
                return pooled + jnp.einsum("bnpy,bnqyc->bnpqc", rows, along_x, preferred_element_type=jnp.float32)

            pooled = jax.lax.cond(jnp.any(level == index), add, lambda pooled: pooled, pooled)
        return pooled.astype(levels[0].dtype)

    pooled = jnp.moveaxis(jax.lax.map(pool, (chunks.boxes, chunks.level)), 0, 1)
    pooled = pooled.reshape(boxes.shape[0], -1, *pooled.shape[3:])
    return _reorder(pooled, jnp.argsort(chunks.order, axis=1))


def _pyramid_forward(
    out: int, strides: tuple[float, ...], levels: tuple[Array, ...], boxes: Array, level: Array
) -> tuple[Array, tuple[tuple[Array, ...], Array, Array]]:
    return _pyramid(out, strides, levels, boxes, level), (levels, boxes, level)


def _pyramid_backward(
    out: int, strides: tuple[float, ...], saved: tuple[tuple[Array, ...], Array, Array], gradient: Float[Array, "B N P P C"]
) -> tuple[tuple[Array, ...], None, None]:
    """Adds each chunk's gradient to the maps' in place; of the maps themselves only the shapes are needed."""
    levels, boxes, level = saved
    chunks = _by_level(boxes, level, len(levels))

    def step(totals: tuple[Array, ...], chunk: tuple[Array, Array, Array]) -> tuple[tuple[Array, ...], None]:
        boxes, level, gradient = chunk
        following = []
        for index, (total, features, stride) in enumerate(zip(totals, levels, strides, strict=True)):

            def add(total: Array, features: Array = features, stride: float = stride, index: int = index) -> Array:
                rows, columns = _weights(boxes, level == index, stride, out, features)
                along_x = jnp.einsum("bnpy,bnpqc->bnqyc", rows, gradient)
                return total + jnp.einsum("bnqx,bnqyc->byxc", columns, along_x, preferred_element_type=jnp.float32)

            following.append(jax.lax.cond(jnp.any(level == index), add, lambda total: total, total))
        return tuple(following), None

    zeros = tuple(jnp.zeros(features.shape) for features in levels)
    totals, _ = jax.lax.scan(step, zeros, (chunks.boxes, chunks.level, _split(gradient, chunks.order)))
    return tuple(total.astype(features.dtype) for total, features in zip(totals, levels, strict=True)), None, None


_pyramid.defvjp(_pyramid_forward, _pyramid_backward)


def _weights(
    boxes: Float[Array, "B n 4"], counts: Bool[Array, "B n"], stride: float, out: int, features: Float[Array, "B H W C"]
) -> tuple[Float[Array, "B n P H"], Float[Array, "B n P W"]]:
    """Returns the weights along y and x in the features' type, 0 for boxes that do not count here."""
    _, height, width, _ = features.shape
    rows = sampling_weights(boxes[..., 1], boxes[..., 3], stride, out, height)
    columns = sampling_weights(boxes[..., 0], boxes[..., 2], stride, out, width)
    return jnp.where(counts[..., None, None], rows, 0).astype(features.dtype), columns.astype(features.dtype)
