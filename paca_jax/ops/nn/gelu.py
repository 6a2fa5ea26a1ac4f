"""Exact GELU and its derivative in few operations, which any device does well."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# log2 of the normal distribution function at -s, for s >= 0, in powers of s: the function itself is then within 4e-7. Past 5.3,
# where it is below 6e-8, the polynomial goes on falling.
_LOG2_TAIL = (-1.00000084, -1.15108314, -0.459276687, -0.0525380111, 0.00738719741, -0.000518857977)
_LOG2_DENSITY_AT_0 = -0.5 * math.log2(2 * math.pi)
_HALF_LOG2_E = 0.5 * math.log2(math.e)


@jax.custom_jvp
@jax.jit
def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns x times the normal distribution function at x, within 2e-6, in the type of `x`.

    It is computed in float32, on a CPU several times as fast as from the error function.
    """
    wide = x.astype(jnp.float32)
    return (wide * _distribution(wide)).astype(x.dtype)


@gelu.defjvp
def _gelu_jvp(
    primals: tuple[Float[Array, "..."]], tangents: tuple[Float[Array, "..."]]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    (x,), (tangent,) = primals, tangents
    activated, slope = gelu_and_slope(x.astype(jnp.float32))
    return activated.astype(x.dtype), slope.astype(x.dtype) * tangent


@jax.jit
def gelu_and_slope(x: Float[Array, "..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Returns GELU and its derivative, both within 2e-6; `x` is float32."""
    distribution = _distribution(x)
    density = jnp.exp2(_LOG2_DENSITY_AT_0 - _HALF_LOG2_E * x * x)
    return x * distribution, distribution + x * density


def _distribution(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns the normal distribution function."""
    s = jnp.abs(x)
    power = _LOG2_TAIL[-1] * s + _LOG2_TAIL[-2]
    for coefficient in _LOG2_TAIL[-3::-1]:
        power = power * s + coefficient
    tail = jnp.exp2(power)
    return jnp.where(x < 0, tail, 1.0 - tail)
