"""Convolutions that act on each channel alone, with stride 1 and zero padding that keeps the size."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

BINOMIAL = (np.outer([1, 2, 1], [1, 2, 1]) / 16).astype(np.float32)


def _by_grouped_conv(x: Float[Array, "B H W C"], kernel: Float[Array, "K K 1 C"]) -> Float[Array, "B H W C"]:
    pad = [(size // 2, size // 2) for size in kernel.shape[:2]]
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), pad, dimension_numbers=dimensions, feature_group_count=x.shape[-1])


def _by_shifted_sums(x: Float[Array, "B H W C"], kernel: Float[Array, "K K 1 C"]) -> Float[Array, "B H W C"]:
    height, width = x.shape[1:3]
    rows, columns = kernel.shape[:2]
    padded = jnp.pad(x, ((0, 0), (rows // 2, rows // 2), (columns // 2, columns // 2), (0, 0)))
    taps = [padded[:, i : i + height, j : j + width] * kernel[i, j, 0] for i in range(rows) for j in range(columns)]
    return sum(taps[1:], taps[0])


def depthwise_conv(x: Float[Array, "B H W C"], kernel: Float[Array, "K K 1 C"]) -> Float[Array, "B H W C"]:
    """Convolves every channel with its own odd-sized kernel (torch: `groups=C`, `padding=K // 2`).

    XLA's grouped convolution is slow on a CPU: there the same sum is written as shifted products, which fuse into one loop.
    """
    return jax.lax.platform_dependent(x, kernel, cpu=_by_shifted_sums, default=_by_grouped_conv)


def binomial_blur(x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    """Low-pass filters every channel with the 3x3 kernel `BINOMIAL`."""
    kernel = jnp.broadcast_to(jnp.asarray(BINOMIAL, x.dtype)[:, :, None, None], (3, 3, 1, x.shape[-1]))
    return depthwise_conv(x, kernel)
