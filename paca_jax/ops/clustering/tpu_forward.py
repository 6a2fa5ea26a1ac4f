"""The forward kernel of convolution clustering."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from paca_jax.ops.clustering.tpu_steps import (
    Index,
    assignment_spec,
    clustering_cost,
    filtered_scratch,
    for_rounds,
    logit_scratch,
    map_specs,
    round_rows,
    store_filtered,
    store_normal,
    tiled_map_scratch,
)
from paca_jax.ops.clustering.tpu_tiling import ClusteringTiling
from paca_jax.ops.implementation import Interpreter
from paca_jax.ops.nn.gelu import gelu
from paca_jax.ops.pallas.limits import ROWS_VMEM_LIMIT
from paca_jax.ops.pallas.registers import NN, dot
from paca_jax.ops.pallas.specs import Ref, whole


def forward(
    x: Float[Array, "N W C"],
    norm: Float[Array, "2 C"],
    vectors: Float[Array, "V C"],
    pointwise: Float[Array, "C C"],
    project: Float[Array, "C M"],
    *,
    tiling: ClusteringTiling,
    interpret: Interpreter,
) -> Array:
    """Returns the assignment of patches or its logits, in the type of `x`; `x` has all rows of all images.

    Returns:
        The assignment of each image's patches (B, M, N) if steps see whole images, else the logits of all rows (N, W, M).
    """
    channels, clusters = project.shape
    patches = map_specs(tiling, channels, tiling.halo)
    scratch = [tiled_map_scratch(tiling, tiling.reach, channels), filtered_scratch(tiling, 0, channels)]
    if tiling.chunks == 1:
        spec, shape = assignment_spec(tiling, clusters), (tiling.batch, clusters, tiling.image_patches)
        scratch.append(logit_scratch(tiling, clusters))
    else:
        spec, shape = map_specs(tiling, clusters, tiling.halo)[0], (x.shape[0], x.shape[1], clusters)
    weights = (norm, vectors, pointwise, project)
    call: Any = pl.pallas_call(
        partial(_step, tiling=tiling),
        grid=tiling.grid,
        in_specs=[*patches, *map(whole, weights)],
        out_specs=spec,
        out_shape=jax.ShapeDtypeStruct(shape, x.dtype),
        scratch_shapes=scratch,
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel"), vmem_limit_bytes=ROWS_VMEM_LIMIT),
        cost_estimate=clustering_cost(tiling, channels, clusters, x.dtype.itemsize, forwards=1),
        name="conv_clustering",
        interpret=interpret,
    )
    return call(*(x for _ in patches), *weights)


def _step(*refs: Ref, tiling: ClusteringTiling) -> None:
    xs, refs = refs[: tiling.blocks], refs[tiling.blocks :]
    norm, vectors, pointwise, project, y, maps, filtered, *logits = refs
    store_normal(tiling, xs, norm, maps, tiling.reach, pl.program_id(1))
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
