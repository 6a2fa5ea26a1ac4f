"""One choice of implementation: by name, by target platform, by shape; what is recorded of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paca_jax import ops
from paca_jax.errors import UserError
from paca_jax.models import create_model
from tests import golden
from tests.ops.agreement import on_a
from tests.runs import needs_libtpu, run_for_tpus
from tests.shapes import unchecked

X, WEIGHTS = jnp.ones((2, 4, 8)), ops.NormWeights(jnp.ones(8), jnp.zeros(8))
KERNEL = jnp.ones((8, 3))
SHALLOW = {"depths": (1, 1, 1, 1)}


def choices(function, *arguments):
    with ops.record_choices() as recorded:
        jax.eval_shape(function, *arguments)
    return recorded


def test_none_takes_what_is_fastest_on_the_target_platform():
    assert [choice.implementation for choice in choices(ops.dense, X, KERNEL)] == ["xla_cpu"]
    assert [choice.implementation for choice in choices(ops.layer_norm, X, WEIGHTS)] == ["xla_cpu"]
    with on_a("v5e"):
        assert [choice.implementation for choice in choices(lambda x: ops.dense(x, KERNEL), X)] == ["xla"]
        assert [choice.implementation for choice in choices(lambda x: ops.layer_norm(x, WEIGHTS), X)] == ["pallas_tpu"]


def test_a_shape_that_kernels_do_not_take_falls_back_and_says_why():
    with on_a("v5e"), ops.in_block("stage4/block1"):
        recorded = choices(lambda x: ops.layer_norm(x, WEIGHTS), X.astype(jnp.float16))
    assert [choice[:3] for choice in recorded] == [("layer norm", "stage4/block1", "xla")]
    assert "float16" in recorded[0].reason
    assert ops.describe_choices(recorded) == [f"layer norm: xla in stage4/block1 ({recorded[0].reason})"]


def test_a_name_that_does_not_fit_raises_and_names_the_block():
    with (
        pytest.raises(UserError, match=r"layer norm in stage2/block0 .* the target platform is 'cpu'"),
        ops.in_block("stage2/block0"),
    ):
        ops.layer_norm(X, WEIGHTS, implementation="pallas_tpu")
    with pytest.raises(UserError, match="float16"), on_a("v5e"):
        jax.eval_shape(lambda x: ops.layer_norm(x, WEIGHTS, implementation="pallas_tpu"), X.astype(jnp.float16))
    with unchecked(), pytest.raises(UserError, match="of xla, xla_cpu, pallas_tpu, pallas_gpu, cudnn, got 'cuda'"):
        ops.layer_norm(X, WEIGHTS, implementation="cuda")


def test_an_operation_without_such_a_form_takes_xla_and_is_listed():
    recorded = choices(lambda x: ops.dense(x, KERNEL, implementation="pallas_tpu"), X)
    assert ops.describe_choices(recorded) == ["dense: xla (it has no 'pallas_tpu')"]


def test_argument_over_model_over_environment(monkeypatch):
    def chosen(**options):
        return choices(lambda x: ops.dense(x, KERNEL, **options), X)[0].implementation

    assert chosen() == "xla_cpu"
    monkeypatch.setenv("PACA_JAX_IMPLEMENTATION", "xla")
    assert chosen() == "xla"
    with ops.use_implementation("xla_cpu"):
        assert chosen() == "xla_cpu"
        with ops.use_implementation(None):
            assert chosen() == "xla_cpu"
        assert chosen(implementation="xla") == "xla"
    monkeypatch.setenv("PACA_JAX_IMPLEMENTATION", "tpu")
    with pytest.raises(UserError, match="got 'tpu'"):
        chosen()


def test_default_device_decides_where_there_is_no_mesh():
    with jax.default_device("cpu"):
        assert choices(ops.dense, X, KERNEL)[0].implementation == "xla_cpu"
    with jax.default_device(jax.devices("cpu")[1]):
        assert choices(ops.dense, X, KERNEL)[0].implementation == "xla_cpu"


def test_a_model_has_one_implementation_and_counts_its_blocks():
    model = create_model("pacavit_nano", implementation="xla")
    images = jnp.zeros((1, 64, 64, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    recorded = choices(model.apply, variables, images)
    assert {choice.implementation for choice in recorded} == {"xla"}
    assert "attention: xla in 6 blocks" in ops.describe_choices(recorded)
    assert choices(create_model("pacavit_nano").apply, variables, images)[0].implementation == "xla_cpu"
    for unknown in ("pallas", ""):
        with pytest.raises(UserError, match=f"got '{unknown}'"):
            create_model("pacavit_nano", implementation=unknown)


def test_pallas_tpu_needs_a_tpu_or_its_interpreter():
    model, images = create_model("pacavit_nano", **SHALLOW, implementation="pallas_tpu"), jnp.ones((1, 64, 64, 3))
    variables = golden.random_variables(create_model("pacavit_nano", **SHALLOW))
    with pytest.raises(UserError, match="the target platform is 'cpu'"):
        model.apply(variables, images)
    expected = jax.jit(create_model("pacavit_nano", **SHALLOW, implementation="xla").apply)(variables, images)
    with ops.interpret_kernels(True), ops.record_choices() as recorded:
        found = jax.jit(model.apply)(variables, images)
    assert {choice.implementation for choice in recorded if choice.operation in ("attention", "mlp", "clustering")} == {
        "pallas_tpu"
    }
    np.testing.assert_allclose(found, expected, atol=1e-5)


def cubes(x, implementation=None):
    return jnp.sum(ops.layer_norm(x, WEIGHTS, implementation) ** 3)


def test_the_reference_has_every_derivative():
    x = jax.random.normal(jax.random.key(0), X.shape)
    directions = jnp.linspace(-1, 1, X.size).reshape(X.shape)

    def f(x):
        return cubes(x, "xla")

    _, slope = jax.jvp(f, (x,), (directions,))
    np.testing.assert_allclose(slope, jnp.vdot(jax.grad(f)(x), directions), rtol=1e-4)
    _, forward_over_reverse = jax.jvp(jax.grad(f), (x,), (directions,))
    reverse_over_reverse = jax.grad(lambda x: jnp.vdot(jax.grad(f)(x), directions))(x)
    np.testing.assert_allclose(forward_over_reverse, reverse_over_reverse, rtol=1e-3, atol=1e-4)


def test_a_model_of_the_reference_has_a_forward_derivative():
    model, images = create_model("pacavit_nano", **SHALLOW, implementation="xla"), jnp.ones((1, 32, 32, 3))
    variables = golden.random_variables(model)

    def mean(images):
        return jnp.mean(model.apply(variables, images))

    _, slope = jax.jit(lambda images: jax.jvp(mean, (images,), (images,)))(images)
    np.testing.assert_allclose(slope, jnp.vdot(jax.jit(jax.grad(mean))(images), images), rtol=1e-3, atol=1e-6)


def test_kernels_have_a_first_gradient_and_say_that_they_have_no_other():
    with ops.interpret_kernels(True):
        assert jax.grad(cubes)(X).shape == X.shape
        with pytest.raises(UserError, match=r"a first derivative in reverse mode, .* the kernel layer_norm .*=.xla."):
            jax.grad(lambda x: jnp.sum(jax.grad(cubes)(x) ** 2))(X)


def test_a_program_of_kernels_is_for_a_tpu_alone():
    shape = jax.ShapeDtypeStruct(X.shape, X.dtype)
    with on_a("v5e"):
        assert jax.export.export(jax.jit(cubes), platforms=["tpu"])(shape).platforms == ("tpu",)
        with pytest.raises(UserError, match="a TPU alone, got one for cpu, tpu, which the kernel layer_norm"):
            jax.export.export(jax.jit(cubes), platforms=["cpu", "tpu"])(shape)
    reference = jax.jit(lambda x: cubes(x, "xla"))
    exported = jax.export.export(reference, platforms=["cpu", "tpu"])(shape)
    np.testing.assert_allclose(exported.call(X), cubes(X))


CODE = """
import jax, jax.numpy as jnp
from paca_jax import ops
from paca_jax.planning.topology import compile_only_devices, parse_topology, prepare_environment
from paca_jax.sharding import make_mesh

prepare_environment()
weights = ops.NormWeights(jnp.ones(128), jnp.zeros(128))
with jax.set_mesh(make_mesh(devices=compile_only_devices(parse_topology("v5e:1x1")))), ops.record_choices() as recorded:
    x = jax.ShapeDtypeStruct((2, 16, 128), "float32")
    jax.eval_shape(lambda x: ops.layer_norm(x, weights, implementation="pallas_tpu"), x)
print(jax.default_backend(), *(choice.implementation for choice in recorded))
"""

WITHOUT_A_MESH = """
import jax, jax.numpy as jnp
from unittest import mock
from paca_jax import ops
from paca_jax.errors import UserError
from paca_jax.ops import implementation
from paca_jax.planning.topology import compile_only_devices, parse_topology, prepare_environment
from paca_jax.sharding import batch_sharding, make_mesh

prepare_environment()
weights = ops.NormWeights(jnp.ones(128), jnp.zeros(128))
mesh = make_mesh(devices=compile_only_devices(parse_topology("v5e:2x2")))
x = jax.ShapeDtypeStruct((8, 16, 128), "float32", sharding=batch_sharding(mesh))
with mock.patch.object(implementation, "target_platform", lambda: "tpu"):
    with jax.set_mesh(mesh):
        print(jax.jit(lambda x: ops.layer_norm(x, weights)).lower(x).compile().as_text().count("tpu_custom_call"))
    try:
        jax.jit(lambda x: ops.layer_norm(x, weights)).lower(x)
    except UserError as error:
        print(error)
"""


@needs_libtpu
def test_a_mesh_of_tpu_topology_devices_on_a_cpu_host_is_a_tpu():
    assert run_for_tpus(CODE).split() == ["cpu", "pallas_tpu"]


@needs_libtpu
def test_a_program_for_several_tpus_needs_a_mesh():
    kernels, message = run_for_tpus(WITHOUT_A_MESH).splitlines()
    assert int(kernels) >= 1
    assert message.startswith("Expected a mesh (jax.set_mesh) while a program for 4 devices is traced, got none")


@pytest.mark.parametrize(
    ("shape", "heads", "dtype", "reason"),
    [
        ((2, 16, 32), 2, "float32", "the type is float32"),
        ((2, 16, 24), 2, "bfloat16", "a head has 12 channels"),
        ((2, 15, 32), 2, "bfloat16", "15 patches attend to 15"),
        ((2, 16, 32), 2, "bfloat16", "cannot be interpreted"),
    ],
)
def test_attention_that_cudnn_does_not_compute(shape, heads, dtype, reason):
    width = shape[-1]
    weights = ops.AttentionWeights(*(jnp.ones((width, width) if k % 2 == 0 else width) for k in range(8)))

    def call(implementation):
        x = jax.ShapeDtypeStruct(shape, dtype)
        arguments = (None, ops.ClusterWeights(), weights, heads, ops.Residual(), None, implementation)
        jax.eval_shape(lambda x: ops.residual_attention(x, *arguments), x)

    with ops.interpret_kernels(True, "gpu"):
        with pytest.raises(UserError, match=reason):
            call("cudnn")
        with ops.record_choices() as choices:
            call(None)
    (attention,) = (choice for choice in choices if choice.operation == "attention")
    assert attention.implementation == "xla"
    assert reason in attention.reason
    with pytest.raises(UserError, match="the target platform is 'cpu'"):
        call("cudnn")
