import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl

from paca_jax.planning.flops import matrix_flops
from paca_jax.sharding import make_mesh


def flops(function, *shapes):
    return matrix_flops(jax.make_jaxpr(function)(*(jnp.zeros(shape) for shape in shapes)).jaxpr)


def test_a_matrix_product():
    assert flops(jnp.matmul, (3, 5), (5, 7)) == 2 * 3 * 5 * 7


def test_a_batched_product_and_its_gradient():
    def product(a, b):
        return jnp.sum(jnp.einsum("bij,bjk->bik", a, b) ** 2)

    assert flops(jax.grad(product, (0, 1)), (2, 3, 5), (2, 5, 7)) == 3 * (2 * 2 * 3 * 5 * 7)


def test_a_scan_counts_its_iterations_and_a_conditional_its_most_expensive_branch():
    def loop(a, w):
        return jax.lax.scan(lambda carry, _: (carry @ w, None), a, length=6)[0]

    def branch(a, w):
        return jax.lax.cond(a[0, 0] > 0, lambda: a @ w @ w, lambda: a @ w)

    assert flops(loop, (3, 5), (5, 5)) == 6 * 2 * 3 * 5 * 5
    assert flops(jax.jit(branch), (3, 5), (5, 5)) == 2 * 2 * 3 * 5 * 5


def test_a_kernel_counts_its_cost_estimate():
    def kernel(a, out):
        out[...] = a[...] @ a[...]

    def call(a):
        cost = pl.CostEstimate(flops=77, transcendentals=0, bytes_accessed=0)
        return pl.pallas_call(kernel, out_shape=a, grid=(4,), cost_estimate=cost)(a)

    assert flops(call, (8, 8)) == 77


def test_each_device_counts_its_part_of_a_map_over_shards():
    mesh = make_mesh(4, 1, 2, devices=jax.devices())
    rows = jax.sharding.PartitionSpec("data")
    whole = jax.sharding.PartitionSpec()
    product = jax.shard_map(jnp.matmul, mesh=mesh, in_specs=(rows, whole), out_specs=rows)
    assert flops(product, (8, 5), (5, 7)) == 2 * (2 * 8 * 5 * 7), "two devices compute the same rows"


def test_recomputation_counts_again():
    def product(w, a):
        return jnp.sum(jnp.sin(jnp.sin(a @ w)))

    plain, recomputed = (flops(jax.grad(f), (5, 5), (3, 5)) for f in (product, jax.checkpoint(product)))
    assert (plain, recomputed) == (2 * 150, 3 * 150)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_does_not_count_its_padding(stride, groups):
    """On ones, each output is the number of elements under its window, so their sum is the number of multiply-adds."""

    def convolution(images, kernel):
        return jax.lax.conv_general_dilated(
            images, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
        )

    images, kernel = np.ones((2, 7, 5, 4)), np.ones((3, 3, 4 // groups, 6))
    multiply_adds = float(jnp.sum(convolution(images, kernel)))
    assert flops(convolution, images.shape, kernel.shape) == 2 * multiply_adds
    gradient = jax.grad(lambda *arguments: jnp.sum(convolution(*arguments) ** 2), (0, 1))
    assert flops(gradient, images.shape, kernel.shape) == 3 * 2 * multiply_adds
