"""The backward kernel of a depthwise MLP, which recomputes the hidden maps."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental.pallas import tpu as pltpu
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from paca_jax.ops.mlp.tpu_steps import (
    BIAS1,
    BIAS2,
    TAPS,
    VECTORS,
    add_branch,
    load_neighbors,
    load_patches,
    mlp_cost,
    own_patches,
    packing_scratch,
    patch_blocks,
    patch_scratch,
    store_hidden,
    times_drop_path_scale,
    weighted_neighbors,
)
from paca_jax.ops.mlp.tpu_tiling import MlpTiling, Strip, spilled_by_mlp
from paca_jax.ops.nn.gelu import gelu_and_slope
from paca_jax.ops.norm.reference import normalize, normalize_backward
from paca_jax.ops.pallas.blocks import Ref, image_scalars, whole
from paca_jax.ops.pallas.kernel import Kernel, Step
from paca_jax.ops.pallas.registers import LANES, NN, NT, SUBLANES, dot, sum_rows
from paca_jax.ops.pallas.rows import clear_edges, map_scratch

HIDDEN_EDGE, SLOPE_EDGE = 2, 1  # rows of maps above and below a step's own: of hidden channels, of the filtered maps' gradient


def backward_kernel(tiling: MlpTiling, channels: int, tiles: int, dtype: DTypeLike) -> Kernel:
    """Returns the kernel for so many channels and tiles of hidden channels.

    It takes the patches and then the gradient of the output, both once for each of their blocks, the drop-path scales, norm
    (2, C), first kernel (T, C, L), vectors (T, V, L) and the transposed second kernel (T, C, L). It returns the gradient of
    the patches, in their layout and type, and as sums in float32 those of the norm (2, 8, C), of both kernels, of the vectors
    (T, V, 8, L) and of the last bias (8, C). The caller sums over the axes of 8.
    """
    patches = patch_blocks(tiling, channels, dtype)
    kernel = (tiles, channels, LANES)
    weights = (((2, channels), jnp.float32), (kernel, dtype), ((tiles, VECTORS, LANES), jnp.float32), (kernel, dtype))
    sums = ((2, SUBLANES, channels), kernel, kernel, (tiles, VECTORS, SUBLANES, LANES), (SUBLANES, channels))
    maps = pltpu.VMEM((tiling.step_patches, LANES), jnp.float32)
    return Kernel(
        name="depthwise_mlp_backward",
        body=partial(_step, tiling=tiling, tiles=tiles),
        grid=tiling.grid,
        operands=[*patches, *patches, image_scalars(tiling.batch), *(whole(*weight) for weight in weights)],
        results=patches[:1],
        sums=[jax.ShapeDtypeStruct(shape, jnp.float32) for shape in sums],
        cost=mlp_cost(tiling, channels, tiles * LANES, patches[0].array.dtype.itemsize, forwards=2),
        scratch=[
            *(patch_scratch(tiling, channels, dtype) for _ in range(3)),
            *packing_scratch(tiling, channels),
            map_scratch(tiling, HIDDEN_EDGE),
            map_scratch(tiling, SLOPE_EDGE),
            maps,
            maps,
            pltpu.VMEM((tiling.step_patches, channels), jnp.float32),
        ],
        spilled=spilled_by_mlp(tiling, channels, dtype),
    )


@jax.jit
def _products(values: Sequence[Float[Array, "R L"]], weight: Float[Array, "R L"]) -> list[Float[Array, "8 L"]]:
    """Returns the sums over rows of values times a weight, and of the weight, each as eight partial sums."""
    return [sum_rows(value * weight) for value in values] + [sum_rows(weight)]


@jax.jit
def _added(sums: Sequence[Array], parts: Sequence[Array]) -> list[Array]:
    return [total + part for total, part in zip(sums, parts, strict=True)]


def _step(step: Step, *refs: Ref, tiling: MlpTiling, tiles: int) -> None:
    blocks = tiling.blocks
    xs, dys, refs = refs[:blocks], refs[blocks : 2 * blocks], refs[2 * blocks :]
    (drop_path_scale, norm, kernel1, vectors, transposed2), refs = refs[:5], refs[5:]
    (dx, dnorm, dkernel1, dtransposed2, dvectors, dbias2), refs = refs[:6], refs[6:]
    x, normal, dy, image, rows, hidden, slope, active, dhidden, total = refs
    chunk, packing = step.part, (image, rows)
    clear_edges(tiling, hidden, HIDDEN_EDGE, row_by_row=False)
    clear_edges(tiling, slope, SLOPE_EDGE, row_by_row=False)
    load_patches(tiling, xs, x, packing)
    normal[...] = normalize(x[...], norm[...])
    load_patches(tiling, dys, dy, packing)
    dy[...] = times_drop_path_scale(tiling, dy[...], drop_path_scale, step).astype(dy.dtype)
    own_dy = own_patches(tiling, dy)
    normal_by_channel, dy_by_channel = own_patches(tiling, normal).T, own_dy.T
    dbias2[...] += sum_rows(own_dy.astype(jnp.float32))
    total[...] = jnp.zeros_like(total)

    def add(tile: Array, carry: None) -> None:
        vector = vectors[tile]
        vector_rows = [vector[i : i + 1] for i in range(VECTORS)]
        store_hidden(tiling, hidden, HIDDEN_EDGE, dot(normal[...], kernel1[tile], NN) + vector_rows[BIAS1], chunk)
        sums = [jnp.zeros((SUBLANES, LANES))] * VECTORS

        dactive = dot(dy[...], transposed2[tile], NN)
        for strip, first in _strips(tiling):
            own = 0 <= first < tiling.step_patches
            neighbors = load_neighbors(hidden, HIDDEN_EDGE, strip)
            activated, derivative = gelu_and_slope(weighted_neighbors(neighbors, vector_rows[:TAPS]) + vector_rows[BIAS2])
            start = first + tiling.first_patch
            dfiltered = dactive[start : start + strip.patches] * derivative
            if own:
                active[first : first + strip.patches] = activated
                sums[:BIAS1] = _added(sums[:BIAS1], _products(neighbors, dfiltered))
            else:
                dfiltered = tiling.row_inside(dfiltered, chunk, strip.row)
            _store_strip(slope, SLOPE_EDGE, strip, dfiltered)
        dtransposed2[tile] += dot(dy_by_channel, active[...].astype(x.dtype), NN)

        for strip, first in _strips(tiling, halo=False):
            back = weighted_neighbors(load_neighbors(slope, SLOPE_EDGE, strip), vector_rows[TAPS - 1 :: -1])
            back = _strip_inside(tiling, back, chunk, strip)
            sums[BIAS1] += sum_rows(back)
            dhidden[first : first + strip.patches] = back
        rounded = dhidden[...].astype(x.dtype)
        dkernel1[tile] += dot(normal_by_channel, rounded, NN)
        total[...] += dot(rounded, kernel1[tile], NT)
        for index, part in enumerate(sums):
            dvectors[tile, index] += part

    jax.lax.fori_loop(0, tiles, add, None)
    dnormal = total[...]
    dpatches, dscale = normalize_backward(own_patches(tiling, x), dnormal, norm[...])
    dnorm[0] += sum_rows(dscale)
    dnorm[1] += sum_rows(dnormal)
    add_branch(tiling, dpatches, dys[0], dx, packing)


def _strips(tiling: MlpTiling, halo: bool = True) -> Sequence[tuple[Strip, int]]:
    """Returns the strips of a step and their first patches; if images are cut, `halo` adds a row above and a row below."""
    strips, first = [], 0
    for strip in tiling.strips():
        strips.append((strip, first))
        first += strip.patches
    if tiling.chunks == 1 or not halo:
        return strips
    above = [(s._replace(row=-1, rows=1), -tiling.columns + s.column) for s, _ in strips if s.row == 0]
    below = [(s._replace(row=tiling.rows, rows=1), tiling.step_patches + s.column) for s, _ in strips if s.row == 0]
    return [*above, *strips, *below]


def _store_strip(maps: Ref, edge: int, strip: Strip, value: Float[Array, "R L"]) -> None:
    images = slice(strip.image, strip.image + strip.images)
    rows = slice(strip.row + edge, strip.row + edge + strip.rows)
    columns = slice(SUBLANES + strip.column, SUBLANES + strip.column + strip.columns)
    maps[images, rows, columns] = value.reshape(strip.images, strip.rows, strip.columns, LANES)


def _strip_inside(tiling: MlpTiling, value: Float[Array, "R L"], chunk: Array, strip: Strip) -> Float[Array, "R L"]:
    """Returns a strip's values, with zeros in the columns right of the image and the rows below it."""
    if tiling.width < tiling.columns:
        maps = value.reshape(-1, strip.columns, LANES)
        column = strip.column + jax.lax.broadcasted_iota(jnp.int32, maps.shape, 1)
        value = jnp.where(column < tiling.width, maps, 0.0).reshape(value.shape)
    if tiling.chunks == 1:
        return value
    rows = value.reshape(strip.rows, strip.columns, LANES)
    return jnp.concatenate([tiling.row_inside(rows[i], chunk, strip.row + i) for i in range(strip.rows)])
