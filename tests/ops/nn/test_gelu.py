import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paca_jax import ops

X = np.concatenate([np.linspace(-8, 8, 100_001), [-1e30, -100.0, 100.0, 1e30]]).astype(np.float32)


def exact(x):
    return jax.nn.gelu(x, approximate=False)


@jax.jit
def slopes(x):
    return [jax.vmap(jax.grad(function))(x) for function in (exact, ops.gelu)]


def test_gelu_is_exact():
    np.testing.assert_allclose(ops.gelu(X), exact(X), atol=2e-6, rtol=1e-6)


def test_so_is_its_slope_forward_and_backward():
    x = X[np.abs(X) < 50]
    expected, found = slopes(x)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    _, forward = jax.jvp(ops.gelu, (jnp.asarray(x),), (jnp.full_like(x, 2),))
    np.testing.assert_allclose(forward, 2 * expected, atol=4e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_numbers_are_rounded_once(dtype):
    x = jnp.asarray(X[np.abs(X) <= 8][::100], dtype)
    assert ops.gelu(x).dtype == dtype
    np.testing.assert_array_equal(ops.gelu(x), ops.gelu(x.astype(jnp.float32)).astype(dtype))
    expected, found = slopes(x.astype(jnp.float32))[0], slopes(x)[1]
    np.testing.assert_allclose(np.asarray(found, np.float32), expected, atol=2e-2)
