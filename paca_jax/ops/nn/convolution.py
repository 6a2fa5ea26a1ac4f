"""Convolutions with zero padding of half a kernel on every side."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from paca_jax.ops.implementation import Implementation, always, choose


def conv_by_xla(x: Float[Array, "B H W C"], kernel: Float[Array, "K K G D"], stride: int = 1) -> Float[Array, "B H2 W2 D"]:
    """Convolves maps, by XLA's own operation, each of the C / G groups of channels separately."""
    pad = [(size // 2, size // 2) for size in kernel.shape[:2]]
    groups = x.shape[-1] // kernel.shape[2]
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), pad, dimension_numbers=dimensions, feature_group_count=groups
    )


def padded(x: Float[Array, "B H W C"], kernel: Float[Array, "K K G D"]) -> Float[Array, "B H+K-1 W+K-1 C"]:
    """Adds zeros of half a kernel on every side."""
    rows, columns = kernel.shape[:2]
    return jnp.pad(x, ((0, 0), (rows // 2, rows // 2), (columns // 2, columns // 2), (0, 0)))


_with_gradient_by_products = jax.custom_vjp(conv_by_xla, nondiff_argnums=(2,))


def _forward(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return conv_by_xla(x, kernel, stride), (x, kernel)


def _backward(stride: int, kept: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = kept
    (dx,) = jax.linear_transpose(lambda x: conv_by_xla(x, kernel, stride), x)(dy)
    return dx, _kernel_gradient(x, kernel, dy, stride)


def _kernel_gradient(x: Array, kernel: Array, dy: Array, stride: int) -> Float[Array, "K K C D"]:
    """Returns the products of patches and gradients: one for each row of the kernel, to bound the memory of the patches."""
    rows, columns, _, features = kernel.shape
    height, width = ((size - 1) * stride + 1 for size in dy.shape[1:3])
    maps = padded(x, kernel)
    gradients = dy.reshape(-1, features)

    def product(i: int) -> Float[Array, "KC D"]:
        taps = [maps[:, i : i + height : stride, j : j + width : stride] for j in range(columns)]
        patches = jnp.concatenate(taps, -1).reshape(gradients.shape[0], -1)
        return jax.lax.dot_general(patches, gradients, (((0,), (0,)), ((), ())))

    return jnp.stack([product(i) for i in range(rows)]).reshape(kernel.shape)


_with_gradient_by_products.defvjp(_forward, _backward)


def conv(
    x: Float[Array, "B H W C"],
    kernel: Float[Array, "K K C D"],
    stride: int = 1,
    implementation: Implementation | None = None,
) -> Float[Array, "B H2 W2 D"]:
    """Convolves maps with an odd-sized kernel (torch: `padding=K // 2`): H and W become ceil(H / stride), ceil(W / stride).

    `"xla_cpu"` computes the gradient of the kernel as a few matrix products, for XLA's own is slow on a CPU; it has a
    reverse-mode derivative only.
    """
    return _conv(x, kernel, stride, choose("convolution", implementation, {"xla_cpu": always}) == "xla_cpu")


@partial(jax.jit, static_argnums=(2, 3), inline=True)
def _conv(x: Array, kernel: Array, stride: int, gradient_by_products: bool) -> Array:
    return (_with_gradient_by_products if gradient_by_products else conv_by_xla)(x, kernel, stride)
