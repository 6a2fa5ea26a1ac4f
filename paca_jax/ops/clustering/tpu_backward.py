"""The backward kernel of convolution clustering: it computes what lies between anew."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from paca_jax.ops.clustering.tpu_steps import (
    BIASES,
    MEMORY,
    ONCE,
    Line,
    assignment_spec,
    clear_edges,
    cost,
    filtered_scratch,
    for_rounds,
    for_strips,
    inside,
    line_specs,
    map_scratch,
    own_lines,
    patch_scratch,
    store_filtered,
    store_maps,
    store_normal,
    weighted,
    windows,
)
from paca_jax.ops.clustering.tpu_tiling import SUBLANES, Tiling
from paca_jax.ops.nn.gelu import gelu_and_slope
from paca_jax.ops.norm.reference import normalize_backward
from paca_jax.ops.pallas.common import LANES, NN, NT, TN, Ref, dot, sum_rows, whole

_PART = 7 * LANES  # patches whose assignments vector memory holds twice


def backward(
    x: Float[Array, "N W C"],
    dys: Sequence[Array],
    norm: Float[Array, "2 C"],
    vectors: Float[Array, "V C"],
    pointwise: Float[Array, "C C"],
    project: Float[Array, "C M"],
    *,
    tiling: Tiling,
    interpret: bool,
) -> tuple[Array, Array, Array, Array, Array]:
    """Returns the gradients; all but the first are sums over patches, in float32.

    Args:
        x: all rows of all images.
        dys: the assignment and its gradient (B, M, N) if steps see whole images, else the gradient of lines' logits (N, W, M).
        norm: scale and bias.
        vectors: taps, and the biases of convolution and first dense layer.
        pointwise: of the first dense layer.
        project: of the second dense layer.
        tiling: how maps are cut.
        interpret: whether JAX interprets the kernel.

    Returns:
        Those of `x`, in its form and type; of `norm` (2, C); of `vectors` (V, 8, C), the sum over whose axis of 8 is left to
        the caller; of `pointwise` and of `project`.
    """
    channels, clusters = project.shape
    patches = line_specs(tiling, channels, tiling.halo)
    if tiling.chunks == 1:
        gradients = [assignment_spec(tiling, clusters, pipeline_mode=ONCE), assignment_spec(tiling, clusters)]
        scratch = [patch_scratch(tiling, clusters)]
    else:
        gradients, scratch = line_specs(tiling, clusters, max(tiling.reach, 1)), []
        dys = [*dys] * len(gradients)
    weights = (norm, vectors, pointwise, project)
    sums = [
        jax.ShapeDtypeStruct(shape, jnp.float32)
        for shape in (norm.shape, (len(vectors), SUBLANES, channels), pointwise.shape, project.shape)
    ]
    images, rows = tiling.round
    call: Any = pl.pallas_call(
        partial(_step, tiling=tiling),
        grid=tiling.grid,
        in_specs=[*patches, *gradients, *map(whole, weights)],
        out_specs=[patches[0], *map(whole, sums)],
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype), *sums],
        scratch_shapes=[
            map_scratch(tiling, _edges(tiling)[0], channels),
            map_scratch(tiling, tiling.reach, channels),
            filtered_scratch(tiling, _edges(tiling)[1], channels),
            pltpu.VMEM((max(images * rows, tiling.reach), tiling.columns, clusters), jnp.float32),
            *scratch,
        ],
        # In order, for sums stay in place from step to step.
        compiler_params=pltpu.CompilerParams(dimension_semantics=("arbitrary", "arbitrary"), vmem_limit_bytes=MEMORY),
        cost_estimate=cost(tiling, channels, clusters, x.dtype.itemsize, forwards=3),
        name="conv_clustering_backward",
        interpret=interpret,
    )
    return call(*(x for _ in patches), *dys, *weights)


def _edges(tiling: Tiling) -> tuple[int, int]:
    """Returns how many rows above and below are normalized, and how many of these are filtered."""
    return (tiling.reach, 0) if tiling.chunks == 1 else (2 * tiling.reach, tiling.reach)


@jax.jit
def _tap_gradients(seen: Float[Array, "T S L"], slope: Float[Array, "R S L"]) -> list[Float[Array, "S L"]]:
    """Sums what a column of windows sees by a gradient over the rows, for each row of the window."""
    products = [seen[down : down + len(slope)] * slope for down in range(len(seen) - len(slope) + 1)]
    return [sum(product[1:], product[0]) for product in products]


def _step(*refs: Ref, tiling: Tiling) -> None:
    patches, gradients = (1, 2) if tiling.chunks == 1 else (3, 3)
    xs, dys, refs = refs[:patches], refs[patches : patches + gradients], refs[patches + gradients :]
    norm, vectors, pointwise, project, dx, dnorm, dvectors, dpointwise, dproject, *scratch = refs
    maps, slopes, filtered, dlogits, *by_patch = scratch
    edge, more = _edges(tiling)
    reach, (images, rows) = tiling.reach, tiling.round
    bias, chunk = len(vectors) - BIASES, pl.program_id(1)

    @pl.when((pl.program_id(0) == 0) & (chunk == 0))
    def _() -> None:
        for ref in (dnorm, dvectors, dpointwise, dproject):
            ref[...] = jnp.zeros_like(ref)

    store_normal(tiling, xs, norm, maps, edge, chunk)
    store_filtered(tiling, maps, edge, vectors, filtered, more)
    clear_edges(tiling, slopes, reach)
    if tiling.width < tiling.columns:
        dlogits[:, -SUBLANES:] = jnp.zeros((dlogits.shape[0], SUBLANES, dlogits.shape[2]))
    if tiling.chunks == 1:
        jax.lax.fori_loop(0, tiling.images, lambda image, _: _unassign(dys, by_patch[0], image), None)

    def mix(image: Line, row: Line, count: int, size: int, own: bool) -> None:
        rounded = dlogits[: count * size].reshape(-1, dlogits.shape[2]).astype(dx.dtype)
        here = filtered[pl.ds(image, count), pl.ds(row + more, size)]
        active, active_slope = gelu_and_slope(here.reshape(-1, here.shape[-1]))
        active = active.astype(dx.dtype)
        mixed, mixed_slope = gelu_and_slope(dot(active, pointwise[...], NN) + vectors[-1:])
        dmixed = dot(rounded, project[...], NT) * mixed_slope
        dfiltered = dot(dmixed.astype(dx.dtype), pointwise[...], NT) * active_slope
        store_maps(slopes, image, row + reach, dfiltered.reshape(here.shape))
        if own:
            dproject[...] += dot(mixed.astype(dx.dtype), rounded, TN)
            dpointwise[...] += dot(active, dmixed.astype(dx.dtype), TN)
            dvectors[bias] += sum_rows(dfiltered)
            dvectors[bias + 1] += sum_rows(dmixed)

    def mix_own(image: Line, row: Line) -> None:
        if tiling.chunks == 1:
            _load_patches(tiling, by_patch[0], image, row, dlogits)
        else:
            dlogits[:rows, : tiling.width] = dys[0][own_lines(tiling, image, row)].astype(jnp.float32)
        mix(image, row, images, rows, own=True)

    def mix_more(dy: Float[Array, "R W M"], row: int) -> None:
        dlogits[:more, : tiling.width] = inside(tiling, dy[None], chunk, row)[0].astype(jnp.float32)
        mix(0, row, 1, more, own=False)

    for_rounds(tiling, mix_own)
    if more:
        mix_more(dys[1][...], -more)
        mix_more(dys[2][...], tiling.rows)

    def convolve(image: Line, row: Line, column: Line, channels: slice) -> None:
        seen = windows(tiling, slopes, image, row, tiling.strip, column, channels)
        dnormal = weighted(seen, [vectors[bias - 1 - tap : bias - tap, channels] for tap in range(bias)])
        filtered[image, pl.ds(row + more, tiling.strip), pl.ds(column, SUBLANES), channels] = dnormal
        slope = seen[reach][reach : reach + tiling.strip]
        for right, normal in enumerate(windows(tiling, maps, image, row + edge - reach, tiling.strip, column, channels)):
            for down, part in enumerate(_tap_gradients(normal, slope)):
                dvectors[down * (2 * reach + 1) + right, :, channels] += part

    for_strips(tiling, tiling.rows, tiling.strip, filtered.shape[-1], convolve)

    def normalize(image: Line, row: Line) -> None:
        dnormal = inside(tiling, filtered[pl.ds(image, images), pl.ds(row + more, rows), : tiling.width], chunk, row)
        dnormal = dnormal.reshape(-1, *dnormal.shape[2:])
        own = own_lines(tiling, image, row)
        dpatches, dscale = jax.vmap(normalize_backward, (0, 0, None))(xs[0][own], dnormal, norm[...])
        dx[own] = dpatches.astype(dx.dtype)
        dnorm[:1] += jnp.sum(jnp.sum(dscale, 0), 0, keepdims=True)
        dnorm[1:] += jnp.sum(jnp.sum(dnormal, 0), 0, keepdims=True)

    for_rounds(tiling, normalize)


def _unassign(refs: Sequence[Ref], dlogits: Ref, image: Line) -> None:
    """Writes the gradient of an image's logits, patch by patch, from its assignment and the gradient of this."""
    patches = refs[0].shape[2]
    parts = [slice(first, min(first + _PART, patches)) for first in range(0, patches, _PART)]

    def products(part: slice) -> tuple[Array, Array]:
        shares, dshares = (ref[image, :, part].astype(jnp.float32) for ref in refs)
        return shares, shares * dshares

    total = sum(jnp.sum(products(part)[1], 1, keepdims=True) for part in parts)
    for part in parts:
        shares, weighted_slopes = products(part)
        dlogits[image, part] = (weighted_slopes - shares * total).T
    if patches < dlogits.shape[1]:
        dlogits[image, patches:] = jnp.zeros((dlogits.shape[1] - patches, dlogits.shape[2]))


def _load_patches(tiling: Tiling, by_patch: Ref, image: Line, row: Line, lines: Ref) -> None:
    """Copies a round's gradients, patch by patch, to lines that have columns of zeros after them."""
    (images, rows), width = tiling.round, tiling.width
    if width == tiling.columns:
        found = by_patch[pl.ds(image, images), pl.ds(row * width, rows * width)]
        lines[: images * rows] = found.reshape(images * rows, width, -1)
        return
    for i in range(images):
        for j in range(rows):
            lines[i * rows + j, :width] = by_patch[image + i, pl.ds((row + j) * width, width)]
