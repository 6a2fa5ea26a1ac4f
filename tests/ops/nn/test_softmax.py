import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paca_jax import ops


def with_derivatives(function, x, tangent):
    """Returns the result, and its derivative forward and backward."""
    y, forward = jax.jvp(function, (x,), (tangent,))
    return y, forward, jax.vjp(function, x)[1](tangent)[0]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 1e-2)])
def test_softmax_and_its_derivatives_are_those_of_jax(dtype, tolerance):
    x, tangent = (3 * jax.random.normal(jax.random.key(k), (2, 5, 40)).astype(dtype) for k in range(2))
    wide = x.astype("float32"), tangent.astype("float32")
    expected, found = with_derivatives(jax.nn.softmax, *wide), with_derivatives(ops.softmax, x, tangent)
    for a, b in zip(expected, found, strict=True):
        assert b.dtype == dtype
        np.testing.assert_allclose(np.asarray(b, np.float32), a, atol=tolerance)


def test_the_gradient_keeps_the_result_alone():
    x = jnp.ones((3, 40), jnp.bfloat16)
    kept = jax.tree.leaves(jax.vjp(ops.softmax, x)[1])
    assert [(array.shape, array.dtype) for array in kept if array.size > 1] == [(x.shape, x.dtype)]


def test_it_has_a_second_derivative():
    x = jnp.array([0.5, -1.0, 2.0])
    ours, theirs = (jax.hessian(lambda x, form=form: jnp.sum(form(x) ** 2))(x) for form in (ops.softmax, jax.nn.softmax))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
