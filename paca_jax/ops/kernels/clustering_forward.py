"""The forward kernel of convolution clustering."""

from functools import partial
from typing import Any

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from paca_jax.ops.gelu import gelu
from paca_jax.ops.kernels.clustering_steps import (
    MEMORY,
    Line,
    cost,
    filtered_scratch,
    for_rounds,
    line_specs,
    map_scratch,
    own_lines,
    store_filtered,
    store_normal,
)
from paca_jax.ops.kernels.clustering_tiling import Tiling
from paca_jax.ops.kernels.common import NN, Ref, dot, whole


def forward(
    x: Float[Array, "N W C"],
    norm: Float[Array, "2 C"],
    vectors: Float[Array, "V C"],
    pointwise: Float[Array, "C C"],
    project: Float[Array, "C M"],
    *,
    tiling: Tiling,
    interpret: bool,
) -> Float[Array, "N W M"]:
    """Returns the logits of lines, all rows of all images, in the type of `x`."""
    channels, clusters = project.shape
    patches, logits = line_specs(tiling, channels), line_specs(tiling, clusters)
    weights = (norm, vectors, pointwise, project)
    call: Any = pl.pallas_call(
        partial(_step, tiling=tiling),
        grid=tiling.grid,
        in_specs=[*patches, *map(whole, weights)],
        out_specs=logits[0],
        out_shape=jax.ShapeDtypeStruct((*x.shape[:2], clusters), x.dtype),
        scratch_shapes=[map_scratch(tiling, tiling.reach, channels), filtered_scratch(tiling, 0, channels)],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel"), vmem_limit_bytes=MEMORY),
        cost_estimate=cost(tiling, channels, clusters, x.dtype.itemsize, forwards=1),
        name="conv_clustering",
        interpret=interpret,
    )
    return call(*(x for _ in patches), *weights)


def _step(*refs: Ref, tiling: Tiling) -> None:
    *xs, norm, vectors, pointwise, project, y, maps, filtered = refs
    store_normal(tiling, xs, norm, maps, tiling.reach, pl.program_id(1))
    store_filtered(tiling, maps, tiling.reach, vectors, filtered, 0)
    images, rows = tiling.round

    def mix(image: Line, row: Line) -> None:
        active = gelu(filtered[pl.ds(image, images), pl.ds(row, rows)].reshape(-1, filtered.shape[-1]))
        mixed = gelu(dot(active.astype(y.dtype), pointwise[...], NN) + vectors[-1:])
        logits = dot(mixed.astype(y.dtype), project[...], NN).reshape(images * rows, tiling.columns, -1)
        y[own_lines(tiling, image, row)] = logits[:, : tiling.width].astype(y.dtype)

    for_rounds(tiling, mix)
