"""Depthwise convolution in plain JAX: stride 1, and zero padding that keeps the size."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from paca_jax.ops.nn.convolution import padded
from paca_jax.sharding import batch_shards

_BYTES_AT_ONCE = 3 * 2**19  # of a map and as many of its gradient


@jax.custom_vjp
def by_shifted_sums(x: Float[Array, "B H W C"], kernel: Float[Array, "K K 1 C"]) -> Float[Array, "B H W C"]:
    """Returns the convolution as a sum of shifted products, which fuse into one loop; it has a reverse-mode derivative only."""
    height, width = x.shape[1:3]
    rows, columns = kernel.shape[:2]
    maps = padded(x, kernel)
    taps = [maps[:, i : i + height, j : j + width] * kernel[i, j, 0] for i in range(rows) for j in range(columns)]
    return sum(taps[1:], taps[0])


def _kernel_gradient(
    x: Float[Array, "B H W C"], kernel: Float[Array, "K K 1 C"], g: Float[Array, "B H W C"]
) -> Float[Array, "K K 1 C"]:
    """Sums shifted products of a few rows, or of a few small images, at a time, so that they stay in the cache.

    If the batch is split over devices, each step takes images of every device.
    """
    batch, height, width, channels = x.shape
    rows, columns = kernel.shape[:2]
    devices = math.gcd(batch, batch_shards(jax.sharding.get_abstract_mesh()))
    image_bytes = height * width * channels * g.dtype.itemsize
    images = _largest_divisor(batch // devices, _BYTES_AT_ONCE // image_bytes)
    chunks = min(height, math.ceil(image_bytes / _BYTES_AT_ONCE))
    chunk = math.ceil(height / chunks)
    # Rows of zeros make the last chunk a whole one.
    below = ((0, 0), (0, chunks * chunk - height), (0, 0), (0, 0))
    xs, gs = (array.reshape(devices, -1, images, height, width, channels) for array in (x, g))

    def add_images(total: Array, step: Array) -> tuple[Array, None]:
        some, some_gradients = (array[:, step].reshape(-1, height, width, channels) for array in (xs, gs))
        some, some_gradients = jnp.pad(padded(some, kernel), below), jnp.pad(some_gradients, below)

        def add_chunk(total: Array, top: Array) -> tuple[Array, None]:
            gradient = jax.lax.dynamic_slice_in_dim(some_gradients, top, chunk, axis=1)

            def row(i: Array) -> Array:
                shifted = jax.lax.dynamic_slice_in_dim(some, top + i, chunk, axis=1)
                return jnp.stack([jnp.sum(shifted[:, :, j : j + width] * gradient, (0, 1, 2)) for j in range(columns)])

            return total + jax.lax.map(row, jnp.arange(rows)), None

        return jax.lax.scan(add_chunk, total, chunk * jnp.arange(chunks))[0], None

    start = jnp.zeros((rows, columns, channels), kernel.dtype)
    return jax.lax.scan(add_images, start, jnp.arange(xs.shape[1]))[0][:, :, None]


def _largest_divisor(number: int, most: int) -> int:
    """Returns the largest divisor up to `most`, at least 1."""
    return max(n for n in range(1, number + 1) if number % n == 0 and n <= max(most, 1))


def _shifted_sums_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return by_shifted_sums(x, kernel), (x, kernel)


def _shifted_sums_backward(residuals: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    return by_shifted_sums(g, kernel[::-1, ::-1]), _kernel_gradient(x, kernel, g)


by_shifted_sums.defvjp(_shifted_sums_forward, _shifted_sums_backward)
