"""Ending what XLA fuses on a CPU."""

import jax
from jax.experimental.xla_metadata import set_xla_metadata
from jaxtyping import Array, Float

from paca_jax.ops.implementation import Implementation, always, choose


def materialize(x: Float[Array, "..."], implementation: Implementation | None = None) -> Float[Array, "..."]:
    """Returns `x`. `"xla_cpu"` computes it once, and its gradient once.

    XLA for CPUs fuses sums into every reader and ignores `optimization_barrier`: a block would recompute the branches of all
    blocks before it, and in the gradient those of all blocks after it.
    """
    if choose("residual sum", implementation, {"xla_cpu": always}) == "xla_cpu":
        return _computed_once(x)
    return x


@jax.custom_vjp
def _computed_once(x: Array) -> Array:
    # A call that is not inlined ends a fusion.
    with set_xla_metadata(inlineable="false"):
        return jax.jit(lambda x: x * 1)(x)


_computed_once.defvjp(lambda x: (_computed_once(x), None), lambda _, dy: (_computed_once(dy),))
