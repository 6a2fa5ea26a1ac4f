"""The convolution's form for a CPU against XLA's, and against PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paca_jax import ops
from paca_jax.ops.nn import convolution


@pytest.mark.parametrize(
    ("side", "stride", "height", "width"), [(3, 1, 6, 5), (3, 2, 9, 8), (3, 2, 2, 1), (5, 1, 7, 4), (1, 2, 5, 6)]
)
def test_both_forms_agree_in_value_and_gradient(side, stride, height, width):
    keys = jax.random.split(jax.random.key(side))
    x, kernel = jax.random.normal(keys[0], (2, height, width, 4)), jax.random.normal(keys[1], (side, side, 4, 6))
    results = []
    with jax.default_matmul_precision("highest"):
        for form in (ops.conv, convolution.conv_by_xla):
            value, pullback = jax.vjp(lambda x, kernel, form=form: form(x, kernel, stride), x, kernel)
            results.append((value, *pullback(jnp.cos(value))))
    assert results[0][0].shape == (2, -(-height // stride), -(-width // stride), 6)
    for ours, expected in zip(*results, strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-5 * float(jnp.max(jnp.abs(expected))))


def test_matches_torch():
    torch = pytest.importorskip("torch")
    keys = jax.random.split(jax.random.key(0))
    x, kernel = np.asarray(jax.random.normal(keys[0], (2, 7, 9, 3))), np.asarray(jax.random.normal(keys[1], (3, 3, 3, 5)))
    theirs = torch.nn.functional.conv2d(
        torch.tensor(x).permute(0, 3, 1, 2), torch.tensor(kernel).permute(3, 2, 0, 1), stride=2, padding=1
    )
    np.testing.assert_allclose(ops.conv(jnp.asarray(x), jnp.asarray(kernel), 2), theirs.permute(0, 2, 3, 1), atol=1e-5)


def test_bfloat16_gradients_keep_the_type():
    x, kernel = jnp.ones((1, 4, 4, 2), jnp.bfloat16), jnp.ones((3, 3, 2, 3), jnp.bfloat16)
    value, pullback = jax.vjp(lambda x, kernel: ops.conv(x, kernel, 2), x, kernel)
    assert all(array.dtype == jnp.bfloat16 for array in (value, *pullback(value)))
