"""The kernels, interpreted, against the reference; and which arrays take them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paca_jax import ops
from paca_jax.ops.clustering import tpu_tiling as clustering_tiling
from paca_jax.ops.clustering.tpu import refusal
from paca_jax.sharding import make_mesh
from tests.ops.agreement import assert_agree, images_at_kernels, interpreted_on_a_tpu
from tests.runs import needs_libtpu, run_for_tpus


def draw(batch, height, width, channels, clusters, window, dtype=jnp.float32):
    """Returns maps, the parameters of norm and clustering, and a gradient of the assignment."""
    keys = jax.random.split(jax.random.key(height), 9)
    shapes = ((window, window, 1, channels), (channels,), (channels, channels), (channels,), (channels, clusters))
    scales = (1 / window, 0.5, channels**-0.5, 0.5, channels**-0.5)
    weights = [s * jax.random.normal(key, shape) for key, shape, s in zip(keys, shapes, scales, strict=False)]
    x = jax.random.normal(keys[5], (batch, height, width, channels))
    g = jax.random.normal(keys[6], (batch, clusters, height * width))
    norm = ops.NormWeights(*(jax.random.normal(key, (channels,)) for key in keys[7:]))
    return (x + 0.5).astype(dtype), norm, ops.ClusteringWeights(*weights), g.astype(dtype)


def both(x, norm, weights, g, implementation=None):
    y, pull = jax.vjp(partial(ops.conv_clustering, implementation=implementation), x, norm, weights)
    return y, *pull(g.astype(y.dtype))


def with_gradients(*drawn, implementation=None):
    with jax.default_matmul_precision("highest"):
        return jax.jit(partial(both, implementation=implementation))(*drawn)


@pytest.mark.parametrize("size", [(3, 7, 7, 24, 10, 7), (2, 5, 9, 16, 20, 3)], ids=str)
def test_both_forms_agree(size):
    drawn = draw(*size)
    assert_agree(*(with_gradients(*drawn, implementation=form) for form in ("xla", "xla_cpu")), 1e-5)


def assert_kernels_agree(x, *rest, tolerance, interpreted=None):
    expected = with_gradients(x.astype(jnp.float32), *rest, implementation="xla")
    with interpreted or ops.interpret_kernels(True):
        found = jax.block_until_ready(with_gradients(x, *rest, implementation="pallas_tpu"))
    assert found[0].dtype == found[1].dtype == x.dtype
    assert all(gradient.dtype == jnp.float32 for gradient in jax.tree.leaves(found[2:]))
    assert_agree(expected, found, tolerance)


@pytest.mark.parametrize(
    "size",
    [(3, 7, 7, 24, 10, 7), (2, 5, 9, 136, 20, 3), (4, 19, 17, 12, 130, 7), (1, 3, 60, 20, 6, 5), (2, 4, 4, 8, 3, 1)],
    ids=str,
)
def test_kernels_compute_what_the_reference_does(size):
    assert_kernels_agree(*draw(*size), tolerance=1e-5)


@pytest.mark.parametrize(("cores", "step"), [(1, 784), (2, 784), (2, 24)])
def test_kernels_read_only_memory_that_they_wrote(cores, step, monkeypatch):
    monkeypatch.setattr(clustering_tiling, "_STEP_BYTES", step * 2**10)
    drawn = draw(2, 5, 9, 12, 6, 3)
    assert_kernels_agree(*drawn, tolerance=1e-5, interpreted=interpreted_on_a_tpu(cores))


def test_kernels_compute_in_bfloat16_what_the_reference_does_in_float32():
    assert_kernels_agree(*draw(4, 7, 7, 24, 10, 7, jnp.bfloat16), tolerance=2e-2)


@pytest.mark.parametrize(("height", "width", "window", "rows"), [(11, 9, 3, 4), (20, 10, 7, 6), (7, 60, 5, 4)])
def test_steps_of_a_large_image_see_the_rows_of_their_neighbors(height, width, window, rows, monkeypatch):
    columns = -(-width // 8) * 8
    monkeypatch.setattr(clustering_tiling, "_STEP_BYTES", rows * columns * 128 * 4)
    monkeypatch.setattr(clustering_tiling, "_ROUND_PATCHES", 2 * columns)
    x, *rest = draw(2, height, width, 16, 6, window)
    cut = next(clustering_tiling.clustering_tilings(x, window))
    assert (cut.images, cut.rows) == (1, rows)
    assert cut.chunks > 1
    assert cut.round == (1, 2)
    assert_kernels_agree(x, *rest, tolerance=1e-5)


def test_eight_devices_compute_what_one_does():
    x, *rest = draw(16, 7, 5, 16, 6, 3)
    with ops.interpret_kernels(True):
        expected = with_gradients(x, *rest)
        assert set(images_at_kernels(both, x, *rest)) == {16}
        with jax.set_mesh(make_mesh(4, 2, 1, devices=jax.devices())):
            found = with_gradients(x, *rest)
            assert set(images_at_kernels(both, x, *rest)) == {2}
    assert_agree(expected, found, 1e-5)


def test_a_mesh_that_splits_heads_and_patches_without_norm_take_no_kernel():
    drawn = x, norm, weights, _ = draw(4, 3, 5, 8, 6, 3)
    expected = with_gradients(*drawn)
    with ops.interpret_kernels(True):
        assert images_at_kernels(both, *drawn)
        with jax.set_mesh(make_mesh(4, 1, 2, devices=jax.devices())):
            assert not images_at_kernels(both, *drawn)
            split = with_gradients(*drawn)
        normal = ops.layer_norm(x, norm)
        assert not images_at_kernels(lambda x: ops.conv_clustering(x, None, weights), normal)
        normalized_outside = ops.conv_clustering(normal, None, weights)
    assert_agree(expected, split, 1e-5)
    np.testing.assert_allclose(normalized_outside, expected[0], atol=1e-5)


def test_sizes_that_the_kernels_do_not_take():
    x, _, weights, _ = draw(1, 2, 2, 6, 8, 15)
    assert refusal(x, weights) is None
    assert refusal(x.astype(jnp.float16), weights) is not None
    assert refusal(x, weights._replace(depthwise=jnp.zeros((17, 17, 1, 6)))) is not None
    assert "vector memory" in refusal(jnp.zeros((1, 100, 4000, 6)), weights)
    assert "vector memory" in refusal(x.astype(jnp.bfloat16), weights._replace(project=jnp.zeros((2048, 100))))


CODE = """
import jax, jax.numpy as jnp
from paca_jax import ops
from tests.ops.agreement import gradient_on_a_tpu

def loss(x, norm, weights):
    return jnp.sum(ops.conv_clustering(x, norm, weights) ** 2)

for height, width, channels, window in ((7, 7, 20, 7), (8, 8, 136, 3), (52, 204, 40, 3)):
    shapes = ((window, window, 1, channels), (channels,), (channels, channels), (channels,), (channels, 10))
    weights = ops.ClusteringWeights(*(jax.ShapeDtypeStruct(shape, "float32") for shape in shapes))
    norm = ops.NormWeights(weights.depthwise_bias, weights.depthwise_bias)
    x = jax.ShapeDtypeStruct((2, height, width, channels), "bfloat16")
    text = gradient_on_a_tpu(loss, x, norm, weights)
    print(text.count('custom_call_target="tpu_custom_call"'), "convolution(" in text)
"""


@pytest.mark.slow
@needs_libtpu
def test_a_tpu_runs_the_two_kernels_and_no_convolution():
    assert run_for_tpus(CODE).splitlines() == ["2 False"] * 3
