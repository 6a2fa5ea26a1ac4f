"""Convolutions that act on each channel alone, with stride 1 and zero padding that keeps the size."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from paca_jax.ops.depthwise.reference import by_shifted_sums
from paca_jax.ops.implementation import Implementation, always, choose, kernel_interpreter
from paca_jax.ops.nn.convolution import conv_by_xla
from paca_jax.ops.nn.gelu import gelu
from paca_jax.sharding import by_images, model_shards

BINOMIAL = (np.outer([1, 2, 1], [1, 2, 1]) / 16).astype(np.float32)


def depthwise_conv(
    x: Float[Array, "B H W C"], kernel: Float[Array, "K K 1 C"], implementation: Implementation | None = None
) -> Float[Array, "B H W C"]:
    """Convolves every channel with its own odd-sized kernel (torch: `groups=C`, `padding=K // 2`).

    `"xla_cpu"` writes the same sum as shifted products, which fuse into one loop, for XLA's grouped convolution and above all
    its gradient are slow on a CPU; it has a reverse-mode derivative only.
    """
    return _depthwise(x, kernel, choose("depthwise convolution", implementation, {"xla_cpu": always}) == "xla_cpu")


def depthwise_gelu(
    x: Float[Array, "B H W C"],
    kernel: Float[Array, "K K 1 C"],
    bias: Float[Array, "C"],
    shortcut: bool,
    implementation: Implementation | None = None,
    *,
    input_bias: Float[Array, "C"] | None = None,
) -> Float[Array, "B H W C"]:
    """Returns GELU(depthwise_conv(x) + bias), or GELU(depthwise_conv(x) + bias + x) with a shortcut, in the type of `x`.

    `"xla_cpu"` is as in `depthwise_conv`. With `"pallas_gpu"` nothing but `x` and the result is in memory, and the gradient
    keeps `x` only; it takes channels that the mesh does not split.

    Args:
        x: maps.
        kernel: the odd-sized kernel of each channel.
        bias: of each channel.
        shortcut: whether the convolution adds its own input.
        implementation: see `paca_jax.ops.implementation`.
        input_bias: of each channel, added to `x` first; None for none. With `"pallas_gpu"` its gradient takes no pass over
            the maps, nor does the sum in inference.
    """

    def refusal() -> str | None:
        if model_shards() > 1:
            return "the mesh has a model axis"
        from paca_jax.ops.depthwise import gpu  # with Pallas, which takes long to import

        return gpu.refusal(x)

    chosen = choose("depthwise convolution", implementation, {"xla_cpu": always, "pallas_gpu": refusal})
    if chosen == "pallas_gpu":
        return _kernels(x, input_bias, kernel, bias, shortcut, bool(kernel_interpreter()))
    if input_bias is not None:
        x = x + input_bias
    filtered = _depthwise(x, kernel, chosen == "xla_cpu") + bias
    return gelu(filtered + x if shortcut else filtered)


def binomial_blur(x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    """Low-pass filters every channel with the 3x3 kernel `BINOMIAL`."""
    kernel = jnp.broadcast_to(jnp.asarray(BINOMIAL, x.dtype)[:, :, None, None], (3, 3, 1, x.shape[-1]))
    return depthwise_conv(x, kernel)


@partial(jax.jit, static_argnums=2, inline=True)
def _depthwise(x: Array, kernel: Array, shifted_sums: bool) -> Array:
    return by_shifted_sums(x, kernel) if shifted_sums else conv_by_xla(x, kernel)


@partial(jax.jit, static_argnames=("shortcut", "interpret"), inline=True)
def _kernels(x: Array, input_bias: Array | None, kernel: Array, bias: Array, shortcut: bool, interpret: bool) -> Array:
    from paca_jax.ops.depthwise import gpu

    function = partial(gpu.fused_depthwise_gelu, shortcut=shortcut, interpret=interpret)
    return by_images(function, (x,), (input_bias, kernel, bias))
