"""The kernels, interpreted, against the same attention operation by operation; and who takes which."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paca_jax import ops
from paca_jax.ops.kernels import attention_tiling
from paca_jax.ops.kernels.attention import fits, fused_cluster_attention
from paca_jax.sharding import make_mesh
from tests.planning.test_plan import needs_libtpu
from tests.runs import run_for_tpus


def draw(images, patches, clusters, channels, dtype=jnp.float32):
    """Returns patches, clusters, weights whose scores spread widely, and a gradient of the output."""
    keys = iter(jax.random.split(jax.random.key(patches), 11))
    shapes = [(channels, channels), (channels,)] * 4
    weights = [jax.random.normal(next(keys), shape) * shape[0] ** -0.5 for shape in shapes]
    x, z, g = (
        jax.random.normal(next(keys), (images, tokens, channels)).astype(dtype) for tokens in (patches, clusters, patches)
    )
    return x, z, ops.AttentionWeights(*weights)._replace(query=2 * weights[0]), g


def with_gradients(function, x, z, weights, g):
    def both(x, z, weights):
        out, pull = jax.vjp(function, x, z, weights)
        return out, *pull(g.astype(out.dtype))

    return jax.jit(both)(x, z, weights)


def assert_agree(expected, found, tolerance):
    # A bias of keys changes no softmax: its gradient is zero, and what comes of it is rounding at the keys' scale.
    largest = jax.tree.map(lambda array: float(jnp.max(jnp.abs(array))), expected)
    largest = (*largest[:3], largest[3]._replace(key_bias=largest[3].key))
    for a, b, scale in zip(*map(jax.tree.leaves, (expected, found, largest)), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(np.asarray(b, np.float32), a, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)])
@pytest.mark.parametrize(
    ("images", "patches", "clusters", "channels", "heads"),
    [(3, 1, 2, 6, 1), (2, 7, 49, 14, 2), (2, 49, 100, 35, 5), (4, 65, 130, 24, 2)],
)
def test_kernels_compute_what_the_operations_do(images, patches, clusters, channels, heads, dtype, tolerance):
    x, z, weights, g = draw(images, patches, clusters, channels, dtype)
    plain = partial(ops.cluster_attention, num_heads=heads)
    expected = with_gradients(plain, x.astype(jnp.float32), z.astype(jnp.float32), weights, g)
    kernels = partial(fused_cluster_attention, num_heads=heads, interpret=True)
    found = with_gradients(kernels, x, z, weights, g)
    assert found[0].dtype == found[1].dtype == found[2].dtype == dtype
    assert found[3].query.dtype == jnp.float32
    assert_agree(expected, found, tolerance)


def test_tiles_of_an_image_add_up(monkeypatch):
    x, z, weights, g = draw(2, 200, 49, 40)
    expected = with_gradients(partial(ops.cluster_attention, num_heads=1), x, z, weights, g)
    monkeypatch.setattr(attention_tiling, "MEMORY", 2**20)
    tiling = attention_tiling.tile(2, 200, 49, 40, 1, 48, 4)
    assert tiling.tiles > 1
    assert tiling.tiles * tiling.patches > 200  # the last one is filled in part
    kernels = partial(fused_cluster_attention, num_heads=1, interpret=True)
    assert_agree(expected, with_gradients(kernels, x, z, weights, g), 1e-5)


@pytest.mark.parametrize("patches", [2, 49, 196, 784, 3136, 16384, 262144])
@pytest.mark.parametrize(("channels", "heads"), [(96, 2), (192, 4), (320, 8), (384, 16)])
def test_tiles_cover_every_patch_once(patches, channels, heads):
    head_rows = attention_tiling.round_up(channels // heads, 16)
    tiling = attention_tiling.tile(12, patches, 100, channels, heads, head_rows, 2)
    assert (tiling.tiles - 1) * tiling.patches < patches <= tiling.tiles * tiling.patches
    assert tiling.tiles == 1 or (tiling.images == 1 and tiling.patches % 16 == 0)
    assert 12 % tiling.images == 0


def test_sizes_that_the_kernels_do_not_take():
    x, z, weights, _ = draw(1, 4, 3, 6)
    assert fits(x, z, 1)
    assert not fits(x[:, :1], z, 1)
    assert not fits(x, z[:, :1], 1)
    assert not fits(x.astype(jnp.float16), z, 1)
    wide = jnp.zeros((1, 4, 4096))
    assert not fits(wide, wide, 1)
    with pytest.raises(ValueError, match="No tiling fits"):
        fused_cluster_attention(wide, wide, weights, 1)


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 4, 1)])
def test_eight_devices_compute_what_one_does(sizes, kernels_called):
    called = kernels_called("cluster_attention", "fused_cluster_attention")
    x, z, weights, g = draw(16, 9 + sizes[1], 5, 12)
    function = partial(ops.cluster_attention, num_heads=3)
    expected = with_gradients(function, x, z, weights, g)
    assert set(called) == {x.shape}
    called.clear()
    with jax.set_mesh(make_mesh(*sizes, devices=jax.devices())):
        found = with_gradients(function, x, z, weights, g)
    assert set(called) == {(2, *x.shape[1:])}
    assert_agree(expected, found, 1e-5)


def test_heads_on_several_devices_and_dropped_weights_take_no_kernel(kernels_called):
    called = kernels_called("cluster_attention", "fused_cluster_attention")
    x, z, weights, g = draw(4, 15, 6, 8)
    function = partial(ops.cluster_attention, num_heads=2)
    with jax.set_mesh(make_mesh(4, 1, 2, devices=jax.devices())):
        whole = with_gradients(function, x, z, weights, g)
    kept = function(x, z, weights, drop=lambda shares: shares)
    nothing = function(x, z, weights, drop=jnp.zeros_like)
    assert not called
    np.testing.assert_allclose(kept, whole[0], atol=1e-5)
    np.testing.assert_allclose(nothing, jnp.broadcast_to(weights.out_bias, x.shape), atol=1e-6)


CODE = """
import jax, jax.numpy as jnp
from paca_jax import ops
from paca_jax.planning.topology import compile_only_devices, parse_topology, prepare_environment
from paca_jax.sharding import batch_sharding, make_mesh

prepare_environment()
mesh = make_mesh(2, 2, devices=compile_only_devices(parse_topology("v5e:2x2")))
split, whole = batch_sharding(mesh), jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
x, z = (jax.ShapeDtypeStruct((8, tokens, 80), "bfloat16", sharding=split) for tokens in (196, 100))
shapes = [(80, 80), (80,)] * 4
weights = ops.AttentionWeights(*(jax.ShapeDtypeStruct(shape, "float32", sharding=whole) for shape in shapes))

def step(x, z, weights):
    return jax.grad(lambda *a: jnp.sum(ops.cluster_attention(*a, 2) ** 2), (0, 1, 2))(x, z, weights)

with jax.set_mesh(mesh):
    text = jax.jit(step).trace(x, z, weights).lower(lowering_platforms=("tpu",)).compile().as_text()
print(text.count("tpu_custom_call"), text.count("all-reduce("), "[2,2,196,100]" in text)
"""


@pytest.mark.slow
@needs_libtpu
def test_a_tpu_runs_two_kernels_and_adds_up_gradients_over_chips():
    done = run_for_tpus(CODE)
    assert done.returncode == 0, done.stderr
    kernels, sums, scores = done.stdout.split()
    assert (kernels, scores) == ("2", "False")
    assert int(sums) >= 1
