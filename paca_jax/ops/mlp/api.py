"""The MLP of a PaCa block and its residual as one function: dense, depthwise 3x3 convolution, exact GELU, dense."""

from collections.abc import Callable
from functools import partial

from jaxtyping import Array, Float

from paca_jax.ops.mlp.tpu import MlpWeights, fits, fused_mlp
from paca_jax.ops.nn.dense import channels_dot
from paca_jax.ops.nn.depthwise import depthwise_conv
from paca_jax.ops.nn.gelu import gelu
from paca_jax.ops.residual import Residual
from paca_jax.sharding import by_images, by_platform, constrain, model_shards, target_platform

Drop = Callable[[Float[Array, "B H W D"]], Float[Array, "B H W D"]]


def residual_mlp(
    x: Float[Array, "B H W C"], weights: MlpWeights, shortcut: bool, residual: Residual, drop: Drop | None = None
) -> Float[Array, "B H W C"]:
    """Returns maps of patches plus their MLP, in the type of `x`.

    On a TPU two kernels compute it and its gradient: nothing between `x` and the sum leaves the chip, and the gradient keeps
    `x` alone. Elsewhere, and where they do not apply (a branch that is more than LayerNorm, MLP and share; hidden channels that
    are dropped or split over devices; weights too large for a chip's memory, as 512 by 2048 channels are), it is done operation
    by operation.

    Args:
        x: patches.
        weights: the parameters, in float32.
        shortcut: whether the convolution adds its own input.
        residual: what surrounds the MLP.
        drop: what is done to the activated hidden channels, such as dropout.
    """
    if target_platform() != "tpu" or not residual.is_plain or drop is not None or model_shards() > 1 or not fits(x, weights):
        return _operations(x, weights, residual, shortcut, drop)
    return by_platform(_kernels, _operations, x, weights, residual, shortcut=shortcut)


def _kernels(x: Array, weights: MlpWeights, residual: Residual, shortcut: bool) -> Array:
    return by_images(partial(fused_mlp, shortcut=shortcut), (x, residual.shares(x)), (residual.norm, weights))


def _operations(x: Array, weights: MlpWeights, residual: Residual, shortcut: bool, drop: Drop | None = None) -> Array:
    kernel1, bias1, depthwise, depthwise_bias, kernel2, bias2 = (weight.astype(x.dtype) for weight in weights)
    hidden = constrain(channels_dot(residual.before(x), kernel1, None) + bias1, "batch", None, None, "mlp")
    filtered = depthwise_conv(hidden, depthwise) + depthwise_bias
    active = gelu(filtered + hidden if shortcut else filtered)
    return residual.add(x, channels_dot(active if drop is None else drop(active), kernel2, None) + bias2)
