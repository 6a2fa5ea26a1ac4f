import json
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from benchmarks.count import multiply_adds
from benchmarks.model_table import PUBLISHED, Published, count_model, list_classifiers, markdown
from paca_jax import ops
from paca_jax.models import list_models
from tests.runs import run_main


def shape(*axes):
    return jax.ShapeDtypeStruct(axes, jnp.float32)


class Network(nn.Module):
    """A 3x3 convolution of stride 2, a depthwise 5x5 one, and a dense layer."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(6, (3, 3), strides=2, padding=1)(x)
        x = jax.nn.gelu(ops.depthwise_conv(x, self.param("depthwise", nn.initializers.ones, (5, 5, 1, 6))))
        return nn.Dense(10)(x.mean((1, 2)))


def test_a_known_network():
    images = shape(2, 8, 12, 3)
    variables = jax.eval_shape(Network().init, jax.random.key(0), images)
    patches = 2 * 4 * 6
    assert multiply_adds(Network().apply, variables, images) == patches * 6 * 9 * 3 + patches * 6 * 25 + 2 * 6 * 10


def test_nested_programs_count_with_their_iterations():
    def product(x):
        return x @ x

    assert multiply_adds(jax.jit(product), shape(3, 3)) == 27
    assert multiply_adds(lambda x: jax.lax.fori_loop(0, 5, lambda _, y: product(y), x), shape(3, 3)) == 5 * 27
    assert multiply_adds(lambda x: jnp.einsum("bmn,bnc->bmc", x, x), shape(2, 4, 4)) == 2 * 4 * 4 * 4
    with pytest.raises(NotImplementedError, match="rounds"):
        multiply_adds(lambda x: jax.lax.while_loop(lambda y: y.sum() < 9, product, x), shape(3, 3))


def test_the_tiny_model_counts_as_the_official_code_does():
    row = count_model("pacavit_tiny_p2cconv_100_0")
    # Convolutions, linear layers, einsums and batched products of the official model, each counted by fvcore.
    assert row["multiply_adds"] == 636_344_576 + 2_233_015_296 + 115_404_800 + 234_497_536
    assert row["parameters"] == 12_200_680


def test_published_figures_are_of_known_models():
    assert set(PUBLISHED) < set(list_models())


def test_the_table_has_a_line_for_each_row():
    row = {"model": "a", "clusters": "[2]", "image_size": 8, "parameters": 1234, "multiply_adds": 2 * 10**9, "published": None}
    table = markdown([row, {**row, "model": "b", "published": Published(1.0, 2.0, 80.5)._asdict()}]).splitlines()
    assert table[2] == "| `a` | [2] | 1,234 | 2.00 | - | - | - |"
    assert table[3] == "| `b` | [2] | 1,234 | 2.00 | 1.0M | 2.0 | 80.5 |"
    assert len({line.count("|") for line in table[:4]}) == 1


@pytest.mark.slow
def test_the_script_lists_every_model(tmp_path):
    done = run_main(sys.executable, "-m", "benchmarks.model_table", "--json", str(tmp_path / "table.json"))
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "table.json").read_text())["models"]
    assert [row["model"] for row in rows] == list_classifiers()
    for row in rows:
        assert f"| `{row['model']}` |" in done.stdout
        if row["published"]:
            assert row["multiply_adds"] / 1e9 == pytest.approx(row["published"]["gflops"], abs=0.12)
            assert row["parameters"] / 1e6 == pytest.approx(row["published"]["parameters"], rel=0.025)
