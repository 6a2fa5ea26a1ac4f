"""The MLP of a PaCa block and its residual in plain JAX.

H = norm(X) W_1
Y = X + GELU(depthwise3x3(H) + H) W_2           times the drop-path scale; the shortcut + H is optional
"""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array, Float

from paca_jax.ops.cast.api import cast_weights
from paca_jax.ops.depthwise.api import depthwise_gelu
from paca_jax.ops.implementation import Implementation
from paca_jax.ops.nn.dense import dense
from paca_jax.ops.nn.materialize import materialize
from paca_jax.ops.residual import Residual
from paca_jax.sharding import constrain

Drop = Callable[[Float[Array, "B H W D"]], Float[Array, "B H W D"]]


class MlpWeights(NamedTuple):
    """The parameters of a depthwise MLP: two dense layers, and the 3x3 convolution between them."""

    kernel1: Float[Array, "C D"]
    bias1: Float[Array, "D"]
    depthwise: Float[Array, "3 3 1 D"]
    depthwise_bias: Float[Array, "D"]
    kernel2: Float[Array, "D C"]
    bias2: Float[Array, "C"]


def residual_mlp(
    x: Float[Array, "B H W C"],
    weights: MlpWeights,
    shortcut: bool,
    residual: Residual,
    drop: Drop | None,
    implementation: Implementation | None,
) -> Float[Array, "B H W C"]:
    """Returns x + drop_path_scale * mlp(norm(x)); the arguments are those of `ops.residual_mlp`."""
    kernel1, bias1, depthwise, depthwise_bias, kernel2, bias2 = cast_weights(weights, x.dtype, implementation)
    patches = residual.before(x, implementation)
    hidden = constrain(dense(patches, kernel1, None, implementation), "batch", None, None, "mlp")
    active = depthwise_gelu(hidden, depthwise, depthwise_bias, shortcut, implementation, input_bias=bias1)
    if drop is not None:
        active = drop(active)
    return materialize(x + residual.scaled(dense(active, kernel2, bias2, implementation)), implementation)
