"""The gradient of LayerNorm in one Triton kernel: it reads patches and their gradient once and keeps no float32 map."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Float

from paca_jax.ops import gpu
from paca_jax.ops.norm.reference import LAYER_NORM_EPSILON, NormWeights, normalize, stack
from paca_jax.ops.pallas.triton import ELEMENTS, PARAMS

_PROGRAMS = 2048  # several for each multiprocessor; each adds up the gradients of the parameters over its rows
_MOST_CHANNELS = 2048


def refusal(x: Float[Array, "B N C"]) -> str | None:
    """Returns why the kernel does not take these patches, as a clause, or None if it does."""
    return gpu.kernel_refusal(x, _MOST_CHANNELS)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def layer_norm_with_kernel(x: Float[Array, "B N C"], weights: NormWeights, interpret: bool) -> Float[Array, "B N C"]:
    """Returns `reference.layer_norm`, with a reverse-mode derivative only.

    Args:
        x: patches.
        weights: the parameters.
        interpret: whether the kernel is computed by JAX operations, on any device.
    """
    return normalize(x, stack(weights))


def _forward(x: Array, weights: NormWeights, interpret: bool) -> tuple[Array, tuple[Array, NormWeights]]:
    return layer_norm_with_kernel(x, weights, interpret), (x, weights)


def _backward(interpret: bool, kept: tuple[Array, NormWeights], dy: Array) -> tuple[Array, NormWeights]:
    x, weights = kept
    channels = x.shape[-1]
    rows = x.size // channels
    width = pl.next_power_of_2(channels)
    height = max(1, ELEMENTS // width)
    steps = pl.cdiv(rows, _PROGRAMS * height)
    programs = pl.cdiv(rows, steps * height)
    dx, sums = pl.pallas_call(
        partial(_body, rows=rows, channels=channels, height=height, steps=steps),
        grid=(programs,),
        out_shape=(
            jax.ShapeDtypeStruct((rows, channels), x.dtype),
            jax.ShapeDtypeStruct((programs, 2, channels), jnp.float32),
        ),
        compiler_params=PARAMS,
        name="layer_norm_backward",
        interpret=interpret,
    )(weights.scale.astype(jnp.float32), x.reshape(rows, channels), dy.reshape(rows, channels))
    totals = jnp.sum(sums, 0)
    dweights = NormWeights(totals[0].astype(weights.scale.dtype), totals[1].astype(weights.bias.dtype))
    return dx.reshape(x.shape), dweights


layer_norm_with_kernel.defvjp(_forward, _backward)


def _body(scales: Any, x: Any, dy: Any, dx: Any, sums: Any, *, rows: int, channels: int, height: int, steps: int) -> None:
    """Treats `steps` times `height` rows; the channels are padded to a power of two with zeros, which the sums ignore."""
    program = pl.program_id(0)
    width = pl.next_power_of_2(channels)
    columns = jnp.arange(width)[None, :]
    real = columns < channels
    scale = plgpu.load(scales.at[columns], mask=real, other=0)

    def mean(values: Array) -> Array:
        return jnp.sum(values, axis=1, keepdims=True) * (1 / channels)

    def add_rows(step: Array, totals: tuple[Array, Array]) -> tuple[Array, Array]:
        places = ((program * steps + step) * height + jnp.arange(height))[:, None]
        kept = (places < rows) & real
        wide, gradient = (plgpu.load(maps.at[places, columns], mask=kept, other=0).astype(jnp.float32) for maps in (x, dy))
        centered = jnp.where(kept, wide - mean(wide), 0)
        deviation = jax.lax.rsqrt(mean(centered * centered) + LAYER_NORM_EPSILON)
        standard = centered * deviation
        dstandard = gradient * scale
        found = (dstandard - mean(dstandard) - standard * mean(dstandard * standard)) * deviation
        plgpu.store(dx.at[places, columns], found.astype(dx.dtype), mask=kept)
        return totals[0] + gradient * standard, totals[1] + gradient

    nothing = jnp.zeros((height, width), jnp.float32)
    totals = jax.lax.fori_loop(0, steps, add_rows, (nothing, nothing))
    for k, total in enumerate(totals):
        plgpu.store(sums.at[program, k, jnp.arange(width)], jnp.sum(total, axis=0), mask=jnp.arange(width) < channels)
