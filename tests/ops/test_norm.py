"""LayerNorm against what the definition says, and its kernels, interpreted, against the reference."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paca_jax import ops
from paca_jax.ops.pallas import patches as patch_tiling
from paca_jax.sharding import make_mesh
from tests.ops.agreement import assert_agree, images_at_kernels, interpreted_on_a_tpu


def draw(*shape, dtype=jnp.float32):
    """Returns values far from zero, parameters and a gradient of the output."""
    keys = jax.random.split(jax.random.key(len(shape)), 4)
    x, g = (jax.random.normal(key, shape).astype(dtype) for key in keys[:2])
    return x + 2, ops.NormWeights(*(jax.random.normal(key, shape[-1:]) for key in keys[2:])), g


def both(x, weights, g, implementation=None):
    y, pull = jax.vjp(partial(ops.layer_norm, implementation=implementation), x, weights)
    return y, *pull(g.astype(y.dtype))


def with_gradients(*drawn, **options):
    return jax.jit(lambda *drawn: both(*drawn, **options))(*drawn)


def test_channels_have_the_mean_and_the_variance_that_the_parameters_say():
    x, _, _ = draw(2, 3, 5, 64)
    y = ops.layer_norm(x, ops.NormWeights(jnp.full(64, 3.0), jnp.full(64, -1.0)))
    np.testing.assert_allclose(jnp.mean(y, axis=-1), -1, atol=1e-5)
    np.testing.assert_allclose(jnp.std(y, axis=-1), 3, rtol=1e-5)


@pytest.mark.parametrize("implementation", ["xla", "xla_cpu"])
@pytest.mark.parametrize("shape", [(3, 7, 9, 20), (300, 6)], ids=str)
def test_outputs_and_gradients_are_those_of_flax(shape, implementation):
    x, weights, g = draw(*shape)
    theirs = nn.LayerNorm(epsilon=ops.LAYER_NORM_EPSILON)
    expected, pull = jax.vjp(lambda x, weights: theirs.apply({"params": weights._asdict()}, x), x, weights)
    assert_agree((expected, *pull(g)), with_gradients(x, weights, g, implementation=implementation), 1e-5)


@pytest.mark.parametrize(("shape", "step"), [((3, 7, 9, 20), 1024), ((2, 300, 6), 128), ((4, 16, 128), 1024)], ids=str)
def test_kernels_compute_what_the_reference_does(shape, step, monkeypatch):
    monkeypatch.setattr(patch_tiling, "_MOST_PATCHES", step)
    drawn = draw(*shape)
    expected = with_gradients(*drawn)
    x, weights, g = drawn
    with interpreted_on_a_tpu(cores=2) if step == 128 else ops.interpret_kernels(True):
        assert len(images_at_kernels(both, *drawn)) == 2
        assert_agree(expected, with_gradients(*drawn), 1e-5)
        found = jax.block_until_ready(with_gradients(x.astype(jnp.bfloat16), weights, g))
    assert found[0].dtype == found[1].dtype == jnp.bfloat16
    assert_agree(expected, found, 2e-2)


def test_devices_normalize_their_own_images_and_split_no_patches():
    drawn = draw(8, 5, 12)
    expected = with_gradients(*drawn)
    with ops.interpret_kernels(True), jax.set_mesh(make_mesh(4, 2, 1, devices=jax.devices())):
        assert images_at_kernels(both, *drawn) == [1, 1]
        assert_agree(expected, with_gradients(*drawn), 1e-5)
    with ops.interpret_kernels(True), jax.set_mesh(make_mesh(4, 1, 2, devices=jax.devices())):
        assert not images_at_kernels(both, *drawn)
        assert_agree(expected, with_gradients(*drawn), 1e-5)


@pytest.mark.parametrize("shape", [(3, 7, 9, 24), (2, 5000, 8), (4, 16, 320)], ids=str)
def test_a_gpus_kernel_computes_what_the_reference_does(shape):
    drawn = draw(*shape)
    expected = with_gradients(*drawn)
    x, weights, g = drawn
    with ops.interpret_kernels(True, "gpu"), ops.record_choices() as choices:
        assert_agree(expected, with_gradients(*drawn), 1e-5)
        found = with_gradients(x.astype(jnp.bfloat16), weights, g)
    assert {choice.implementation for choice in choices} == {"pallas_gpu"}
    assert found[0].dtype == found[1].dtype == jnp.bfloat16
    assert_agree(expected, found, 2e-2)


def test_devices_run_a_gpus_kernel_on_their_own_images():
    drawn = draw(8, 5, 16)
    expected = with_gradients(*drawn)
    with ops.interpret_kernels(True, "gpu"), jax.set_mesh(make_mesh(4, 2, 1, devices=jax.devices())):
        assert_agree(expected, with_gradients(*drawn), 1e-5)
