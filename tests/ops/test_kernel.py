"""The vector memory of kernels: how it is counted, what a chip has of it, and that the compiler needs no more."""

import json

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from paca_jax import ops
from paca_jax.ops.pallas.blocks import Block, image_scalars, vector_bytes, whole
from paca_jax.ops.pallas.cores import target_core
from paca_jax.ops.pallas.kernel import Kernel, first_fit
from tests.ops.agreement import on_a
from tests.proof.kernels import mlp_weights
from tests.runs import needs_libtpu, run_for_tpus

MEBIBYTE = 2**20


@pytest.mark.parametrize(
    ("chip", "memory", "cores"), [("v4", 16, 2), ("v5e", 96, 1), ("v5p", 48, 2), ("v6e", 96, 1), ("tpu7x", 48, 1)]
)
def test_a_chip_has_so_much_vector_memory_and_so_many_cores(chip, memory, cores):
    with on_a(chip):
        core = target_core()
    assert (core.memory, core.count, core.interpreter) == (memory * MEBIBYTE, cores, False)


def test_a_chip_that_jax_does_not_know_is_taken_for_the_smallest():
    with on_a("TPU v99"):
        assert (target_core().memory, target_core().count) == (16 * MEBIBYTE, 1)


@pytest.mark.parametrize(
    ("shape", "dtype", "expected"),
    [
        ((8, 128), "float32", 4096),
        ((9, 129), "float32", 4 * 4096),
        ((9, 128), "bfloat16", 4096),
        ((3, 1, 1), "float32", 3 * 4096),
        ((5,), "float32", 4096),
    ],
)
def test_arrays_take_whole_registers(shape, dtype, expected):
    assert vector_bytes(shape, dtype) == expected


def kernel(rows, steps=4):
    """Returns a kernel that adds up rows, so many a step, and copies them."""
    patches = Block(
        jax.ShapeDtypeStruct((rows * steps, 128), jnp.float32), pl.BlockSpec((rows, 128), lambda image, part: (image, 0))
    )

    def body(step, scale, x, y, total, scratch):
        scratch[...] = x[...] * scale[0]
        y[...] = scratch[...]
        total[...] += scratch[...]

    return Kernel(
        name="copy",
        body=body,
        grid=(steps, 1),
        operands=[image_scalars(1), patches],
        results=[patches],
        sums=[whole((rows, 128), jnp.float32).array],
        cost=pl.CostEstimate(flops=0, transcendentals=0, bytes_accessed=0),
        scratch=[pltpu.VMEM((rows, 128), jnp.float32)],
        spilled=1000,
    )


def test_memory_counts_buffers_sums_scratch_and_spilled_values():
    small, large = kernel(8), kernel(16)
    # Two buffers of operand and result, the sum once, the scratch memory.
    assert large.memory - small.memory == (2 * 2 + 1 + 1) * 8 * 128 * 4
    assert small.memory > 6 * 8 * 128 * 4 + 1000


@pytest.mark.parametrize(("cores", "steps"), [(1, 4), (2, 4), (2, 3)])
def test_cores_add_up_what_one_does(cores, steps):
    x = jnp.arange(8.0 * steps * 128).reshape(-1, 128)
    interpreter = pltpu.InterpretParams(num_cores_or_threads=cores)
    with ops.interpret_kernels(interpreter):
        y, total = kernel(8, steps)(target_core(), jnp.full(1, 2.0), x)
    assert jnp.array_equal(y, 2 * x)
    assert jnp.allclose(total, 2 * x.reshape(steps, 8, 128).sum(0))


def test_the_first_tiling_that_fits_is_taken():
    core = target_core()
    fit = first_fit((2**20, 2**12, 8), lambda rows: [kernel(rows)], core)
    assert fit.found() == 2**12
    assert fit.refusal() is None
    none = first_fit((2**20,), lambda rows: [kernel(rows)], core)
    assert none.refusal() == "its kernel copy needs 3072.2 MiB of a core's vector memory, and 16.0 MiB are there"
    with pytest.raises(ValueError, match="do not fit: its kernel copy needs"):
        none.found()


def test_a_shape_takes_kernels_where_the_chip_has_the_memory():
    """The MLP of the base model's last stage, in float32."""
    x = jax.ShapeDtypeStruct((8, 7, 7, 512), "float32")

    def mlp(x, weights):
        return ops.residual_mlp(x, weights, True, ops.Residual(ops.NormWeights(weights.bias2, weights.bias2)))

    with on_a("v4"), ops.record_choices() as on_v4:
        jax.eval_shape(mlp, x, mlp_weights(512, 2048))
    with on_a("v5e"), ops.record_choices() as on_v5e:
        jax.eval_shape(mlp, x, mlp_weights(512, 2048))
    assert on_v4[0].implementation == "xla"
    assert "its kernel depthwise_mlp_backward needs" in on_v4[0].reason
    assert [choice.implementation for choice in on_v5e] == ["pallas_tpu"]


CODE = """
import json
import jax
from benchmarks.kernels import compile_only_chip
from paca_jax.ops.attention import tpu as attention
from paca_jax.ops.attention.tpu_steps import AttentionShape
from paca_jax.ops.clustering import tpu as clustering
from paca_jax.ops.mlp import tpu as mlp
from paca_jax.ops.pallas.cores import target_core
from paca_jax.sharding import make_mesh
from tests.proof.kernels import clustering_weights, compiles, mlp_weights

half, single = jax.numpy.dtype("bfloat16"), jax.numpy.dtype("float32")

def maps(*shape):
    *shape, dtype = shape
    return jax.ShapeDtypeStruct(shape, dtype)

def nearest(chip, core):
    if chip == "v4":
        yield mlp.fit(maps(128, 7, 7, 384, half), mlp_weights(384, 1536), core)
        yield mlp.fit(maps(64, 14, 14, 320, single), mlp_weights(320, 1280), core)
        yield clustering.fit(maps(2, 32, 32, 384, half), clustering_weights(384, 200), core)
        yield attention.fit(AttentionShape(16, 256, 256, 512, 16, half), core, gathers=False).attention
        yield attention.fit(AttentionShape(16, 256, 200, 512, 16, half), core, gathers=True).attention
        yield attention.fit(AttentionShape(2, 624, 100, 384, 8, half), core, gathers=True).attention
    else:
        yield mlp.fit(maps(16, 7, 7, 512, single), mlp_weights(512, 2048), core)
        yield attention.fit(AttentionShape(2, 25 * 42, 25 * 42, 512, 16, single), core, gathers=False).attention

errors = []
for chip, topology in (("v4", "v4:1x1x1"), ("v5e", "v5e:1x1")):
    device, _ = compile_only_chip(topology)
    with jax.set_mesh(make_mesh(devices=[device])):
        core = target_core()
        for fit in nearest(chip, core):
            backward = fit.kernels[-1]
            errors.append(fit.refusal() or compiles(backward, core, device))
print(json.dumps(errors))
"""


@pytest.mark.slow
@needs_libtpu
def test_the_compiler_needs_no_more_memory_than_is_counted():
    assert json.loads(run_for_tpus(CODE)) == [None] * 8
