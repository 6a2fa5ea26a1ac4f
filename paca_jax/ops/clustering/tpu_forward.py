"""The forward kernel of convolution clustering."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from paca_jax.ops.clustering.tpu_steps import (
    MEMORY,
    Line,
    assignment_spec,
    cost,
    filtered_scratch,
    for_rounds,
    line_specs,
    map_scratch,
    own_lines,
    patch_scratch,
    store_filtered,
    store_normal,
)
from paca_jax.ops.clustering.tpu_tiling import Tiling
from paca_jax.ops.nn.gelu import gelu
from paca_jax.ops.pallas.common import NN, Ref, dot, whole


def forward(
    x: Float[Array, "N W C"],
    norm: Float[Array, "2 C"],
    vectors: Float[Array, "V C"],
    pointwise: Float[Array, "C C"],
    project: Float[Array, "C M"],
    *,
    tiling: Tiling,
    interpret: bool,
) -> Array:
    """Returns what lines, all rows of all images, are assigned, in the type of `x`.

    Returns:
        The assignment of each image's patches (B, M, N) if steps see whole images, else the lines' logits (N, W, M).
    """
    channels, clusters = project.shape
    patches = line_specs(tiling, channels, tiling.halo)
    scratch = [map_scratch(tiling, tiling.reach, channels), filtered_scratch(tiling, 0, channels)]
    if tiling.chunks == 1:
        spec, shape = assignment_spec(tiling, clusters), (tiling.batch, clusters, tiling.patches)
        scratch.append(patch_scratch(tiling, clusters))
    else:
        spec, shape = line_specs(tiling, clusters, tiling.halo)[0], (x.shape[0], x.shape[1], clusters)
    weights = (norm, vectors, pointwise, project)
    call: Any = pl.pallas_call(
        partial(_step, tiling=tiling),
        grid=tiling.grid,
        in_specs=[*patches, *map(whole, weights)],
        out_specs=spec,
        out_shape=jax.ShapeDtypeStruct(shape, x.dtype),
        scratch_shapes=scratch,
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel"), vmem_limit_bytes=MEMORY),
        cost_estimate=cost(tiling, channels, clusters, x.dtype.itemsize, forwards=1),
        name="conv_clustering",
        interpret=interpret,
    )
    return call(*(x for _ in patches), *weights)


def _step(*refs: Ref, tiling: Tiling) -> None:
    blocks = 1 if tiling.chunks == 1 else 3
    xs, (norm, vectors, pointwise, project, y, maps, filtered, *logits) = refs[:blocks], refs[blocks:]
    store_normal(tiling, xs, norm, maps, tiling.reach, pl.program_id(1))
    store_filtered(tiling, maps, tiling.reach, vectors, filtered, 0)
    images, rows = tiling.round

    def mix(image: Line, row: Line) -> None:
        active = gelu(filtered[pl.ds(image, images), pl.ds(row, rows)].reshape(-1, filtered.shape[-1]))
        mixed = gelu(dot(active.astype(y.dtype), pointwise[...], NN) + vectors[-1:])
        found = dot(mixed.astype(y.dtype), project[...], NN).reshape(images, rows, tiling.columns, -1)[:, :, : tiling.width]
        if tiling.chunks == 1:
            _store_patches(tiling, logits[0], image, row, found)
        else:
            y[own_lines(tiling, image, row)] = found[0].astype(y.dtype)

    for_rounds(tiling, mix)
    if tiling.chunks == 1:
        jax.lax.fori_loop(0, tiling.images, lambda image, _: _assign(logits[0], y, image), None)


def _store_patches(tiling: Tiling, logits: Ref, image: Line, row: Line, found: Float[Array, "I R W M"]) -> None:
    """Stores logits patch by patch, where columns of zeros no longer stand between rows."""
    images, rows, width, clusters = found.shape
    if width == tiling.columns:
        logits[pl.ds(image, images), pl.ds(row * width, rows * width)] = found.reshape(images, rows * width, clusters)
        return
    for i in range(images):
        for j in range(rows):
            logits[image + i, pl.ds((row + j) * width, width)] = found[i, j]


def _assign(logits: Ref, y: Ref, image: Line) -> None:
    """Writes the assignment of an image's patches, of which each cluster's sums to one."""
    found = logits[image, : y.shape[2]]
    powers = jnp.exp(found - jnp.max(found, 0, keepdims=True))
    y[image] = (powers * (1 / jnp.sum(powers, 0, keepdims=True))).T.astype(y.dtype)
