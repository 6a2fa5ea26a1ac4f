"""Depthwise convolution, bias, shortcut and GELU in one Triton kernel, and its gradient in two.

    s = conv(x) + b (+ x)           y = GELU(s)
    ds = dy * GELU'(s)              s is computed again: the gradient keeps x only
    dx = conv^T(ds) (+ ds)

Instructions, not bytes, bound such a kernel that loads each value for each weight. Here a thread treats a few channels of
adjacent columns, and goes down the rows of a strip: it reads a row once, converts a weight once for all its columns, and adds
to as many sums as the window has rows, one for each output row that sees it; the oldest sum is then complete. The shortcut is
one more at the center of the window. The gradient of the window itself is cuDNN's, which is fast.
"""

import dataclasses
import itertools
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
from paca_jax.ops.nn.gelu import gelu_and_slope, normal_tail
from paca_jax.ops.pallas.triton import PARAMS, THREADS, arithmetic

_MOST_CHANNELS = 64  # of a program
_VALUES = 16  # of a row that a thread treats: channels times columns

Epilogue = Callable[..., Array]  # of the sums and, where it takes one, a gradient
Sums = tuple[tuple[Array, ...], ...]  # of the rows that see the last one read, by column
Kept = tuple[Array, Array | None, Array, Array]  # of the forward pass: maps, their bias, window, bias


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How maps are cut into places, which threads treat.

    Attributes:
        images: the number of maps.
        height: rows of a map.
        width: its columns.
        window: the side of the convolution's window.
        rows: rows of a place.
        columns: columns of a place, a power of two.
        channels: channels of a program, a power of two.
    """

    images: int
    height: int
    width: int
    window: int
    rows: int
    columns: int
    channels: int

    @property
    def strips(self) -> int:
        """The number of strips of a map."""
        return pl.cdiv(self.height, self.rows)

    @property
    def parts(self) -> int:
        """The number of parts of a row."""
        return pl.cdiv(self.width, self.columns)

    @property
    def places(self) -> int:
        """The number of places in all maps."""
        return self.images * self.strips * self.parts

    @property
    def lanes(self) -> int:
        """The values that a program treats at once, of each column of its places."""
        return THREADS * _VALUES // self.columns

    @property
    def at_once(self) -> int:
        """The places that a program treats."""
        return self.lanes // self.channels

    @property
    def programs(self) -> int:
        """The programs that treat all places, in some channels."""
        return pl.cdiv(self.places, self.at_once)


def tiling(shape: tuple[int, ...], window: int) -> Tiling:
    """Returns the tiling for maps of a shape (B, H, W, C).

    The rows at a strip's edges are read twice, and strips must be many enough for the multiprocessors. With a large window,
    many columns share each weight.
    """
    images, height, width, channels = shape
    strips = pl.cdiv(height, 4 * (window + 1))
    columns = 8 if window > 3 else 4
    return Tiling(images, height, width, window, pl.cdiv(height, strips), columns, min(channels & -channels, _MOST_CHANNELS))


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
        input_bias: of each channel, added to the maps first; None for none. The kernel adds it while it reads. For a
            gradient XLA adds it, where the maps are computed: cuDNN then takes the sum.
        kernel: the window of each channel.
        bias: of each channel.
        shortcut: whether `x` itself is added.
        interpret: whether the kernels are computed by JAX operations, on any device.
    """
    compute = arithmetic(interpret)

    def activate(total: Array) -> Array:
        size = jnp.abs(total)
        return compute.multiply_add(-size, normal_tail(size, compute), jnp.maximum(total, 0))

    (y,) = _convolve("depthwise_gelu", x, kernel, bias, shortcut, activate, interpret, input_bias=input_bias)
    return y


def _forward(
    x: Array, input_bias: Array | None, kernel: Array, bias: Array, shortcut: bool, interpret: bool
) -> tuple[Array, Kept]:
    if input_bias is not None:
        x = x + input_bias
    return fused_depthwise_gelu(x, None, kernel, bias, shortcut, interpret), (x, input_bias, kernel, bias)


def _backward(shortcut: bool, interpret: bool, kept: Kept, dy: Array) -> tuple[Array, Array | None, Array, Array]:
    x, input_bias, kernel, bias = kept
    compute = arithmetic(interpret)

    def slope(total: Array, gradient: Array) -> Array:
        return gradient * gelu_and_slope(total, compute)[1]

    def unchanged(total: Array) -> Array:
        return total

    ds, totals = _convolve("depthwise_gelu_slope", x, kernel, bias, shortcut, slope, interpret, dy, with_totals=True)
    dx, *totals_of_dx = _convolve(
        "depthwise_transposed", ds, kernel, None, shortcut, unchanged, interpret, with_totals=input_bias is not None
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
    shortcut: bool,
    epilogue: Epilogue,
    interpret: bool,
    gradient: Float[Array, "B H W C"] | None = None,
    with_totals: bool = False,
    input_bias: Float[Array, "C"] | None = None,
) -> list[Array]:
    """Returns epilogue(conv(x) + bias (+ x), gradient), computed in float32, and with totals its sums over each program's part.

    With an input bias x is x + input_bias. Without a bias the convolution is the transposed one.
    """
    channels = x.shape[-1]
    cut = tiling(x.shape, kernel.shape[0])
    weights = [kernel.reshape(-1, channels), *(array for array in (bias, input_bias) if array is not None)]
    flat = [array.reshape(-1, channels) for array in (x, *([] if gradient is None else [gradient]))]
    shapes = [jax.ShapeDtypeStruct(flat[0].shape, x.dtype), jax.ShapeDtypeStruct((cut.programs, channels), jnp.float32)]
    y, *totals = pl.pallas_call(
        partial(
            _body,
            cut=cut,
            epilogue=epilogue,
            transposed=bias is None,
            shortcut=shortcut,
            with_input_bias=input_bias is not None,
            with_gradient=gradient is not None,
            interpret=interpret,
        ),
        grid=(cut.programs, channels // cut.channels),
        out_shape=shapes if with_totals else shapes[:1],
        compiler_params=PARAMS,
        name=f"{name}_{cut.window}x{cut.window}",
        interpret=interpret,
    )(*weights, *flat)
    return [y.reshape(x.shape), *totals]


def _body(
    kernel: Any,
    *refs: Any,
    cut: Tiling,
    epilogue: Epilogue,
    transposed: bool,
    shortcut: bool,
    with_input_bias: bool,
    with_gradient: bool,
    interpret: bool,
) -> None:
    """Treats some places and channels; maps are (B H W, C), the window is (K K, C)."""
    given = iter(refs)
    bias = None if transposed else next(given)
    input_bias = next(given) if with_input_bias else None
    x = next(given)
    gradients = [next(given)] if with_gradient else []
    y, *totals = given
    program, first_channel = pl.program_id(0), pl.program_id(1) * cut.channels
    lane = jnp.arange(cut.lanes)
    channel = first_channel + jax.lax.rem(lane, cut.channels)
    place = program * cut.at_once + jax.lax.div(lane, cut.channels)
    strip, left = jax.lax.div(place, cut.parts), jax.lax.rem(place, cut.parts) * cut.columns
    image, top = jax.lax.div(strip, cut.strips), jax.lax.rem(strip, cut.strips) * cut.rows
    side, half = cut.window, cut.window // 2
    left = jnp.where(place < cut.places, left, cut.width + half)  # so that nothing past the last place is inside of a map
    multiply_add = arithmetic(interpret).multiply_add
    nothing = jnp.zeros(cut.lanes, jnp.float32)
    start = nothing if bias is None else plgpu.load(bias.at[channel]).astype(jnp.float32)
    shift = None if input_bias is None else plgpu.load(input_bias.at[channel])

    def weight(i: int, j: int) -> Array:
        place = i * side + j
        found = plgpu.load(kernel.at[side**2 - 1 - place if transposed else place, channel]).astype(jnp.float32)
        return found + 1 if shortcut and i == j == half else found

    def at(row: Array, column: int) -> tuple[Array, Array]:
        here = left + column
        inside = (here >= 0) & (here < cut.width) & (row >= 0) & (row < cut.height)
        return (image * cut.height + row) * cut.width + here, inside

    def read(maps: Any, row: Array, column: int, shift: Array | None = None) -> Array:
        patch, inside = at(row, column)
        outside = 0 if shift is None else -shift  # so that zeros surround the sum
        found = plgpu.load(maps.at[patch, channel], mask=inside, other=outside).astype(jnp.float32)
        return found if shift is None else found + shift.astype(jnp.float32)

    def add_row(step: Array, so_far: Sums) -> Sums:
        seen = [read(x, top + step - half, column, shift) for column in range(-half, cut.columns + half)]
        sums = list(so_far)
        for i, j in itertools.product(range(side), repeat=2):
            factor = weight(side - 1 - i, j)
            sums[i] = tuple(multiply_add(factor, seen[j + k], sums[i][k]) for k in range(cut.columns))
        return tuple(sums)

    def begin(step: Array, sums: Sums) -> Sums:
        return (*add_row(step, sums)[1:], (start,) * cut.columns)

    def go_on(step: Array, carry: tuple[Sums, tuple[Array, ...]]) -> tuple[Sums, tuple[Array, ...]]:
        sums, total = carry
        done, *others = add_row(step, sums)
        row = top + step - 2 * half
        for k in range(cut.columns):
            patch, inside = at(row, k)
            found = epilogue(done[k], *(read(gradient, row, k) for gradient in gradients))
            plgpu.store(y.at[patch, channel], found.astype(y.dtype), mask=inside)
            total = tuple(so_far + jnp.where(inside, found, 0) for so_far in total)
        return (*others, (start,) * cut.columns), total

    sums = jax.lax.fori_loop(0, 2 * half, begin, ((start,) * cut.columns,) * side)
    _, found = jax.lax.fori_loop(2 * half, cut.rows + 2 * half, go_on, (sums, (nothing,) * len(totals)))
    for ref, total in zip(totals, found, strict=True):
        by_place = total.reshape(cut.at_once, cut.channels)
        plgpu.store(ref.at[program, first_channel + jnp.arange(cut.channels)], jnp.sum(by_place, axis=0))
