"""Residual branches of a transformer block."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.xla_metadata import set_xla_metadata
from jaxtyping import Array, Float

from paca_jax.ops.norm.api import NormWeights, layer_norm

Images = Float[Array, "B *S C"]


class Residual(NamedTuple):
    """What surrounds a layer in its branch: y = x + share * after(layer(norm(x))).

    Attributes:
        norm: parameters of the LayerNorm before the layer; None for none.
        share: each image's factor, in float32, such as stochastic depth's; None for 1. It has no gradient.
        after: what else follows the layer, in order.
    """

    norm: NormWeights | None = None
    share: Float[Array, "B"] | None = None
    after: tuple[Callable[[Images], Images], ...] = ()

    def before(self, x: Images) -> Images:
        """Returns what the layer takes."""
        return x if self.norm is None else layer_norm(x, self.norm)

    def add(self, x: Images, branch: Images) -> Images:
        """Returns the sum of `x` and what the layer gave."""
        for function in self.after:
            branch = function(branch)
        if self.share is not None:
            share = jax.lax.stop_gradient(self.share).reshape(-1, *(1,) * (x.ndim - 1))
            branch = (branch * share).astype(x.dtype)
        return _computed_once(x + branch)

    @property
    def is_plain(self) -> bool:
        """Whether nothing but a LayerNorm and shares surround the layer."""
        return self.norm is not None and not self.after

    def shares(self, x: Images) -> Float[Array, "B"]:
        """Returns each image's factor."""
        return jnp.ones(len(x), jnp.float32) if self.share is None else self.share


@jax.custom_vjp
def _computed_once(x: Images) -> Images:
    """Returns `x`, which on a CPU is computed once, and so is its gradient.

    XLA for CPUs fuses sums into whatever reads them, and passes over `optimization_barrier`: a block would add up the branches
    of all blocks before it, and in the gradient of all blocks after it. A call that is not inlined ends what is fused.
    """
    return jax.lax.platform_dependent(x, cpu=_called, default=lambda x: x)


def _called(x: Images) -> Images:
    with set_xla_metadata(inlineable="false"):
        return jax.jit(lambda x: x * 1)(x)


_computed_once.defvjp(lambda x: (_computed_once(x), None), lambda _, dy: (_computed_once(dy),))
