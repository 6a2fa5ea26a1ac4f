"""Residual branches of a transformer block."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from paca_jax.ops.norm import NormWeights, layer_norm

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
        return x + branch

    @property
    def is_plain(self) -> bool:
        """Whether nothing but a LayerNorm and shares surround the layer."""
        return self.norm is not None and not self.after

    def shares(self, x: Images) -> Float[Array, "B"]:
        """Returns each image's factor."""
        return jnp.ones(len(x), jnp.float32) if self.share is None else self.share
