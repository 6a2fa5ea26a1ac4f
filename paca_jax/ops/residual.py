"""The residual branch around a layer of a transformer block."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from paca_jax.ops.implementation import Implementation
from paca_jax.ops.norm.api import NormWeights, layer_norm

Images = Float[Array, "B *S C"]


class Residual(NamedTuple):
    """The branch around a layer: y = x + drop_path_scale * after(layer(norm(x))).

    Attributes:
        norm: parameters of the LayerNorm before the layer; None for none.
        drop_path_scale: a factor for each image, in float32, without a gradient (stochastic depth); None for 1.
        after: functions that follow the layer, in order.
    """

    norm: NormWeights | None = None
    drop_path_scale: Float[Array, "B"] | None = None
    after: tuple[Callable[[Images], Images], ...] = ()

    def before(self, x: Images, implementation: Implementation | None = None) -> Images:
        """Returns the layer's input: norm(x)."""
        return x if self.norm is None else layer_norm(x, self.norm, implementation)

    def scaled(self, y: Images) -> Images:
        """Returns what is added to `x`: drop_path_scale * after(y)."""
        dtype = y.dtype
        for function in self.after:
            y = function(y)
        if self.drop_path_scale is None:
            return y
        scale = jax.lax.stop_gradient(self.drop_path_scale).reshape(-1, *(1,) * (y.ndim - 1))
        return (y * scale).astype(dtype)

    def scales(self, x: Images) -> Float[Array, "B"]:
        """Returns the factor of each image."""
        return jnp.ones(x.shape[0], jnp.float32) if self.drop_path_scale is None else self.drop_path_scale

    def refusal(self) -> str | None:
        """Returns why kernels that fuse a whole branch do not take this one, as a clause, or None if they do."""
        if self.norm is None:
            return "no LayerNorm precedes the layer"
        return "another layer follows before the residual sum" if self.after else None
