"""The forward kernel of convolution clustering."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from paca_jax.ops.clustering.tpu_steps import (
    Index,
    assignment_block,
    clustering_cost,
    filtered_scratch,
    for_rounds,
    logit_scratch,
    map_blocks,
    round_rows,
    store_filtered,
    store_normal,
    tiled_map_scratch,
    weight_blocks,
)
from paca_jax.ops.clustering.tpu_tiling import ClusteringTiling, spilled_by_clustering
from paca_jax.ops.nn.gelu import gelu
from paca_jax.ops.pallas.blocks import Ref
from paca_jax.ops.pallas.kernel import Kernel, Step
from paca_jax.ops.pallas.registers import NN, dot


def forward_kernel(tiling: ClusteringTiling, project: tuple[int, ...], dtype: DTypeLike) -> Kernel:
    """Returns the kernel for a last dense kernel of this shape: channels by clusters.

    It takes all rows of all images, once for each of their blocks, and the arrays of `weight_blocks`. It returns the
    assignment of each image's patches (B, M, N) if steps see whole images, else the logits of all rows (N, W, M), in the type
    of the rows.
    """
    channels, clusters = project
    patches = map_blocks(tiling, channels, dtype, tiling.halo)
    scratch = [tiled_map_scratch(tiling, tiling.reach, channels), filtered_scratch(tiling, 0, channels)]
    if tiling.chunks == 1:
        found = assignment_block(tiling, clusters, dtype)
        scratch.append(logit_scratch(tiling, clusters))
    else:
        found = map_blocks(tiling, clusters, dtype, tiling.halo)[0]
    return Kernel(
        name="conv_clustering",
        body=partial(_step, tiling=tiling),
        grid=tiling.grid,
        operands=[*patches, *weight_blocks(tiling, channels, clusters, dtype)],
        results=[found],
        cost=clustering_cost(tiling, channels, clusters, jnp.dtype(dtype).itemsize, forwards=1),
        scratch=scratch,
        spilled=spilled_by_clustering(tiling, channels, clusters),
    )


def _step(step: Step, *refs: Ref, tiling: ClusteringTiling) -> None:
    xs, refs = refs[: tiling.blocks], refs[tiling.blocks :]
    norm, vectors, pointwise, project, y, maps, filtered, *logits = refs
    store_normal(tiling, xs, norm, maps, tiling.reach, step.part)
    store_filtered(tiling, maps, tiling.reach, vectors, filtered, 0)
    images, rows = tiling.round

    def mix(image: Index, row: Index) -> None:
        active = gelu(filtered[pl.ds(image, images), pl.ds(row, rows)].reshape(-1, filtered.shape[-1]))
        mixed = gelu(dot(active.astype(y.dtype), pointwise[...], NN) + vectors[-1:])
        found = dot(mixed.astype(y.dtype), project[...], NN).reshape(images, rows, tiling.columns, -1)[:, :, : tiling.width]
        if tiling.chunks == 1:
            _store_logits(tiling, logits[0], image, row, found)
        else:
            y[round_rows(tiling, image, row)] = found[0].astype(y.dtype)

    for_rounds(tiling, mix)
    if tiling.chunks == 1:
        jax.lax.fori_loop(0, tiling.images, lambda image, _: _assign(logits[0], y, image), None)


def _store_logits(tiling: ClusteringTiling, logits: Ref, image: Index, row: Index, found: Float[Array, "I R W M"]) -> None:
    """Stores logits patch by patch, without the columns that pad rows."""
    images, rows, width, clusters = found.shape
    if width == tiling.columns:
        logits[pl.ds(image, images), pl.ds(row * width, rows * width)] = found.reshape(images, rows * width, clusters)
        return
    for i in range(images):
        for j in range(rows):
            logits[image + i, pl.ds((row + j) * width, width)] = found[i, j]


def _assign(logits: Ref, y: Ref, image: Index) -> None:
    """Writes the assignment of an image's patches; each cluster's sums to one."""
    found = logits[image, : y.shape[2]]
    powers = jnp.exp(found - jnp.max(found, 0, keepdims=True))
    y[image] = (powers * (1 / jnp.sum(powers, 0, keepdims=True))).T.astype(y.dtype)
