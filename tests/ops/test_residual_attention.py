"""The kernels, interpreted, against the same attention operation by operation; and who takes which."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paca_jax import ops
from paca_jax.ops.attention import tpu_tiling as attention_tiling
from paca_jax.ops.attention.tpu import fits, fused_attention
from paca_jax.ops.pallas import patches as patch_tiling
from paca_jax.sharding import make_mesh
from tests.planning.test_plan import needs_libtpu
from tests.runs import run_for_tpus


def draw(images, patches, clusters, channels, dtype=jnp.float32):
    """Returns patches, the parameters of a branch, shares of which one is zero, and a gradient.

    The parameters: of the norm, the assignment to clusters (none: plain attention), of clusters and of attention.
    """
    keys = iter(jax.random.split(jax.random.key(patches), 17))
    normal = lambda *shape: jax.random.normal(next(keys), shape)  # noqa: E731
    weights = ops.AttentionWeights(*(normal(*shape) * channels**-0.5 for shape in [(channels, channels), (channels,)] * 4))
    norm, cluster_norm = (ops.NormWeights(1 + 0.2 * normal(channels), normal(channels)) for _ in range(2))
    x, g = (normal(images, patches, channels).astype(dtype) for _ in range(2))
    share = jax.random.uniform(next(keys), (images,)).at[0].set(0.0)
    assignment, cluster_weights = None, ops.ClusterWeights()
    if clusters:
        assignment = ops.assign_patches(2 * normal(images, patches, clusters)).astype(dtype)
        cluster_weights = ops.ClusterWeights(normal(clusters, channels), cluster_norm)
    return x + 0.5, (norm, assignment, cluster_weights, weights), share, g


def residual_attention(x, parameters, share, num_heads, **options):
    norm, *rest = parameters
    return ops.residual_attention(x, *rest, num_heads, ops.Residual(norm, share), **options)


def with_gradients(function, x, parameters, share, g):
    def both(x, parameters):
        y, pull = jax.vjp(partial(function, share=share), x, parameters)
        return y, *pull(g.astype(y.dtype))

    return jax.jit(both)(x, parameters)


def assert_agree(expected, found, tolerance):
    # A bias of keys changes no softmax: its gradient is zero, and what comes of it is rounding at the keys' scale.
    y, x, (*rest, weights) = jax.tree.map(lambda array: float(jnp.max(jnp.abs(array))), expected)
    scales = y, x, (*rest, weights._replace(key_bias=weights.key))
    for a, b, scale in zip(*map(jax.tree.leaves, (expected, found, scales)), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(np.asarray(b, np.float32), a, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize(
    ("images", "patches", "clusters", "channels", "heads", "dtype", "tolerance"),
    [
        (3, 5, 3, 6, 1, jnp.float32, 1e-5),
        (2, 7, 49, 14, 2, jnp.float32, 1e-5),
        (2, 49, 100, 35, 5, jnp.float32, 1e-5),
        (4, 65, 130, 24, 2, jnp.float32, 1e-5),
        (2, 15, 0, 24, 2, jnp.float32, 1e-5),
        (2, 49, 100, 35, 5, jnp.bfloat16, 2e-2),
        (4, 65, 130, 24, 2, jnp.bfloat16, 2e-2),
        (2, 15, 0, 24, 2, jnp.bfloat16, 2e-2),
    ],
)
def test_kernels_compute_what_the_operations_do(images, patches, clusters, channels, heads, dtype, tolerance, kernels_called):
    x, parameters, share, g = draw(images, patches, clusters, channels, dtype)
    function = partial(residual_attention, num_heads=heads)
    wide = jax.tree.map(lambda array: array.astype(jnp.float32), parameters)
    expected = with_gradients(function, x.astype(jnp.float32), wide, share, g)
    called = kernels_called("residual_attention", "fused_attention")
    found = with_gradients(function, x, parameters, share, g)
    assert called
    assert found[0].dtype == found[1].dtype == dtype
    assert found[2][-1].query.dtype == jnp.float32
    assert_agree(expected, found, tolerance)


def test_tiles_of_an_image_add_up(monkeypatch, kernels_called):
    drawn = draw(2, 200, 49, 40)
    function = partial(residual_attention, num_heads=1)
    expected = with_gradients(function, *drawn)
    for module in (attention_tiling, patch_tiling):
        monkeypatch.setattr(module, "MEMORY", 3 * 2**19)
    tiling = attention_tiling.tile(2, 200, 49, 40, 1, 48, 4)
    assert tiling.tiles > 1
    assert tiling.tiles * tiling.patches > 200  # the last one is filled in part
    assert patch_tiling.tile_patches(drawn[0], 49).tiles > 1
    kernels_called("residual_attention", "fused_attention")
    assert_agree(expected, with_gradients(function, *drawn), 1e-5)


@pytest.mark.parametrize("patches", [2, 49, 196, 784, 3136, 16384, 262144])
@pytest.mark.parametrize(("channels", "heads"), [(96, 2), (192, 4), (320, 8), (384, 16)])
def test_tiles_cover_every_patch_once(patches, channels, heads):
    head_rows = attention_tiling.round_up(channels // heads, 16)
    tiling = attention_tiling.tile(12, patches, 100, channels, heads, head_rows, 2)
    assert (tiling.tiles - 1) * tiling.patches < patches <= tiling.tiles * tiling.patches
    assert tiling.tiles == 1 or (tiling.images == 1 and tiling.patches % 16 == 0)
    assert 12 % tiling.images == 0


def test_sizes_that_the_kernels_do_not_take():
    x, (norm, assignment, clusters, weights), share, _ = draw(1, 4, 3, 6)
    assert fits(x, assignment, 1)
    assert fits(x, None, 1)
    assert not fits(x[:, :1], assignment[:, :, :1], 1)
    assert not fits(x, assignment[:, :1], 1)
    assert not fits(x.astype(jnp.float16), assignment, 1)
    assert not fits(x, jnp.zeros((1, 20000, 4)), 1)
    wide = jnp.zeros((1, 4, 4096))
    assert not fits(wide, assignment, 1)
    with pytest.raises(ValueError, match="No kernels fit"):
        fused_attention(wide, assignment, share, norm, clusters, weights, 1)
    with pytest.raises(ValueError, match="No kernels fit"):
        fused_attention(x, assignment, share, norm, ops.ClusterWeights(), weights, 1)


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 4, 1)])
def test_eight_devices_compute_what_one_does(sizes, kernels_called):
    called = kernels_called("residual_attention", "fused_attention")
    x, *rest = draw(16, 9 + sizes[1], 5, 12)
    function = partial(residual_attention, num_heads=3)
    expected = with_gradients(function, x, *rest)
    assert set(called) == {x.shape}
    called.clear()
    with jax.set_mesh(make_mesh(*sizes, devices=jax.devices())):
        found = with_gradients(function, x, *rest)
    assert set(called) == {(2, *x.shape[1:])}
    assert_agree(expected, found, 1e-5)


def test_heads_on_several_devices_and_dropped_weights_take_no_kernel(kernels_called):
    called = kernels_called("residual_attention", "fused_attention")
    x, parameters, share, g = draw(4, 15, 6, 8)
    function = partial(residual_attention, num_heads=2)
    with jax.set_mesh(make_mesh(4, 1, 2, devices=jax.devices())):
        whole = with_gradients(function, x, parameters, share, g)
    kept = function(x, parameters, share, drop=lambda shares: shares)
    nothing = function(x, parameters, share, drop=jnp.zeros_like)
    assert not called
    np.testing.assert_allclose(kept, whole[0], atol=1e-5)
    np.testing.assert_allclose(nothing, x + share[:, None, None] * parameters[-1].out_bias, atol=1e-5)


def test_clusters_without_norm_and_a_branch_with_more_around_the_attention_take_no_kernel(kernels_called):
    called = kernels_called("residual_attention", "fused_attention")
    x, (norm, assignment, clusters, weights), _, _ = draw(2, 15, 6, 8)

    def branch(clusters, residual):
        return ops.residual_attention(x, assignment, clusters, weights, 2, residual) - x

    plain = branch(clusters, ops.Residual(norm))
    assert called
    called.clear()
    np.testing.assert_allclose(branch(clusters, ops.Residual(norm, after=(lambda y: 2 * y,))), 2 * plain, atol=1e-5)
    bare = branch(ops.ClusterWeights(), ops.Residual(norm))
    assert not called
    assert float(jnp.max(jnp.abs(bare - plain))) > 0.1


CODE = """
import jax, jax.numpy as jnp
from paca_jax import ops
from paca_jax.planning.topology import compile_only_devices, parse_topology, prepare_environment
from paca_jax.sharding import batch_sharding, make_mesh

prepare_environment()
mesh = make_mesh(2, 2, devices=compile_only_devices(parse_topology("v5e:2x2")))
split, whole = batch_sharding(mesh), jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
x = jax.ShapeDtypeStruct((8, 196, 80), "bfloat16", sharding=split)
assignment = jax.ShapeDtypeStruct((8, 100, 196), "bfloat16", sharding=split)
shapes = [(80, 80), (80,)] * 4
weights = ops.AttentionWeights(*(jax.ShapeDtypeStruct(shape, "float32", sharding=whole) for shape in shapes))

norm = ops.NormWeights(weights.out_bias, weights.out_bias)

def loss(x, assignment, norm, weights):
    clusters = ops.ClusterWeights(norm=norm)
    return jnp.sum(ops.residual_attention(x, assignment, clusters, weights, 2, ops.Residual(norm)) ** 2)

def step(*arguments):
    return jax.grad(loss, (0, 1, 2, 3))(*arguments)

with jax.set_mesh(mesh):
    text = jax.jit(step).trace(x, assignment, norm, weights).lower(lowering_platforms=("tpu",)).compile().as_text()
print(text.count("tpu_custom_call"), text.count("all-reduce("), "[2,2,196,100]" in text)
"""


@pytest.mark.slow
@needs_libtpu
def test_a_tpu_runs_four_kernels_and_adds_up_gradients_over_chips():
    done = run_for_tpus(CODE)
    assert done.returncode == 0, done.stderr
    kernels, sums, scores = done.stdout.split()
    assert (kernels, scores) == ("4", "False")
    assert int(sums) >= 1
