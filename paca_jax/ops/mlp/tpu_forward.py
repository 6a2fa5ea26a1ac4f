"""The forward kernel of a depthwise MLP."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from paca_jax.ops.mlp.tpu_steps import (
    BIAS1,
    BIAS2,
    MEMORY,
    clear_edges,
    cost,
    gather_patches,
    map_scratch,
    packing_scratch,
    patch_scratch,
    patch_specs,
    scatter_sum,
    store_maps,
    taps,
    times_share,
    weighted,
)
from paca_jax.ops.mlp.tpu_tiling import Tiling
from paca_jax.ops.nn.gelu import gelu
from paca_jax.ops.norm.reference import normalize
from paca_jax.ops.pallas.common import LANES, NN, SHARES, Ref, dot, whole

HALO = 1


def forward(
    x: Float[Array, "..."],
    share: Float[Array, "B"],
    norm: Float[Array, "2 C"],
    kernel1: Float[Array, "T C L"],
    vectors: Float[Array, "T V L"],
    kernel2: Float[Array, "T L C"],
    bias2: Float[Array, "1 C"],
    *,
    tiling: Tiling,
    interpret: bool,
) -> Float[Array, "..."]:
    """Returns `x` plus the MLP of its LayerNorm times the share, in the form and type of `x`: that of `patch_specs`."""
    tiles, channels, _ = kernel1.shape
    patches = patch_specs(tiling, channels)
    weights = (norm, kernel1, vectors, kernel2, bias2)
    return pl.pallas_call(
        partial(_step, tiling=tiling, tiles=tiles),
        grid=tiling.grid,
        in_specs=[*patches, SHARES, *map(whole, weights)],
        out_specs=patches[0],
        out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
        scratch_shapes=[
            patch_scratch(tiling, channels, x.dtype),
            *packing_scratch(tiling, channels),
            map_scratch(tiling, HALO),
            pltpu.VMEM((tiling.patches, LANES), jnp.float32),
            pltpu.VMEM((tiling.patches, channels), jnp.float32),
        ],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel"), vmem_limit_bytes=MEMORY),
        cost_estimate=cost(tiling, channels, tiles * LANES, x.dtype.itemsize, forwards=1),
        name="depthwise_mlp",
        interpret=interpret,
    )(*(x for _ in patches), share, *weights)


def _step(*refs: Ref, tiling: Tiling, tiles: int) -> None:
    *xs, share, norm, kernel1, vectors, kernel2, bias2, y, patches, image, lines, hidden, active, total = refs
    chunk = pl.program_id(1)
    packing = (image, lines)
    gather_patches(tiling, xs, patches, packing)
    patches[...] = normalize(patches[...], norm[...])
    clear_edges(tiling, hidden, HALO)
    total[...] = jnp.broadcast_to(bias2[...], total.shape)

    def add(tile: Array, carry: None) -> None:
        vector = vectors[tile]
        row = [vector[i : i + 1] for i in range(vector.shape[0])]
        store_maps(tiling, hidden, HALO, dot(patches[...], kernel1[tile], NN) + row[BIAS1], chunk)
        first = 0
        for strip in tiling.strips():
            filtered = weighted(taps(hidden, HALO, strip), row[:9]) + row[BIAS2]
            active[first : first + strip.patches] = gelu(filtered)
            first += strip.patches
        total[...] += dot(active[...].astype(patches.dtype), kernel2[tile], NN)

    jax.lax.fori_loop(0, tiles, add, None)
    scatter_sum(tiling, times_share(tiling, total[...], share), xs[0], y, packing)
