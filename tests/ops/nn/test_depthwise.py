"""The depthwise convolution's two forms, against each other and against a plain sum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paca_jax import ops
from paca_jax.ops.nn import depthwise


def _inputs(side: int, channels: int = 6) -> tuple[jax.Array, jax.Array]:
    keys = jax.random.split(jax.random.key(side))
    return jax.random.normal(keys[0], (2, 9, 5, channels)), jax.random.normal(keys[1], (side, side, 1, channels))


@pytest.mark.parametrize("side", [1, 3, 5, 7])
def test_both_forms_agree_in_value_and_gradient(side):
    x, kernel = _inputs(side)
    with jax.default_matmul_precision("highest"):
        results = []
        for form in (depthwise._by_shifted_sums, depthwise.conv_by_xla, ops.depthwise_conv):
            value, pullback = jax.vjp(form, x, kernel)
            results.append((value, *pullback(jnp.cos(value))))
    for ours in results[1:]:
        for a, b in zip(results[0], ours, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-4, rtol=1e-5)


@pytest.mark.parametrize("bytes_at_once", [1, 500, 10**6])
def test_gradient_in_pieces_is_that_of_the_whole(monkeypatch, bytes_at_once):
    monkeypatch.setattr(depthwise, "_BYTES_AT_ONCE", bytes_at_once)
    x, kernel = _inputs(3)
    g = jnp.cos(x)
    whole = jax.vjp(lambda kernel: depthwise.conv_by_xla(x, kernel), kernel)[1](g)[0]
    np.testing.assert_allclose(depthwise._kernel_gradient(x, kernel, g), whole, atol=2e-4)


def test_matches_a_plain_sum():
    x, kernel = _inputs(3)
    out = np.zeros(x.shape)
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    for row in range(9):
        for column in range(5):
            window = padded[:, row : row + 3, column : column + 3]
            out[:, row, column] = (window * np.asarray(kernel)[:, :, 0]).sum((1, 2))
    np.testing.assert_allclose(ops.depthwise_conv(x, kernel), out, atol=1e-5)


def test_blur_keeps_constants_inside_and_each_channel_apart():
    x = jnp.ones((1, 6, 6, 2)) * jnp.array([1.0, 3.0])
    blurred = ops.binomial_blur(x)
    np.testing.assert_allclose(blurred[:, 1:-1, 1:-1], x[:, 1:-1, 1:-1], atol=1e-6)
    np.testing.assert_allclose(blurred[0, 0, 0], [9 / 16, 27 / 16], atol=1e-6)
    assert depthwise.BINOMIAL.sum() == 1
