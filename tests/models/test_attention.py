"""The attention weights of models, against the plain formula in NumPy, from variables and the inputs of blocks."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paca_jax import ops
from paca_jax.errors import UserError
from paca_jax.models import TeacherConfig, create_model
from tests import golden
from tests.shapes import unchecked

SHALLOW = {"depths": (2, 1, 1, 1), "clusters": (6, 0, 4, 0)}
TEACHER = TeacherConfig(depths=(1, 1, 1, 1), kernel_size=3)
KINDS = {
    "classifier": ("pacavit_nano", SHALLOW | {"num_classes": 5}),
    "teacher": ("pacavit_nano", SHALLOW | {"teacher": TEACHER, "num_classes": 5}),
    "linear": (
        "pacavit_nano",
        SHALLOW | {"clustering": "linear", "clustering_periods": (1, 0, 0, 0), "cluster_position_embedding": True},
    ),
    "mlp": ("pacavit_nano", SHALLOW | {"clustering": "mlp", "post_norm": True, "cluster_norm": False}),
    "pacahead": ("pacahead_nano", SHALLOW | {"num_classes": 7, "head_channels": 16}),
    "upernet": ("upernet_nano", SHALLOW | {"num_classes": 7, "head_channels": 16}),
    "detector": ("mask_rcnn_nano", SHALLOW | {"num_classes": 3}),
}
STAGES = ("stage1", "stage2", "stage3", "stage4")
SIDES = {"stage1": (10, 9), "stage2": (5, 5), "stage3": (3, 3), "stage4": (2, 2)}


def made(kind):
    name, overrides = KINDS[kind]
    return create_model(name, **overrides)


@functools.cache
def seen(kind):
    """Returns a model's parameters, attention weights, assignments and outputs of layers for two images."""
    model = made(kind)
    variables = golden.random_variables(model)

    @jax.jit
    def look(variables, images):
        asked = (*STAGES, "head") if kind == "pacahead" else STAGES
        options = {"capture_intermediates": True, "mutable": ["intermediates"]}
        weights, state = model.apply(variables, images, asked, method="attention", **options)
        return weights, model.apply(variables, images, method="clusters"), state["intermediates"]

    with jax.default_matmul_precision("highest"):
        found = look(variables, jax.random.normal(jax.random.key(1), (2, 40, 36, 3)))
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (variables["params"], *found))


def normalized(x, norm):
    centered = x - x.mean(-1, keepdims=True)
    return centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-6) * norm["scale"] + norm["bias"]


def softmax(scores):
    exponentials = np.exp(scores - scores.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def plain_weights(params, block, x, assignment, heads):
    """Returns the attention weights (B, heads, N, T) of a block for its input (B, N, C)."""
    layer = params[block.split("/")[0]][block.split("/")[1]]
    attention = layer["attention"]
    patches = normalized(x, layer["attention_norm"]) if "attention_norm" in layer else x
    tokens = patches
    if assignment is not None:
        tokens = assignment @ patches + attention.get("cluster_position_embedding", 0)
        if "cluster_norm" in attention:
            tokens = normalized(tokens, attention["cluster_norm"])

    def project(name, x):
        y = x @ attention[name]["kernel"] + attention[name]["bias"]
        return y.reshape(*y.shape[:2], heads, -1).transpose(0, 2, 1, 3)

    query, key = project("query", patches), project("key", tokens)
    return softmax(query @ key.transpose(0, 1, 3, 2) / np.sqrt(query.shape[-1]))


@pytest.mark.xdist_group("attention of models")
@pytest.mark.parametrize("kind", KINDS)
def test_attention_weights_are_those_of_the_plain_formula(kind):
    params, found, clusters, layers = seen(kind)
    config = getattr(made(kind).config, "backbone", made(kind).config)
    params, layers = params.get("backbone", params), layers.get("backbone", layers)
    blocks = [f"{stage}/block{index}" for stage, depth in zip(STAGES, config.depths, strict=True) for index in range(depth)]
    assert [name for name in found if name != "head"] == blocks
    assignment = None
    for block in blocks:
        stage, _, index = block.partition("/block")
        number = STAGES.index(stage)
        if index == "0":
            x = layers["stem" if number == 0 else f"transition{number}"]["__call__"][0]
            assignment = None
        x = x.reshape(len(x), -1, x.shape[-1])
        if block in clusters:
            assignment = clusters[block].reshape(*clusters[block].shape[:2], -1)
        expected = plain_weights(params, block, x, assignment, config.num_heads[number])
        tokens = config.clusters[number] or np.prod(SIDES[stage])
        assert found[block].shape == (2, config.num_heads[number], *SIDES[stage], tokens)
        np.testing.assert_allclose(found[block].reshape(expected.shape), expected, atol=1e-5)
        np.testing.assert_allclose(found[block].sum(-1), 1, atol=1e-5)
        x = layers[stage][f"block{index}"]["__call__"][0][0]


@pytest.mark.xdist_group("attention of models")
def test_the_head_of_a_segmentor_attends_to_its_classes():
    _, found, clusters, layers = seen("pacahead")
    query, key = (layers["head"][name]["__call__"][0] for name in ("query", "key"))
    expected = softmax(np.einsum("bhwd,bkd->bhwk", query, key))
    assert found["head"].shape == (2, 1, 10, 9, 7)
    assert clusters["head"].shape == (2, 7, 10, 9)
    np.testing.assert_allclose(found["head"][:, 0], expected, atol=1e-5)
    assert "head" not in seen("upernet")[1]


def shapes_of(kind, *arguments, **overrides):
    name, given = KINDS[kind]
    model = create_model(name, **(given | overrides))
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    weights = jax.eval_shape(
        lambda v, x: model.apply(v, x, *arguments, method="attention"), variables, jnp.zeros((1, 40, 36, 3))
    )
    return {name: each.shape for name, each in weights.items()}


@pytest.mark.parametrize(
    ("kind", "blocks", "expected"),
    [
        ("classifier", None, ["stage1/block0", "stage1/block1", "stage3/block0"]),
        ("classifier", (), []),
        ("classifier", ("stage4", "stage1/block1"), ["stage1/block1", "stage4/block0"]),
        ("classifier", ["stage1", "stage1/block0"], ["stage1/block0", "stage1/block1"]),
        ("teacher", None, ["stage1/block0", "stage1/block1", "stage3/block0"]),
        ("pacahead", None, ["stage1/block0", "stage1/block1", "stage3/block0", "head"]),
        ("pacahead", ("head",), ["head"]),
        ("detector", ("stage3",), ["stage3/block0"]),
    ],
)
def test_plain_attention_is_given_only_where_it_is_named(kind, blocks, expected):
    assert list(shapes_of(kind, blocks)) == sorted(expected)


def test_no_array_is_quadratic_in_the_patches_where_there_are_clusters():
    def has_quadratic(**overrides):
        model = create_model("pacavit_nano", **(SHALLOW | overrides))
        variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
        weights = functools.partial(model.apply, blocks=("stage1",), method="attention")
        return re.search(r"\b90,90\b", str(jax.make_jaxpr(weights)(variables, jnp.zeros((1, 40, 36, 3)))))

    assert not has_quadratic()
    assert has_quadratic(clusters=(0, 0, 0, 0))


def test_blocks_that_kernels_compute_give_weights_too():
    with ops.interpret_kernels(True), ops.record_choices() as choices:
        found = shapes_of("classifier")
    assert found == shapes_of("classifier")
    attention = {choice.block: choice.implementation for choice in choices if choice.operation == "attention"}
    assert attention["stage1/block0"] == "pallas_tpu"


def test_remat_and_16_bits_give_weights_too():
    assert shapes_of("classifier", remat=True) == shapes_of("classifier")
    model = create_model("pacavit_nano", dtype="bfloat16", **SHALLOW)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    weights = jax.eval_shape(lambda v, x: model.apply(v, x, method="attention"), variables, jnp.zeros((1, 40, 36, 3)))
    assert {each.dtype for each in weights.values()} == {jnp.dtype("bfloat16")}


@pytest.mark.parametrize("kind", ["classifier", "upernet", "detector"])
@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        (("stage5",), r"Expected a stage or a block, got 'stage5'; the nearest are stage4, .*\. Choose one of them\."),
        (("stage1/block2",), r"got 'stage1/block2'; the nearest are stage1/block1, stage1/block0"),
        (("head",), "got 'head'"),
        ("stage1", r"Expected blocks as a tuple of names, got 'stage1'"),
        (3, "Expected blocks as a tuple of names, got 3"),
        ((1,), r"Expected blocks as a tuple of names, got \(1,\)"),
    ],
)
def test_wrong_blocks_are_refused(kind, blocks, message):
    with unchecked(), pytest.raises(UserError, match=message):
        shapes_of(kind, blocks)
