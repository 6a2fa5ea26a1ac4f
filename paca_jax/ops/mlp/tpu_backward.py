"""The backward kernel of a depthwise MLP, which recomputes the hidden maps."""

from collections.abc import Sequence
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
    VECTORS,
    add_branch,
    load_neighbors,
    load_patches,
    mlp_cost,
    own_patches,
    packing_scratch,
    patch_scratch,
    patch_specs,
    store_hidden,
    times_drop_path_scale,
    weighted_neighbors,
)
from paca_jax.ops.mlp.tpu_tiling import MlpTiling, Strip
from paca_jax.ops.nn.gelu import gelu_and_slope
from paca_jax.ops.norm.reference import normalize, normalize_backward
from paca_jax.ops.pallas.limits import ROWS_VMEM_LIMIT
from paca_jax.ops.pallas.registers import LANES, NN, NT, SUBLANES, dot, sum_rows
from paca_jax.ops.pallas.rows import clear_edges, map_scratch
from paca_jax.ops.pallas.specs import IMAGE_SCALARS, Ref, whole

HIDDEN_EDGE, SLOPE_EDGE = 2, 1  # rows of maps above and below a step's own: of hidden channels, of the filtered maps' gradient


def backward(
    x: Float[Array, "..."],
    dy: Float[Array, "..."],
    drop_path_scale: Float[Array, "B"],
    norm: Float[Array, "2 C"],
    kernel1: Float[Array, "T C L"],
    vectors: Float[Array, "T V L"],
    transposed2: Float[Array, "T C L"],
    *,
    tiling: MlpTiling,
    interpret: Interpreter,
) -> tuple[Array, Array, Array, Array, Array, Array]:
    """Returns the gradients. All but the first are sums over patches, in float32.

    Returns:
        The gradients of `x`, in its layout and type; of `norm` (2, 8, C); of `kernel1` (T, C, L); of `transposed2` (T, C, L);
        of `vectors` (T, V, 8, L) and of the last bias (8, C). The caller sums over the axes of 8.
    """
    tiles, channels, _ = kernel1.shape
    patches = patch_specs(tiling, channels)
    weights = (norm, kernel1, vectors, transposed2)
    sums = [
        jax.ShapeDtypeStruct(shape, jnp.float32)
        for shape in (
            (2, SUBLANES, channels),
            kernel1.shape,
            transposed2.shape,
            (tiles, VECTORS, SUBLANES, LANES),
            (SUBLANES, channels),
        )
    ]
    maps = pltpu.VMEM((tiling.step_patches, LANES), jnp.float32)
    return pl.pallas_call(
        partial(_step, tiling=tiling, tiles=tiles),
        grid=tiling.grid,
        in_specs=[*patches, *patches, IMAGE_SCALARS, *map(whole, weights)],
        out_specs=[patches[0], *map(whole, sums)],
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype), *sums],
        scratch_shapes=[
            *(patch_scratch(tiling, channels, x.dtype) for _ in range(3)),
            *packing_scratch(tiling, channels),
            map_scratch(tiling, HIDDEN_EDGE),
            map_scratch(tiling, SLOPE_EDGE),
            maps,
            maps,
            pltpu.VMEM((tiling.step_patches, channels), jnp.float32),
        ],
        # In order, because sums stay in place from step to step.
        compiler_params=pltpu.CompilerParams(dimension_semantics=("arbitrary", "arbitrary"), vmem_limit_bytes=ROWS_VMEM_LIMIT),
        cost_estimate=mlp_cost(tiling, channels, tiles * LANES, x.dtype.itemsize, forwards=2),
        name="depthwise_mlp_backward",
        interpret=interpret,
    )(*(x for _ in patches), *(dy for _ in patches), drop_path_scale, *weights)


@jax.jit
def _products(values: Sequence[Float[Array, "R L"]], weight: Float[Array, "R L"]) -> list[Float[Array, "8 L"]]:
    """Returns the sums over rows of values times a weight, and of the weight, each as eight partial sums."""
    return [sum_rows(value * weight) for value in values] + [sum_rows(weight)]


@jax.jit
def _added(sums: Sequence[Array], parts: Sequence[Array]) -> list[Array]:
    return [total + part for total, part in zip(sums, parts, strict=True)]


def _step(*refs: Ref, tiling: MlpTiling, tiles: int) -> None:
    blocks = tiling.blocks
    xs, dys, refs = refs[:blocks], refs[blocks : 2 * blocks], refs[2 * blocks :]
    (drop_path_scale, norm, kernel1, vectors, transposed2), refs = refs[:5], refs[5:]
    (dx, dnorm, dkernel1, dtransposed2, dvectors, dbias2), refs = refs[:6], refs[6:]
    x, normal, dy, image, rows, hidden, slope, active, dhidden, total = refs
    chunk, packing = pl.program_id(1), (image, rows)

    @pl.when((pl.program_id(0) == 0) & (chunk == 0))
    def _() -> None:
        for ref in (dnorm, dkernel1, dtransposed2, dvectors, dbias2):
            ref[...] = jnp.zeros_like(ref)

    clear_edges(tiling, hidden, HIDDEN_EDGE, row_by_row=False)
    clear_edges(tiling, slope, SLOPE_EDGE, row_by_row=False)
    load_patches(tiling, xs, x, packing)
    normal[...] = normalize(x[...], norm[...])
    load_patches(tiling, dys, dy, packing)
    dy[...] = times_drop_path_scale(tiling, dy[...], drop_path_scale).astype(dy.dtype)
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
