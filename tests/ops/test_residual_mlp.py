"""The kernels, interpreted, against the reference; and which arrays take them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paca_jax import ops
from paca_jax.ops.mlp import tpu_tiling as mlp_tiling
from paca_jax.ops.mlp.tpu import refusal
from paca_jax.sharding import make_mesh
from tests.ops.agreement import assert_agree, images_at_kernels, interpreted_on_a_tpu
from tests.runs import needs_libtpu, run_for_tpus


def draw(batch, height, width, channels, hidden, dtype=jnp.float32):
    """Returns maps, the parameters of norm and MLP, drop-path scales of which one is zero, and a gradient of the output."""
    keys = jax.random.split(jax.random.key(height), 11)
    shapes = ops.MlpWeights((channels, hidden), (hidden,), (3, 3, 1, hidden), (hidden,), (hidden, channels), (channels,))
    scales = ops.MlpWeights(channels**-0.5, 0.5, 0.5, 0.5, hidden**-0.5, 0.5)
    weights = [s * jax.random.normal(key, shape) for key, shape, s in zip(keys, shapes, scales, strict=False)]
    x, g = (jax.random.normal(key, (batch, height, width, channels)).astype(dtype) for key in keys[6:8])
    norm = ops.NormWeights(*(jax.random.normal(key, (channels,)) for key in keys[8:10]))
    scale = jax.random.uniform(keys[10], (batch,)).at[0].set(0.0)
    return x + 0.5, (norm, ops.MlpWeights(*weights)), scale, g


def residual_mlp(x, parameters, drop_path_scale, shortcut=True, **options):
    norm, weights = parameters
    return ops.residual_mlp(x, weights, shortcut, ops.Residual(norm, drop_path_scale), **options)


def both(x, parameters, drop_path_scale, g, **options):
    y, pull = jax.vjp(partial(residual_mlp, drop_path_scale=drop_path_scale, **options), x, parameters)
    return y, *pull(g.astype(y.dtype))


def with_gradients(*drawn, **options):
    with jax.default_matmul_precision("highest"):
        return jax.jit(partial(both, **options))(*drawn)


def assert_kernels_agree(x, *rest, shortcut, tolerance, interpreted=None):
    expected = with_gradients(x.astype(jnp.float32), *rest, shortcut=shortcut, implementation="xla")
    with interpreted or ops.interpret_kernels(True):
        found = jax.block_until_ready(with_gradients(x, *rest, shortcut=shortcut, implementation="pallas_tpu"))
    assert found[0].dtype == found[1].dtype == x.dtype
    assert all(gradient.dtype == jnp.float32 for gradient in jax.tree.leaves(found[2]))
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
def test_kernels_compute_what_the_reference_does(size, shortcut):
    assert_kernels_agree(*draw(*size), shortcut=shortcut, tolerance=1e-5)


@pytest.mark.parametrize(("cores", "size"), [(1, (2, 5, 7, 12, 20)), (2, (2, 6, 8, 12, 20)), (2, (3, 5, 7, 12, 20))], ids=str)
def test_kernels_read_only_memory_that_they_wrote(cores, size, monkeypatch):
    monkeypatch.setattr(mlp_tiling, "_SMALL_STEP_PATCHES", 16)  # an image a step
    drawn = draw(*size)
    assert_kernels_agree(*drawn, shortcut=True, tolerance=1e-5, interpreted=interpreted_on_a_tpu(cores))


def test_kernels_compute_in_bfloat16_what_the_reference_does_in_float32():
    assert_kernels_agree(*draw(3, 7, 7, 24, 136, jnp.bfloat16), shortcut=True, tolerance=2e-2)


@pytest.mark.parametrize(("height", "width", "rows"), [(11, 9, 4), (4, 60, 2)])
def test_steps_of_a_large_image_see_the_rows_of_their_neighbors(height, width, rows, monkeypatch):
    monkeypatch.setattr(mlp_tiling, "_LARGE_STEP_PATCHES", 2 * rows * 8)
    x, *rest = draw(2, height, width, 16, 24)
    cut = next(mlp_tiling.mlp_tilings(x))
    assert (cut.images, cut.rows) == (1, rows)
    assert cut.chunks > 1
    assert_kernels_agree(x, *rest, shortcut=True, tolerance=1e-5)


def test_eight_devices_compute_what_one_does():
    x, *rest = draw(16, 7, 5, 16, 24)
    with ops.interpret_kernels(True):
        expected = with_gradients(x, *rest)
        assert set(images_at_kernels(both, x, *rest)) == {16}
        with jax.set_mesh(make_mesh(4, 2, 1, devices=jax.devices())):
            found = with_gradients(x, *rest)
            assert set(images_at_kernels(both, x, *rest)) == {2}
    assert_agree(expected, found, 1e-5)


def chosen(function, *arguments, **options):
    """Returns a function's result, and the implementation of its MLP."""
    with ops.interpret_kernels(True), ops.record_choices() as choices:
        result = function(*arguments, **options)
    return result, *(choice.implementation for choice in choices if choice.operation == "mlp")


def test_hidden_channels_on_several_devices_or_dropped_take_no_kernel():
    x, parameters, scale, g = draw(4, 3, 5, 8, 16)
    with jax.set_mesh(make_mesh(4, 1, 2, devices=jax.devices())):
        split, split_by = chosen(with_gradients, x, parameters, scale, g)
    kept, kept_by = chosen(residual_mlp, x, parameters, scale, drop=lambda hidden: hidden)
    nothing, nothing_by = chosen(residual_mlp, x, parameters, scale, drop=jnp.zeros_like)
    assert {split_by, kept_by, nothing_by} == {"xla"}
    np.testing.assert_allclose(kept, split[0], atol=1e-5)
    np.testing.assert_allclose(nothing, x + scale[:, None, None, None] * parameters[1].bias2, atol=1e-5)


def test_a_branch_with_more_around_the_mlp_takes_no_kernel():
    x, (norm, weights), _, _ = draw(2, 3, 5, 8, 16)
    whole, whole_by = chosen(ops.residual_mlp, x, weights, True, ops.Residual(norm))
    doubled, doubled_by = chosen(ops.residual_mlp, x, weights, True, ops.Residual(norm, after=(lambda y: 2 * y,)))
    normal = ops.layer_norm(x, norm)
    normalized_outside, outside_by = chosen(ops.residual_mlp, normal, weights, True, ops.Residual())
    assert (whole_by, doubled_by, outside_by) == ("pallas_tpu", "xla", "xla")
    branch = whole - x
    np.testing.assert_allclose(doubled, x + 2 * branch, atol=1e-5)
    np.testing.assert_allclose(normalized_outside, normal + branch, atol=1e-5)


def test_sizes_that_the_kernels_do_not_take():
    x, (_, weights), _, _ = draw(1, 2, 2, 6, 8)
    assert refusal(x, weights) is None
    assert refusal(x.astype(jnp.float16), weights) is not None
    wide = jnp.zeros((1, 2, 2, 1024), jnp.bfloat16)
    assert "vector memory" in refusal(wide, weights._replace(kernel1=jnp.zeros((1024, 4096))))


CODE = """
import jax, jax.numpy as jnp
from paca_jax import ops
from tests.ops.agreement import gradient_on_a_tpu

def loss(x, norm, weights):
    return jnp.sum(ops.residual_mlp(x, weights, True, ops.Residual(norm)))

for height, width, channels, hidden in ((7, 7, 20, 136), (36, 56, 40, 128)):
    shapes = ((channels, hidden), (hidden,), (3, 3, 1, hidden), (hidden,), (hidden, channels), (channels,))
    weights = ops.MlpWeights(*(jax.ShapeDtypeStruct(shape, "float32") for shape in shapes))
    norm = ops.NormWeights(weights.bias2, weights.bias2)
    x = jax.ShapeDtypeStruct((2, height, width, channels), "bfloat16")
    text = gradient_on_a_tpu(loss, x, norm, weights)
    print(text.count('custom_call_target="tpu_custom_call"'), "convolution(" in text)
"""


@pytest.mark.slow
@needs_libtpu
def test_a_tpu_runs_the_two_kernels_and_no_convolution():
    assert run_for_tpus(CODE).splitlines() == ["2 False", "2 False"]
