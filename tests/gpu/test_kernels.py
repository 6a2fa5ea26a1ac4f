"""What a GPU's own implementations compute, against the reference."""

import jax
import jax.numpy as jnp
import pytest

from paca_jax import ops
from tests.ops.agreement import assert_agree

pytestmark = pytest.mark.gpu

TOLERANCES = {"float32": 1e-5, "bfloat16": 2e-2}


def normal(seed, shape, dtype="float32"):
    return jax.random.normal(jax.random.key(seed), shape).astype(dtype)


def with_gradient(function, dy, *arrays):
    """The result of a function, without and with its gradient."""

    def run(*arrays):
        y, gradient = jax.vjp(function, *arrays)
        return function(*arrays), y, gradient(dy.astype(y.dtype))

    with jax.default_matmul_precision("highest"):
        return jax.jit(run)(*arrays)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("side", "shortcut"), [(3, True), (3, False), (7, False)])
@pytest.mark.parametrize("shape", [(3, 56, 56, 96), (2, 14, 14, 320), (2, 7, 9, 24), (1, 25, 130, 64)], ids=str)
def test_depthwise_convolution_with_gelu(shape, side, shortcut, dtype):
    x, dy = normal(0, shape), normal(1, shape)
    kernel, bias, input_bias = normal(2, (side, side, 1, shape[-1])) / side, normal(3, shape[-1:]), normal(4, shape[-1:])
    arrays = [array.astype(dtype).astype("float32") for array in (x, kernel, bias, input_bias)]

    def call(implementation, dtype):
        def function(*arrays):
            x, kernel, bias, input_bias = (array.astype(dtype) for array in arrays)
            y = ops.depthwise_gelu(x, kernel, bias, shortcut, implementation, input_bias=input_bias)
            return y.astype(jnp.float32)

        return with_gradient(function, dy, *arrays)

    assert_agree(call("xla", "float32"), call("pallas_gpu", dtype), TOLERANCES[dtype])


def test_parameters_cast_together():
    weights = [normal(0, (96, 384)), normal(1, (384,)), normal(2, (3, 3, 1, 24)), normal(3, (7,))]
    assert_agree(
        *(jax.jit(lambda form=form: ops.cast_weights(weights, "bfloat16", form))() for form in ("xla", "pallas_gpu")), 0
    )


@pytest.mark.parametrize(
    ("heads", "channels", "patches", "clusters"), [(2, 48, 3136, 100), (8, 40, 196, 100), (1, 16, 64, 10), (16, 24, 50, None)]
)
def test_attention_by_cudnn(heads, channels, patches, clusters):
    width = heads * channels
    x, dy = normal(0, (3, patches, width)), normal(1, (3, patches, width))
    layers = [array for k in range(4) for array in (normal(10 + k, (width, width)) / width**0.5, normal(20 + k, (width,)))]
    norm = ops.NormWeights(1 + normal(30, (width,)) / 10, normal(31, (width,)) / 10)
    assignment = None if clusters is None else jax.nn.softmax(normal(2, (3, clusters, patches)))

    def call(implementation, dtype):
        def function(x, layers):
            weights = ops.AttentionWeights(*(layer.astype(dtype) for layer in layers))
            given = None if assignment is None else assignment.astype(dtype)
            residual = ops.Residual(norm)
            places = ops.ClusterWeights(None, norm)
            y = ops.residual_attention(x.astype(dtype), given, places, weights, heads, residual, None, implementation)
            return y.astype(jnp.float32)

        return with_gradient(function, dy, x, layers)

    assert_agree(call("xla", "float32"), call("cudnn", "bfloat16"), TOLERANCES["bfloat16"])


def test_a_model_takes_them():
    import paca_jax

    model = paca_jax.create_model("pacavit_tiny_p2cconv_100_0", dtype="bfloat16")
    with ops.record_choices() as choices:
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((2, 224, 224, 3)))
    taken = {(choice.operation, choice.implementation) for choice in choices}
    assert {("attention", "cudnn"), ("depthwise convolution", "pallas_gpu")} <= taken
