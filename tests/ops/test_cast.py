"""Parameters in another type, also by a GPU's kernel, interpreted."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paca_jax import ops
from paca_jax.errors import UserError
from paca_jax.sharding import make_mesh
from tests.ops.agreement import images_at_kernels


def draw():
    """Returns parameters of several shapes, one of them larger than what a program of the kernel treats."""
    shapes = {"kernel": (3, 3, 1, 24), "bias": (7,), "large": (70, 50)}
    return {name: jax.random.normal(jax.random.key(len(name)), shape) for name, shape in shapes.items()}


def with_gradients(weights):
    def loss(weights):
        cast = ops.cast_weights(weights, jnp.bfloat16)
        return sum(jnp.sum(jnp.sin(weight.astype(jnp.float32))) for weight in jax.tree.leaves(cast)), cast

    gradient, cast = jax.grad(loss, has_aux=True)(weights)
    return cast, gradient


def traced(weights):
    """Returns the number of kernels and the results of a program that is traced now."""
    function = partial(with_gradients)  # not one that JAX has traced before
    return len(images_at_kernels(function, weights)), jax.jit(function)(weights)


def assert_equal(expected, found):
    for a, b in zip(*map(jax.tree.leaves, (expected, found)), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(*(np.asarray(x, np.float32) for x in (a, b)))


def test_one_kernel_converts_all_parameters():
    weights = draw()
    count, expected = traced(weights)
    assert count == 0
    assert_equal(expected[0], jax.tree.map(lambda weight: weight.astype(jnp.bfloat16), weights))
    with ops.interpret_kernels(True, "gpu"):
        count, found = traced(weights)
    assert count == 1
    assert_equal(expected, found)


def test_parameters_of_that_type_are_left_alone():
    weights = draw()
    with ops.interpret_kernels(True, "gpu"):
        assert ops.cast_weights(weights, jnp.float32) is weights


@pytest.mark.parametrize(("mesh", "kernels"), [((4, 2, 1), 1), ((4, 1, 2), 0)])
def test_each_device_converts_its_own_copy_but_no_part_of_one(mesh, kernels):
    weights = draw()
    _, expected = traced(weights)
    with ops.interpret_kernels(True, "gpu"), jax.set_mesh(make_mesh(*mesh, devices=jax.devices())):
        count, found = traced(weights)
    assert count == kernels
    assert_equal(expected, found)


def test_a_kernel_takes_float32_only():
    weights = draw() | {"half": jnp.ones(3, jnp.float16)}
    with ops.interpret_kernels(True, "gpu"), pytest.raises(UserError, match="a parameter is not float32"):
        ops.cast_weights(weights, jnp.bfloat16, "pallas_gpu")
