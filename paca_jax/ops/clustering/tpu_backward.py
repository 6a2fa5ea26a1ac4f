"""The backward kernel of convolution clustering, which recomputes the values between patches and logits."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from paca_jax.ops.clustering.tpu_steps import (
    BIASES,
    SINGLE_BUFFER,
    Index,
    assignment_block,
    clustering_cost,
    filtered_scratch,
    for_rounds,
    for_strips,
    load_windows,
    logit_scratch,
    map_blocks,
    round_rows,
    rows_inside,
    store_filtered,
    store_normal,
    store_rows,
    tiled_map_scratch,
    weight_blocks,
    weighted_windows,
)
from paca_jax.ops.clustering.tpu_tiling import ClusteringTiling, spilled_by_clustering
from paca_jax.ops.nn.gelu import gelu_and_slope
from paca_jax.ops.norm.reference import normalize_backward
from paca_jax.ops.pallas.blocks import Ref
from paca_jax.ops.pallas.kernel import Kernel, Step
from paca_jax.ops.pallas.registers import LANES, NN, NT, SUBLANES, TN, dot, sum_rows
from paca_jax.ops.pallas.rows import clear_edges

_PART_PATCHES = 7 * LANES  # whose assignments vector memory holds twice


def backward_kernel(tiling: ClusteringTiling, project: tuple[int, ...], dtype: DTypeLike) -> Kernel:
    """Returns the kernel for a last dense kernel of this shape: channels by clusters.

    It takes all rows of all images, once for each of their blocks; the assignment and its gradient (B, M, N) if steps see
    whole images, else the gradient of the logits of all rows (N, W, M), once for each of its blocks; and the arrays of
    `weight_blocks`. It returns the gradient of the rows, in their layout and type, and as sums in float32 those of the norm
    (2, C), of the vectors (V, 8, C), whose axis of 8 the caller sums over, and of both dense kernels.
    """
    channels, clusters = project
    patches = map_blocks(tiling, channels, dtype, tiling.halo)
    if tiling.chunks == 1:
        gradients = [assignment_block(tiling, clusters, dtype, pipeline_mode=SINGLE_BUFFER)]
        gradients.append(assignment_block(tiling, clusters, dtype))
        scratch = [logit_scratch(tiling, clusters)]
    else:
        gradients, scratch = map_blocks(tiling, clusters, dtype, max(tiling.reach, 1)), []
    weights = weight_blocks(tiling, channels, clusters, dtype)
    norm, vectors, *dense = (block.array.shape for block in weights)
    sums = (norm, (vectors[0], SUBLANES, channels), *dense)
    images, rows = tiling.round
    return Kernel(
        name="conv_clustering_backward",
        body=partial(_step, tiling=tiling),
        grid=tiling.grid,
        operands=[*patches, *gradients, *weights],
        results=patches[:1],
        sums=[jax.ShapeDtypeStruct(shape, jnp.float32) for shape in sums],
        cost=clustering_cost(tiling, channels, clusters, jnp.dtype(dtype).itemsize, forwards=3),
        scratch=[
            tiled_map_scratch(tiling, _edges(tiling)[0], channels),
            tiled_map_scratch(tiling, tiling.reach, channels),
            filtered_scratch(tiling, _edges(tiling)[1], channels),
            pltpu.VMEM((max(images * rows, tiling.reach), tiling.columns, clusters), jnp.float32),
            *scratch,
        ],
        spilled=spilled_by_clustering(tiling, channels, clusters),
    )


def _edges(tiling: ClusteringTiling) -> tuple[int, int]:
    """Returns how many rows above and below are normalized, and how many of these are filtered."""
    return (tiling.reach, 0) if tiling.chunks == 1 else (2 * tiling.reach, tiling.reach)


@jax.jit
def _tap_gradients(seen: Float[Array, "T S L"], slope: Float[Array, "R S L"]) -> list[Float[Array, "S L"]]:
    """Returns the sums over rows of the values of one column of windows times a gradient, for each row of the window."""
    products = [seen[down : down + len(slope)] * slope for down in range(len(seen) - len(slope) + 1)]
    return [sum(product[1:], product[0]) for product in products]


def _step(step: Step, *refs: Ref, tiling: ClusteringTiling) -> None:
    patches, gradients = tiling.blocks, 2 if tiling.chunks == 1 else tiling.blocks
    xs, dys, refs = refs[:patches], refs[patches : patches + gradients], refs[patches + gradients :]
    norm, vectors, pointwise, project, dx, dnorm, dvectors, dpointwise, dproject, *scratch = refs
    maps, slopes, filtered, dlogits, *by_patch = scratch
    edge, more = _edges(tiling)
    reach, (images, rows) = tiling.reach, tiling.round
    bias, chunk = len(vectors) - BIASES, step.part
    store_normal(tiling, xs, norm, maps, edge, chunk)
    store_filtered(tiling, maps, edge, vectors, filtered, more)
    clear_edges(tiling, slopes, reach, row_by_row=True)
    if tiling.width < tiling.columns:
        dlogits[:, -SUBLANES:] = jnp.zeros((dlogits.shape[0], SUBLANES, dlogits.shape[2]))
    if tiling.chunks == 1:
        jax.lax.fori_loop(0, tiling.images, lambda image, _: _assignment_backward(dys, by_patch[0], image), None)

    def mix(image: Index, row: Index, count: int, size: int, own: bool) -> None:
        rounded = dlogits[: count * size].reshape(-1, dlogits.shape[2]).astype(dx.dtype)
        here = filtered[pl.ds(image, count), pl.ds(row + more, size)]
        active, active_slope = gelu_and_slope(here.reshape(-1, here.shape[-1]))
        active = active.astype(dx.dtype)
        mixed, mixed_slope = gelu_and_slope(dot(active, pointwise[...], NN) + vectors[-1:])
        dmixed = dot(rounded, project[...], NT) * mixed_slope
        dfiltered = dot(dmixed.astype(dx.dtype), pointwise[...], NT) * active_slope
        store_rows(slopes, image, row + reach, dfiltered.reshape(here.shape))
        if own:
            dproject[...] += dot(mixed.astype(dx.dtype), rounded, TN)
            dpointwise[...] += dot(active, dmixed.astype(dx.dtype), TN)
            dvectors[bias] += sum_rows(dfiltered)
            dvectors[bias + 1] += sum_rows(dmixed)

    def mix_own(image: Index, row: Index) -> None:
        if tiling.chunks == 1:
            _load_gradients(tiling, by_patch[0], image, row, dlogits)
        else:
            dlogits[:rows, : tiling.width] = dys[0][round_rows(tiling, image, row)].astype(jnp.float32)
        mix(image, row, images, rows, own=True)

    def mix_more(dy: Float[Array, "R W M"], row: int) -> None:
        dlogits[:more, : tiling.width] = rows_inside(tiling, dy[None], chunk, row)[0].astype(jnp.float32)
        mix(0, row, 1, more, own=False)

    for_rounds(tiling, mix_own)
    if more:
        mix_more(dys[1][...], -more)
        mix_more(dys[2][...], tiling.rows)

    def convolve(image: Index, row: Index, column: Index, channels: slice) -> None:
        seen = load_windows(tiling, slopes, image, row, tiling.strip_rows, column, channels)
        dnormal = weighted_windows(seen, [vectors[bias - 1 - tap : bias - tap, channels] for tap in range(bias)])
        filtered[image, pl.ds(row + more, tiling.strip_rows), pl.ds(column, SUBLANES), channels] = dnormal
        slope = seen[reach][reach : reach + tiling.strip_rows]
        normals = load_windows(tiling, maps, image, row + edge - reach, tiling.strip_rows, column, channels)
        for right, normal in enumerate(normals):
            for down, part in enumerate(_tap_gradients(normal, slope)):
                dvectors[down * (2 * reach + 1) + right, :, channels] += part

    for_strips(tiling, tiling.rows, tiling.strip_rows, filtered.shape[-1], convolve)

    def normalize(image: Index, row: Index) -> None:
        dnormal = rows_inside(tiling, filtered[pl.ds(image, images), pl.ds(row + more, rows), : tiling.width], chunk, row)
        dnormal = dnormal.reshape(-1, *dnormal.shape[2:])
        own = round_rows(tiling, image, row)
        dpatches, dscale = jax.vmap(normalize_backward, (0, 0, None))(xs[0][own], dnormal, norm[...])
        dx[own] = dpatches.astype(dx.dtype)
        dnorm[:1] += jnp.sum(jnp.sum(dscale, 0), 0, keepdims=True)
        dnorm[1:] += jnp.sum(jnp.sum(dnormal, 0), 0, keepdims=True)

    for_rounds(tiling, normalize)


def _assignment_backward(refs: Sequence[Ref], dlogits: Ref, image: Index) -> None:
    """Writes the gradient of an image's logits, patch by patch, from its assignment and the assignment's gradient."""
    patches = refs[0].shape[2]
    parts = [slice(first, min(first + _PART_PATCHES, patches)) for first in range(0, patches, _PART_PATCHES)]

    def products(part: slice) -> tuple[Array, Array]:
        assignment, dassignment = (ref[image, :, part].astype(jnp.float32) for ref in refs)
        return assignment, assignment * dassignment

    total = sum(jnp.sum(products(part)[1], 1, keepdims=True) for part in parts)
    for part in parts:
        assignment, product = products(part)
        dlogits[image, part] = (product - assignment * total).T
    if patches < dlogits.shape[1]:
        dlogits[image, patches:] = jnp.zeros((dlogits.shape[1] - patches, dlogits.shape[2]))


def _load_gradients(tiling: ClusteringTiling, by_patch: Ref, image: Index, row: Index, dlogits: Ref) -> None:
    """Copies the gradients of a round's logits, which lie patch by patch, to padded rows."""
    (images, rows), width = tiling.round, tiling.width
    if width == tiling.columns:
        found = by_patch[pl.ds(image, images), pl.ds(row * width, rows * width)]
        dlogits[: images * rows] = found.reshape(images * rows, width, -1)
        return
    for i in range(images):
        for j in range(rows):
            dlogits[i * rows + j, :width] = by_patch[image + i, pl.ds((row + j) * width, width)]
