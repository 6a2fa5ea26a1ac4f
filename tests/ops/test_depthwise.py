"""The depthwise convolution's forms, against each other and against a plain sum, and with GELU a GPU's kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paca_jax import ops
from paca_jax.errors import UserError
from paca_jax.ops.depthwise import api, reference
from paca_jax.ops.nn.convolution import conv_by_xla
from paca_jax.sharding import make_mesh
from tests.ops.agreement import assert_agree
from tests.shapes import unchecked


def _inputs(side: int, channels: int = 6) -> tuple[jax.Array, jax.Array]:
    keys = jax.random.split(jax.random.key(side))
    return jax.random.normal(keys[0], (2, 9, 5, channels)), jax.random.normal(keys[1], (side, side, 1, channels))


@pytest.mark.parametrize("side", [1, 3, 5, 7])
def test_both_forms_agree_in_value_and_gradient(side):
    x, kernel = _inputs(side)
    with jax.default_matmul_precision("highest"):
        results = []
        for form in (reference.by_shifted_sums, conv_by_xla, ops.depthwise_conv):
            value, pullback = jax.vjp(form, x, kernel)
            results.append((value, *pullback(jnp.cos(value))))
    for ours in results[1:]:
        for a, b in zip(results[0], ours, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-4, rtol=1e-5)


@pytest.mark.parametrize("bytes_at_once", [1, 500, 10**6])
def test_gradient_in_pieces_is_that_of_the_whole(monkeypatch, bytes_at_once):
    monkeypatch.setattr(reference, "_BYTES_AT_ONCE", bytes_at_once)
    x, kernel = _inputs(3)
    g = jnp.cos(x)
    whole = jax.vjp(lambda kernel: conv_by_xla(x, kernel), kernel)[1](g)[0]
    np.testing.assert_allclose(reference._kernel_gradient(x, kernel, g), whole, atol=2e-4)


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
    assert api.BINOMIAL.sum() == 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("shape", "side", "shortcut", "with_input_bias"),
    [
        ((2, 9, 7, 16), 3, True, True),
        ((1, 20, 14, 32), 3, False, True),
        ((1, 35, 14, 8), 7, False, False),
        ((2, 5, 70, 24), 5, True, False),
    ],
    ids=str,
)
def test_a_gpus_kernels_compute_what_the_reference_does(shape, side, shortcut, with_input_bias, dtype):
    keys = jax.random.split(jax.random.key(side), 4)
    x, dy = (jax.random.normal(key, shape).astype(dtype) for key in keys[:2])
    kernel = (jax.random.normal(keys[2], (side, side, 1, shape[-1])) / side).astype(dtype)
    biases = [jax.random.normal(key, shape[-1:]).astype(dtype) for key in jax.random.split(keys[3], 1 + with_input_bias)]

    def results(implementation, *arrays):
        def function(x, kernel, bias, input_bias=None):
            return ops.depthwise_gelu(x, kernel, bias, shortcut, implementation, input_bias=input_bias)

        value, pullback = jax.vjp(function, *arrays)
        return function(*arrays), value, *pullback(dy.astype(value.dtype))

    expected = results("xla", *(array.astype("float32") for array in (x, kernel, *biases)))
    with ops.interpret_kernels(True, "gpu"):
        found = results("pallas_gpu", x, kernel, *biases)
    assert all(array.dtype == dtype for array in found)
    assert_agree(expected, found, 1e-5 if dtype == "float32" else 2e-2)


def test_devices_run_a_gpus_kernels_on_their_own_images():
    x, kernel = _inputs(3, channels=8)
    x, bias = jnp.tile(x, (4, 1, 1, 1)), jnp.ones(8)

    def results(implementation):
        return jax.value_and_grad(
            lambda x, kernel: jnp.sum(jnp.sin(ops.depthwise_gelu(x, kernel, bias, True, implementation))), (0, 1)
        )(x, kernel)

    expected = results("xla")
    with ops.interpret_kernels(True, "gpu"), jax.set_mesh(make_mesh(4, 2, 1, devices=jax.devices())):
        found = jax.jit(lambda: results("pallas_gpu"))()
    assert_agree(expected, found, 1e-5)


@pytest.mark.parametrize(
    ("x", "reason"),
    [(jnp.ones((1, 4, 4, 12)), "12 channels are no multiple of 8"), (jnp.ones((1, 4, 4, 8), jnp.int8), "the type is int8")],
)
def test_maps_that_a_gpus_kernels_do_not_take(x, reason):
    kernel, bias = jnp.ones((3, 3, 1, x.shape[-1])), jnp.ones(x.shape[-1])
    with unchecked(), ops.interpret_kernels(True, "gpu"), pytest.raises(UserError, match=reason):
        jax.eval_shape(lambda: ops.depthwise_gelu(x, kernel, bias, False, "pallas_gpu"))
