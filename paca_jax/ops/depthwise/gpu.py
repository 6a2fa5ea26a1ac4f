"""Depthwise convolution, bias, shortcut and GELU in one Triton kernel, and its gradient in two.

    s = conv(x) + b (+ x)           y = GELU(s)
    ds = dy * GELU'(s)              s is computed again: the gradient keeps x only
    dx = conv^T(ds) (+ ds)

A program treats a strip of rows of one image, some columns and some channels. It reads each row once per column of the window
and adds it to as many sums as the window has rows, one for each output row that sees it; the oldest sum is then complete. The
gradient of the window itself is cuDNN's, which is fast.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Float

from paca_jax.ops import gpu
from paca_jax.ops.nn.convolution import conv_by_xla
from paca_jax.ops.nn.gelu import gelu, gelu_and_slope
from paca_jax.ops.pallas.triton import ELEMENTS, PARAMS

_COLUMNS = 64

Epilogue = Callable[[Array, tuple[Array, ...]], Array]
Kept = tuple[Array, Array | None, Array, Array]  # of the forward pass: maps, their bias, window, bias


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How maps are cut into the parts that programs treat.

    Attributes:
        height: rows of a map.
        width: its columns.
        window: the side of the convolution's window.
        rows: rows of a strip.
        columns: columns of a part, a power of two.
        channels: channels of a part, a power of two.
    """

    height: int
    width: int
    window: int
    rows: int
    columns: int
    channels: int

    @property
    def strips(self) -> int:
        """The number of strips of a map."""
        return -(-self.height // self.rows)

    @property
    def parts(self) -> int:
        """The number of parts of a row."""
        return -(-self.width // self.columns)


def tiling(shape: tuple[int, ...], window: int) -> Tiling:
    """Returns the tiling for maps of a shape (B, H, W, C).

    The rows at a strip's edges are read twice, and strips must be many enough for the multiprocessors.
    """
    _, height, width, channels = shape
    strips = -(-height // (4 * (window + 1)))
    columns = min(_COLUMNS, pl.next_power_of_2(width))
    return Tiling(height, width, window, -(-height // strips), columns, min(channels & -channels, ELEMENTS // columns))


def refusal(x: Float[Array, "B H W C"]) -> str | None:
    """Returns why the kernels do not take these maps, as a clause, or None if they do."""
    return gpu.kernel_refusal(x)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def fused_depthwise_gelu(
    x: Float[Array, "B H W C"],
    input_bias: Float[Array, "C"] | None,
    kernel: Float[Array, "K K 1 C"],
    bias: Float[Array, "C"],
    shortcut: bool,
    interpret: bool,
) -> Float[Array, "B H W C"]:
    """Returns GELU(conv(x) + bias (+ x)) in the type of `x`; it has a reverse-mode derivative only.

    Args:
        x: maps.
        input_bias: of each channel, added to the maps first, which XLA does where they are computed; None for none.
        kernel: the window of each channel.
        bias: of each channel.
        shortcut: whether `x` itself is added.
        interpret: whether the kernels are computed by JAX operations, on any device.
    """
    return _forward(x, input_bias, kernel, bias, shortcut, interpret)[0]


def _forward(
    x: Array, input_bias: Array | None, kernel: Array, bias: Array, shortcut: bool, interpret: bool
) -> tuple[Array, Kept]:
    def activate(total: Array, centers: tuple[Array, ...]) -> Array:
        return gelu(total + centers[0] if shortcut else total)

    if input_bias is not None:
        x = x + input_bias
    (y,) = _convolve("depthwise_gelu", x, kernel, bias, (x,) if shortcut else (), activate, interpret)
    return y, (x, input_bias, kernel, bias)


def _backward(shortcut: bool, interpret: bool, kept: Kept, dy: Array) -> tuple[Array, Array | None, Array, Array]:
    x, input_bias, kernel, bias = kept

    def slope(total: Array, centers: tuple[Array, ...]) -> Array:
        return centers[0] * gelu_and_slope(total + centers[1] if shortcut else total)[1]

    def add(total: Array, centers: tuple[Array, ...]) -> Array:
        return total + centers[0] if shortcut else total

    centers = (dy, x) if shortcut else (dy,)
    ds, totals = _convolve("depthwise_gelu_slope", x, kernel, bias, centers, slope, interpret, with_totals=True)
    dx, *totals_of_dx = _convolve(
        "depthwise_transposed", ds, kernel, None, (ds,) if shortcut else (), add, interpret, with_totals=input_bias is not None
    )
    dinput = None if input_bias is None else jnp.sum(totals_of_dx[0], 0).astype(input_bias.dtype)
    (dkernel,) = jax.linear_transpose(lambda kernel: conv_by_xla(x, kernel), kernel.astype(x.dtype))(ds)
    # cuDNN's layout of the window ends here: else the update of the parameter takes it and copies three results to another.
    dkernel = jax.lax.optimization_barrier(dkernel.reshape(-1)).reshape(kernel.shape)
    return dx, dinput, dkernel.astype(kernel.dtype), jnp.sum(totals, 0).astype(bias.dtype)


fused_depthwise_gelu.defvjp(_forward, _backward)


def _convolve(
    name: str,
    x: Float[Array, "B H W C"],
    kernel: Float[Array, "K K 1 C"],
    bias: Float[Array, "C"] | None,
    centers: tuple[Float[Array, "B H W C"], ...],
    epilogue: Epilogue,
    interpret: bool,
    with_totals: bool = False,
) -> list[Array]:
    """Returns epilogue(conv(x) + bias, centers), computed in float32, and with totals a program's sums of it over patches.

    Without a bias the convolution is the transposed one.
    """
    images, _, _, channels = x.shape
    cut = tiling(x.shape, kernel.shape[0])
    weights = [kernel.reshape(-1, channels), *([] if bias is None else [bias])]
    flat = [array.reshape(-1, channels) for array in (x, *centers)]
    places = cut.strips * cut.parts
    shapes = [jax.ShapeDtypeStruct(flat[0].shape, x.dtype), jax.ShapeDtypeStruct((images * places, channels), jnp.float32)]
    y, *totals = pl.pallas_call(
        partial(_body, cut=cut, epilogue=epilogue, num_centers=len(centers), transposed=bias is None, interpret=interpret),
        grid=(images, places, channels // cut.channels),
        out_shape=shapes if with_totals else shapes[:1],
        compiler_params=PARAMS,
        name=f"{name}_{cut.window}x{cut.window}",
        interpret=interpret,
    )(*weights, *flat)
    return [y.reshape(x.shape), *totals]


def _body(
    kernel: Any, *refs: Any, cut: Tiling, epilogue: Epilogue, num_centers: int, transposed: bool, interpret: bool
) -> None:
    """Treats one strip, part and group of channels; maps are (B H W, C), the window is (K K, C)."""
    bias, (x, *rest) = (None, refs) if transposed else (refs[0], refs[1:])
    centers, (y, *totals) = rest[:num_centers], rest[num_centers:]
    image, place, group = (pl.program_id(axis) for axis in range(3))
    top = place // cut.parts * cut.rows
    columns = place % cut.parts * cut.columns + jnp.arange(cut.columns)
    channels = (group * cut.channels + jnp.arange(cut.channels))[None, :]
    side, half = cut.window, cut.window // 2
    offset = 0 if bias is None else plgpu.load(bias.at[channels]).astype(jnp.float32)

    def weight(i: int, j: int) -> Array:
        place = i * side + j
        return plgpu.load(kernel.at[side**2 - 1 - place if transposed else place, channels]).astype(jnp.float32)

    def read(maps: Any, row: Array, shift: int) -> Array:
        seen = columns + shift
        inside = (seen >= 0) & (seen < cut.width) & (row >= 0) & (row < cut.height)
        patch = (image * cut.height + row) * cut.width + seen
        return plgpu.load(maps.at[patch[:, None], channels], mask=inside[:, None], other=0).astype(jnp.float32)

    def add_row(step: Array, carry: tuple[tuple[Array, ...], tuple[Array, ...]]) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        sums, total = carry
        row = top + step - half
        for j in range(side):
            seen = read(x, row, j - half)
            weights = [weight(side - 1 - i, j) for i in range(side)]
            sums = tuple(_add_product(*operands, interpret) for operands in zip(sums, weights, (seen,) * side, strict=True))
        done = row - half
        found = epilogue(sums[0] + offset, tuple(read(center, done, 0) for center in centers))
        patch = (image * cut.height + done) * cut.width + columns
        kept = ((columns < cut.width) & (done >= top) & (done < cut.height))[:, None]
        plgpu.store(y.at[patch[:, None], channels], found.astype(y.dtype), mask=kept)
        return (*sums[1:], jnp.zeros_like(sums[0])), tuple(so_far + jnp.where(kept, found, 0) for so_far in total)

    nothing = jnp.zeros((cut.columns, cut.channels), jnp.float32)
    _, found = jax.lax.fori_loop(0, cut.rows + side - 1, add_row, ((nothing,) * side, (nothing,) * len(totals)))
    program = image * cut.strips * cut.parts + place
    for ref, total in zip(totals, found, strict=True):
        plgpu.store(ref.at[program, channels[0]], jnp.sum(total, axis=0))


def _add_product(total: Array, weight: Array, seen: Array, interpret: bool) -> Array:
    """Returns total + weight * seen, by one instruction, which Triton does not make of two operations of JAX."""
    if interpret:
        return total + weight * seen
    operands = (jnp.broadcast_to(weight, seen.shape), seen, total)
    (found,) = plgpu.elementwise_inline_asm(
        "fma.rn.f32 $0, $1, $2, $3;",
        args=operands,
        constraints="=f,f,f,f",
        pack=1,
        result_shape_dtypes=[jax.ShapeDtypeStruct(seen.shape, seen.dtype)],
    )
    return found
