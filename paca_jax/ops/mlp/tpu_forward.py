"""The forward kernel of a depthwise MLP."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from paca_jax.ops.implementation import Interpreter
from paca_jax.ops.mlp.tpu_steps import (
    BIAS1,
    BIAS2,
    TAPS,
    add_branch,
    load_neighbors,
    load_patches,
    mlp_cost,
    packing_scratch,
    patch_scratch,
    patch_specs,
    store_hidden,
    times_drop_path_scale,
    weighted_neighbors,
)
from paca_jax.ops.mlp.tpu_tiling import MlpTiling
from paca_jax.ops.nn.gelu import gelu
from paca_jax.ops.norm.reference import normalize
from paca_jax.ops.pallas.limits import ROWS_VMEM_LIMIT
from paca_jax.ops.pallas.registers import LANES, NN, dot
from paca_jax.ops.pallas.rows import clear_edges, map_scratch
from paca_jax.ops.pallas.specs import IMAGE_SCALARS, Ref, whole

EDGE = 1  # rows of hidden maps above and below a step's own


def forward(
    x: Float[Array, "..."],
    drop_path_scale: Float[Array, "B"],
    norm: Float[Array, "2 C"],
    kernel1: Float[Array, "T C L"],
    vectors: Float[Array, "T V L"],
    kernel2: Float[Array, "T L C"],
    bias2: Float[Array, "1 C"],
    *,
    tiling: MlpTiling,
    interpret: Interpreter,
) -> Float[Array, "..."]:
    """Returns `x` plus the MLP of its LayerNorm times the drop-path scale. The layout is that of `patch_specs`."""
    tiles, channels, _ = kernel1.shape
    patches = patch_specs(tiling, channels)
    weights = (norm, kernel1, vectors, kernel2, bias2)
    return pl.pallas_call(
        partial(_step, tiling=tiling, tiles=tiles),
        grid=tiling.grid,
        in_specs=[*patches, IMAGE_SCALARS, *map(whole, weights)],
        out_specs=patches[0],
        out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
        scratch_shapes=[
            patch_scratch(tiling, channels, x.dtype),
            *packing_scratch(tiling, channels),
            map_scratch(tiling, EDGE),
            pltpu.VMEM((tiling.step_patches, LANES), jnp.float32),
            pltpu.VMEM((tiling.step_patches, channels), jnp.float32),
        ],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel"), vmem_limit_bytes=ROWS_VMEM_LIMIT),
        cost_estimate=mlp_cost(tiling, channels, tiles * LANES, x.dtype.itemsize, forwards=1),
        name="depthwise_mlp",
        interpret=interpret,
    )(*(x for _ in patches), drop_path_scale, *weights)


def _step(*refs: Ref, tiling: MlpTiling, tiles: int) -> None:
    xs, refs = refs[: tiling.blocks], refs[tiling.blocks :]
    (drop_path_scale, norm, kernel1, vectors, kernel2, bias2, y), scratch = refs[:7], refs[7:]
    patches, image, rows, hidden, active, total = scratch
    chunk, packing = pl.program_id(1), (image, rows)
    load_patches(tiling, xs, patches, packing)
    patches[...] = normalize(patches[...], norm[...])
    clear_edges(tiling, hidden, EDGE, row_by_row=False)
    total[...] = jnp.broadcast_to(bias2[...], total.shape)

    def add(tile: Array, carry: None) -> None:
        vector = vectors[tile]
        vector_rows = [vector[i : i + 1] for i in range(vector.shape[0])]
        store_hidden(tiling, hidden, EDGE, dot(patches[...], kernel1[tile], NN) + vector_rows[BIAS1], chunk)
        first = 0
        for strip in tiling.strips():
            filtered = weighted_neighbors(load_neighbors(hidden, EDGE, strip), vector_rows[:TAPS]) + vector_rows[BIAS2]
            active[first : first + strip.patches] = gelu(filtered)
            first += strip.patches
        total[...] += dot(active[...].astype(patches.dtype), kernel2[tile], NN)

    jax.lax.fori_loop(0, tiles, add, None)
    add_branch(tiling, times_drop_path_scale(tiling, total[...], drop_path_scale), xs[0], y, packing)
