"""Attention by cuDNN, on a GPU of NVIDIA: scores do not leave the chip."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from paca_jax.ops import gpu
from paca_jax.ops.implementation import kernel_interpreter

_MOST_CHANNELS = 128  # of a head
_MULTIPLE = 8


def refusal(x: Float[Array, "B N C"], tokens: int, num_heads: int) -> str | None:
    """Returns why cuDNN does not compute the attention of these patches to so many tokens, as a clause, or None if it does."""
    _, patches, channels = x.shape
    width = channels // num_heads
    if x.dtype not in (jnp.bfloat16, jnp.float16):
        return f"the type is {x.dtype}, not one of 16 bits"
    if width % _MULTIPLE or width > _MOST_CHANNELS:
        return f"a head has {width} channels, no multiple of {_MULTIPLE} up to {_MOST_CHANNELS}"
    if patches % 2 or tokens % 2:
        return f"{patches} patches attend to {tokens}, and cuDNN has no gradient for odd numbers"
    if kernel_interpreter():
        return "a library cannot be interpreted"
    return gpu.refusal()


def attend_fused(
    query: Float[Array, "B N H D"], key: Float[Array, "B T H D"], value: Float[Array, "B T H D"]
) -> Float[Array, "B N H D"]:
    """Returns each query's mean of the values under softmax(query . key / sqrt(D)); it has a reverse-mode derivative only."""
    return jax.nn.dot_product_attention(query, key, value, implementation="cudnn")
