"""The forward kernel of a depthwise MLP."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental.pallas import tpu as pltpu
from jax.typing import DTypeLike
from jaxtyping import Array

from paca_jax.ops.mlp.tpu_steps import (
    BIAS1,
    BIAS2,
    TAPS,
    VECTORS,
    add_branch,
    load_neighbors,
    load_patches,
    mlp_cost,
    packing_scratch,
    patch_blocks,
    patch_scratch,
    store_hidden,
    times_drop_path_scale,
    weighted_neighbors,
)
from paca_jax.ops.mlp.tpu_tiling import MlpTiling, spilled_by_mlp
from paca_jax.ops.nn.gelu import gelu
from paca_jax.ops.norm.reference import normalize
from paca_jax.ops.pallas.blocks import Ref, image_scalars, whole
from paca_jax.ops.pallas.kernel import Kernel, Step
from paca_jax.ops.pallas.registers import LANES, NN, dot
from paca_jax.ops.pallas.rows import clear_edges, map_scratch

EDGE = 1  # rows of hidden maps above and below a step's own


def forward_kernel(tiling: MlpTiling, channels: int, tiles: int, dtype: DTypeLike) -> Kernel:
    """Returns the kernel for so many channels and tiles of hidden channels.

    It takes the patches, once for each of their blocks, the drop-path scales, norm (2, C), first kernel (T, C, L), vectors
    (T, V, L), second kernel (T, L, C) and last bias (1, C), and returns patches plus their MLP.
    """
    patches = patch_blocks(tiling, channels, dtype)
    weights = (
        ((2, channels), jnp.float32),
        ((tiles, channels, LANES), dtype),
        ((tiles, VECTORS, LANES), jnp.float32),
        ((tiles, LANES, channels), dtype),
        ((1, channels), jnp.float32),
    )
    return Kernel(
        name="depthwise_mlp",
        body=partial(_step, tiling=tiling, tiles=tiles),
        grid=tiling.grid,
        operands=[*patches, image_scalars(tiling.batch), *(whole(*weight) for weight in weights)],
        results=patches[:1],
        cost=mlp_cost(tiling, channels, tiles * LANES, patches[0].array.dtype.itemsize, forwards=1),
        scratch=[
            patch_scratch(tiling, channels, dtype),
            *packing_scratch(tiling, channels),
            map_scratch(tiling, EDGE),
            pltpu.VMEM((tiling.step_patches, LANES), jnp.float32),
            pltpu.VMEM((tiling.step_patches, channels), jnp.float32),
        ],
        spilled=spilled_by_mlp(tiling, channels, dtype),
    )


def _step(step: Step, *refs: Ref, tiling: MlpTiling, tiles: int) -> None:
    xs, refs = refs[: tiling.blocks], refs[tiling.blocks :]
    (drop_path_scale, norm, kernel1, vectors, kernel2, bias2, y), scratch = refs[:7], refs[7:]
    patches, image, rows, hidden, active, total = scratch
    packing = (image, rows)
    load_patches(tiling, xs, patches, packing)
    patches[...] = normalize(patches[...], norm[...])
    clear_edges(tiling, hidden, EDGE, row_by_row=False)
    total[...] = jnp.broadcast_to(bias2[...], total.shape)

    def add(tile: Array, carry: None) -> None:
        vector = vectors[tile]
        vector_rows = [vector[i : i + 1] for i in range(vector.shape[0])]
        store_hidden(tiling, hidden, EDGE, dot(patches[...], kernel1[tile], NN) + vector_rows[BIAS1], step.part)
        first = 0
        for strip in tiling.strips():
            filtered = weighted_neighbors(load_neighbors(hidden, EDGE, strip), vector_rows[:TAPS]) + vector_rows[BIAS2]
            active[first : first + strip.patches] = gelu(filtered)
            first += strip.patches
        total[...] += dot(active[...].astype(patches.dtype), kernel2[tile], NN)

    jax.lax.fori_loop(0, tiles, add, None)
    add_branch(tiling, times_drop_path_scale(tiling, total[...], drop_path_scale, step), xs[0], y, packing)
