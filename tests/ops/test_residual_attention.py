"""The kernels, interpreted, against the reference; and which arrays take them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paca_jax import ops
from paca_jax.ops.attention import tpu_tiling as attention_tiling
from paca_jax.ops.attention.tpu import fit, fused_attention, refusal
from paca_jax.ops.attention.tpu_backward import backward_kernel
from paca_jax.ops.attention.tpu_forward import forward_kernel
from paca_jax.ops.attention.tpu_steps import AttentionShape
from paca_jax.ops.pallas import cores
from paca_jax.ops.pallas import patches as patch_tiling
from paca_jax.ops.pallas.cores import Core
from paca_jax.sharding import make_mesh
from tests.ops.agreement import images_at_kernels, interpreted_on_a_tpu
from tests.runs import needs_libtpu, run_for_tpus


def draw(images, patches, clusters, channels, dtype=jnp.float32):
    """Returns patches, the parameters of a branch, drop-path scales of which one is zero, and a gradient.

    The parameters: of the norm, the assignment to clusters (none: plain attention), of clusters and of attention.
    """
    keys = iter(jax.random.split(jax.random.key(patches), 17))
    normal = lambda *shape: jax.random.normal(next(keys), shape)  # noqa: E731
    weights = ops.AttentionWeights(*(normal(*shape) * channels**-0.5 for shape in [(channels, channels), (channels,)] * 4))
    norm, cluster_norm = (ops.NormWeights(1 + 0.2 * normal(channels), normal(channels)) for _ in range(2))
    x, g = (normal(images, patches, channels).astype(dtype) for _ in range(2))
    scale = jax.random.uniform(next(keys), (images,)).at[0].set(0.0)
    assignment, cluster_weights = None, ops.ClusterWeights()
    if clusters:
        assignment = ops.assign_patches(2 * normal(images, patches, clusters)).astype(dtype)
        cluster_weights = ops.ClusterWeights(normal(clusters, channels), cluster_norm)
    return x + 0.5, (norm, assignment, cluster_weights, weights), scale, g


def residual_attention(x, parameters, drop_path_scale, num_heads, **options):
    norm, *rest = parameters
    return ops.residual_attention(x, *rest, num_heads, ops.Residual(norm, drop_path_scale), **options)


def both(x, parameters, drop_path_scale, g, **options):
    y, pull = jax.vjp(partial(residual_attention, drop_path_scale=drop_path_scale, **options), x, parameters)
    return y, *pull(g.astype(y.dtype))


def with_gradients(*drawn, **options):
    return jax.jit(partial(both, **options))(*drawn)


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
def test_kernels_compute_what_the_reference_does(images, patches, clusters, channels, heads, dtype, tolerance):
    x, parameters, *rest = draw(images, patches, clusters, channels, dtype)
    wide = jax.tree.map(lambda array: array.astype(jnp.float32), parameters)
    expected = with_gradients(x.astype(jnp.float32), wide, *rest, num_heads=heads, implementation="xla")
    with interpreted_on_a_tpu(cores=images % 2 + 1) if patches < 10 else ops.interpret_kernels(True):
        found = jax.block_until_ready(with_gradients(x, parameters, *rest, num_heads=heads, implementation="pallas_tpu"))
    assert found[0].dtype == found[1].dtype == dtype
    assert found[2][-1].query.dtype == jnp.float32
    assert_agree(expected, found, tolerance)


@pytest.mark.parametrize("count", [1, 2])
def test_tiles_of_an_image_add_up(count, monkeypatch):
    drawn = draw(2, 200, 49, 40)
    expected = with_gradients(*drawn, num_heads=1)
    monkeypatch.setattr(attention_tiling, "_STEP_BYTES", 3 * 2**19)
    monkeypatch.setattr(patch_tiling, "_STEP_BYTES", 9 * 2**17)
    tiling = next(attention_tiling.attention_tilings(AttentionShape(2, 200, 49, 40, 1, jnp.float32)))
    assert tiling.tiles > 1
    assert tiling.tiles * tiling.patches > 200  # the last one is filled in part
    assert next(patch_tiling.patch_tilings(2, 200, 40, jnp.float32, 49)).tiles > 1
    with interpreted_on_a_tpu(count):
        found = jax.block_until_ready(with_gradients(*drawn, num_heads=1, implementation="pallas_tpu"))
    assert_agree(expected, found, 1e-5)


@pytest.mark.parametrize("clusters", [49, 0])
def test_heads_are_taken_in_groups_where_memory_is_short(clusters, monkeypatch):
    drawn = draw(2, 200, clusters, 32)
    expected = with_gradients(*drawn, num_heads=8)
    shape = AttentionShape(2, 200, clusters or 200, 32, 8, jnp.float32)
    *_, smallest = attention_tiling.attention_tilings(shape)
    memory = max(kernel(shape, smallest).memory for kernel in (forward_kernel, backward_kernel))
    monkeypatch.setattr(cores, "_INTERPRETED_MEMORY", memory)
    found = fit(shape, Core(memory), gathers=bool(clusters)).attention.found()
    assert found.heads < 8
    assert found.tiles > 1
    with ops.interpret_kernels(True):
        assert_agree(expected, with_gradients(*drawn, num_heads=8, implementation="pallas_tpu"), 1e-5)


@pytest.mark.parametrize("patches", [2, 49, 196, 784, 3136, 16384, 262144])
@pytest.mark.parametrize(("channels", "heads"), [(96, 2), (192, 4), (320, 8), (384, 16)])
def test_tiles_cover_every_patch_once(patches, channels, heads):
    for tiling in attention_tiling.attention_tilings(AttentionShape(12, patches, 100, channels, heads, jnp.bfloat16)):
        assert (tiling.tiles - 1) * tiling.patches < patches <= tiling.tiles * tiling.patches
        assert tiling.tiles == 1 or (tiling.images == 1 and tiling.patches % 16 == 0)
        assert 12 % tiling.images == 0


def test_sizes_that_the_kernels_do_not_take():
    x, (norm, assignment, clusters, weights), share, _ = draw(1, 4, 3, 6)
    assert refusal(x, assignment, 1) is None
    assert refusal(x, None, 1) is None
    assert refusal(x[:, :1], assignment[:, :, :1], 1) is not None
    assert refusal(x, assignment[:, :1], 1) is not None
    assert refusal(x.astype(jnp.float16), assignment, 1) is not None
    assert refusal(x, jnp.zeros((1, 20000, 4)), 1) is not None
    wide = jnp.zeros((1, 4, 4096))
    assert refusal(wide, assignment, 1) is not None
    with pytest.raises(ValueError, match="do not fit: its kernel cluster_attention_backward needs"):
        fused_attention(wide, assignment, share, norm, clusters, weights, 1, Core(2**24))
    with pytest.raises(ValueError, match="clusters with a norm"):
        fused_attention(x, assignment, share, norm, ops.ClusterWeights(), weights, 1, Core(2**24))


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 4, 1)])
def test_eight_devices_compute_what_one_does(sizes):
    drawn = draw(16, 9 + sizes[1], 5, 12)
    function = partial(both, num_heads=3)
    with ops.interpret_kernels(True):
        expected = with_gradients(*drawn, num_heads=3)
        assert set(images_at_kernels(function, *drawn)) == {16}
        with jax.set_mesh(make_mesh(*sizes, devices=jax.devices())):
            found = with_gradients(*drawn, num_heads=3)
            assert set(images_at_kernels(function, *drawn)) == {2}
    assert_agree(expected, found, 1e-5)


def chosen(function, *arguments, **options):
    """Returns a function's result, and the implementation of its attention."""
    with ops.interpret_kernels(True), ops.record_choices() as choices:
        result = function(*arguments, **options)
    return result, *(choice.implementation for choice in choices if choice.operation == "attention")


def test_heads_on_several_devices_and_dropped_weights_take_no_kernel():
    x, parameters, scale, g = draw(4, 15, 6, 8)
    with jax.set_mesh(make_mesh(4, 1, 2, devices=jax.devices())):
        whole, whole_by = chosen(with_gradients, x, parameters, scale, g, num_heads=2)
    kept, kept_by = chosen(residual_attention, x, parameters, scale, num_heads=2, drop=lambda weights: weights)
    nothing, nothing_by = chosen(residual_attention, x, parameters, scale, num_heads=2, drop=jnp.zeros_like)
    assert {whole_by, kept_by, nothing_by} == {"xla"}
    np.testing.assert_allclose(kept, whole[0], atol=1e-5)
    np.testing.assert_allclose(nothing, x + scale[:, None, None] * parameters[-1].out_bias, atol=1e-5)


def test_clusters_without_norm_and_a_branch_with_more_around_the_attention_take_no_kernel():
    x, (norm, assignment, clusters, weights), _, _ = draw(2, 15, 6, 8)

    def branch(clusters, residual):
        y, by = chosen(ops.residual_attention, x, assignment, clusters, weights, 2, residual)
        return y - x, by

    plain, plain_by = branch(clusters, ops.Residual(norm))
    doubled, doubled_by = branch(clusters, ops.Residual(norm, after=(lambda y: 2 * y,)))
    bare, bare_by = branch(ops.ClusterWeights(), ops.Residual(norm))
    assert (plain_by, doubled_by, bare_by) == ("pallas_tpu", "xla", "xla")
    np.testing.assert_allclose(doubled, 2 * plain, atol=1e-5)
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
    kernels, sums, scores = run_for_tpus(CODE).split()
    assert (kernels, scores) == ("4", "False")
    assert int(sums) >= 1
