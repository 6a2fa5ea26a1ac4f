"""The kernels, interpreted, against the same MLP operation by operation; and who takes which."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paca_jax import ops
from paca_jax.ops.kernels import mlp_tiling
from paca_jax.ops.kernels.mlp import fits, fused_mlp
from paca_jax.sharding import make_mesh
from tests.planning.test_plan import needs_libtpu
from tests.runs import run_for_tpus


def draw(batch, height, width, channels, hidden, dtype=jnp.float32):
    """Returns maps, weights and a gradient of the output."""
    keys = jax.random.split(jax.random.key(height), 8)
    shapes = ops.MlpWeights((channels, hidden), (hidden,), (3, 3, 1, hidden), (hidden,), (hidden, channels), (channels,))
    scales = ops.MlpWeights(channels**-0.5, 0.5, 0.5, 0.5, hidden**-0.5, 0.5)
    weights = [s * jax.random.normal(key, shape) for key, shape, s in zip(keys, shapes, scales, strict=False)]
    x, g = (jax.random.normal(key, (batch, height, width, channels)).astype(dtype) for key in keys[6:])
    return x, ops.MlpWeights(*weights), g


def with_gradients(function, x, weights, g):
    def both(x, weights):
        y, pull = jax.vjp(function, x, weights)
        return y, *pull(g.astype(y.dtype))

    with jax.default_matmul_precision("highest"):
        return jax.jit(both)(x, weights)


def assert_agree(expected, found, tolerance):
    for a, b in zip(*map(jax.tree.leaves, (expected, found)), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(np.asarray(b, np.float32), a, rtol=0, atol=tolerance * float(jnp.max(jnp.abs(a))))


def assert_kernels_agree(x, weights, g, shortcut, tolerance):
    plain = partial(ops.depthwise_mlp, shortcut=shortcut)
    expected = with_gradients(plain, x.astype(jnp.float32), weights, g)
    found = with_gradients(partial(fused_mlp, shortcut=shortcut, interpret=True), x, weights, g)
    assert found[0].dtype == found[1].dtype == x.dtype
    assert all(gradient.dtype == jnp.float32 for gradient in found[2])
    assert_agree(expected, found, tolerance)


@pytest.mark.parametrize(
    ("size", "shortcut"),
    [
        ((3, 1, 7, 20, 52), True),
        ((3, 7, 7, 24, 136), True),
        ((1, 5, 9, 12, 130), False),
        ((1, 30, 17, 20, 40), True),
    ],
    ids=str,
)
def test_kernels_compute_what_the_operations_do(size, shortcut):
    assert_kernels_agree(*draw(*size), shortcut, 1e-5)


def test_kernels_compute_in_bfloat16_what_the_operations_do_in_float32():
    assert_kernels_agree(*draw(3, 7, 7, 24, 136, jnp.bfloat16), True, 2e-2)


@pytest.mark.parametrize(("height", "width", "rows"), [(11, 9, 4), (4, 60, 2)])
def test_steps_of_a_large_image_see_the_rows_of_their_neighbours(height, width, rows, monkeypatch):
    monkeypatch.setattr(mlp_tiling, "_STEP", 2 * rows * 8)
    x, weights, g = draw(2, height, width, 16, 24)
    cut = mlp_tiling.tile(x)
    assert (cut.images, cut.rows) == (1, rows)
    assert cut.chunks > 1
    assert_kernels_agree(x, weights, g, True, 1e-5)


def test_eight_devices_compute_what_one_does(kernels_called):
    called = kernels_called("depthwise_mlp", "fused_mlp")
    x, weights, g = draw(16, 7, 5, 16, 24)
    function = partial(ops.depthwise_mlp, shortcut=True)
    expected = with_gradients(function, x, weights, g)
    assert set(called) == {x.shape}
    called.clear()
    with jax.set_mesh(make_mesh(4, 2, 1, devices=jax.devices())):
        found = with_gradients(function, x, weights, g)
    assert set(called) == {(2, *x.shape[1:])}
    assert_agree(expected, found, 1e-5)


def test_hidden_channels_on_several_devices_or_dropped_take_no_kernel(kernels_called):
    called = kernels_called("depthwise_mlp", "fused_mlp")
    x, weights, g = draw(4, 3, 5, 8, 16)
    function = partial(ops.depthwise_mlp, shortcut=True)
    with jax.set_mesh(make_mesh(4, 1, 2, devices=jax.devices())):
        split = with_gradients(function, x, weights, g)
    kept = function(x, weights, drop=lambda hidden: hidden)
    nothing = function(x, weights, drop=jnp.zeros_like)
    assert not called
    np.testing.assert_allclose(kept, split[0], atol=1e-5)
    np.testing.assert_allclose(nothing, jnp.broadcast_to(weights.bias2, x.shape), atol=1e-6)


def test_sizes_that_the_kernels_do_not_take():
    x, weights, _ = draw(1, 2, 2, 6, 8)
    assert fits(x, weights)
    assert not fits(x.astype(jnp.float16), weights)
    assert not fits(x.astype(jnp.bfloat16), weights._replace(kernel1=jnp.zeros((512, 2048))))


CODE = """
import jax, jax.numpy as jnp
from paca_jax import ops
from paca_jax.planning.topology import compile_only_devices, parse_topology, prepare_environment
from paca_jax.sharding import make_mesh

prepare_environment()
mesh = make_mesh(devices=compile_only_devices(parse_topology("v5e:1x1")))
place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

def loss(x, weights):
    return jnp.sum(ops.depthwise_mlp(x, weights, True))

for height, width, channels, hidden in ((7, 7, 20, 136), (36, 56, 40, 128)):
    shapes = ((channels, hidden), (hidden,), (3, 3, 1, hidden), (hidden,), (hidden, channels), (channels,))
    weights = ops.MlpWeights(*(jax.ShapeDtypeStruct(shape, "float32", sharding=place) for shape in shapes))
    x = jax.ShapeDtypeStruct((2, height, width, channels), "bfloat16", sharding=place)
    with jax.set_mesh(mesh):
        text = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(x, weights).compile().as_text()
    print(text.count('custom_call_target="tpu_custom_call"'), "convolution(" in text)
"""


@pytest.mark.slow
@needs_libtpu
def test_a_tpu_runs_the_two_kernels_and_no_convolution():
    done = run_for_tpus(CODE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["2 False", "2 False"]
