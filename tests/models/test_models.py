"""Shapes, options and modes of the models."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from paca_jax.errors import UserError
from paca_jax.models import PaCaConfig, TeacherConfig, create_model, list_models
from paca_jax.sharding import logical_axes
from tests import golden
from tests.shapes import unchecked

NANO = "pacavit_nano"
SHALLOW = {"depths": (1, 1, 1, 1), "clusters": (6, 4, 0, 0), "num_classes": 10}
TEACHER = TeacherConfig(depths=(1, 1, 1, 1), kernel_size=3)
EVERY_OPTION = {
    "post_norm": True,
    "sub_norm": True,
    "position_embedding": True,
    "layer_scale": 0.5,
    "cluster_position_embedding": True,
}


def _init(model, size=(32, 32)):
    images = jax.random.normal(jax.random.key(1), (2, *size, model.config.image_channels))
    return golden.random_variables(model), images


def _shapes(model, size=(32, 32), batch=1):
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((batch, *size, model.config.image_channels)))


def _count(name):
    return sum(leaf.size for leaf in jax.tree.leaves(golden.shapes(name)["params"]))


@pytest.mark.parametrize(("name", "count"), golden.PARAMETERS.items())
def test_parameter_counts_are_the_official_ones(name, count):
    assert _count(name) == count


@pytest.mark.parametrize("name", [*golden.OFFICIAL, *golden.SEGMENTORS, *golden.DETECTORS])
def test_manifests_have_the_same_number_of_parameters(name):
    buffers = ("running_mean", "running_var", "num_batches_tracked", "blur_filter")
    shapes = [shape for key, shape in golden.manifest(name).items() if not key.endswith(buffers)]
    assert _count(name) == sum(np.prod(shape, dtype=int) for shape in shapes)


def test_nano_is_small():
    assert (
        sum(leaf.size for leaf in jax.tree.leaves(_shapes(create_model("pacavit_nano", num_classes=10))["params"])) < 1_000_000
    )


# Every backbone, and every head on one of each kind: a head's parameters do not depend on what it stands on.
NAMES = [name for name in list_models() if name.startswith("pacavit_") or name.endswith(("_tiny", "_nano"))]


@pytest.mark.parametrize("name", [*NAMES, *golden.OPTIONS])
def test_every_parameter_has_one_row_of_axes(name):
    for path, leaf in flatten_dict(golden.shapes(name)["params"], sep="/").items():
        assert len(logical_axes(path)) == leaf.ndim, path


def test_list_models_names_the_official_ones():
    assert set(golden.OFFICIAL) <= set(list_models())
    assert len(golden.OFFICIAL) == 13


@pytest.mark.parametrize(
    "overrides", [{}, {"teacher": TEACHER}, EVERY_OPTION, {"clustering": "mlp"}, {"clusters": (0, 0, 5, 3)}]
)
@pytest.mark.parametrize("size", [(32, 32), (37, 50)])
def test_any_height_and_width(overrides, size):
    model = golden.nano(num_classes=7, **overrides)
    variables = _shapes(model)
    images = jnp.zeros((2, *size, 3))
    logits = jax.eval_shape(model.apply, variables, images)
    assert (logits.shape, logits.dtype) == ((2, 7), jnp.float32)
    features = jax.eval_shape(lambda v, x: model.apply(v, x, method="features"), variables, images)
    ceil = [tuple(-(-side // stride) for side in size) for stride in (4, 8, 16, 32)]
    expected = [(2, *side, dim) for side, dim in zip(ceil, model.config.embed_dims, strict=True)]
    assert [feature.shape for feature in features] == expected
    clusters = jax.eval_shape(lambda v, x: model.apply(v, x, method="clusters"), variables, images)
    shapes = {f"stage{i + 1}/block0": (2, m, *ceil[i]) for i, m in enumerate(model.config.clusters) if m}
    assert {name: assignment.shape for name, assignment in clusters.items()} == shapes


def test_no_classes_gives_pooled_features():
    model = golden.nano(**(SHALLOW | {"num_classes": 0}))
    variables, images = _init(model)
    assert "head" not in variables["params"]
    outputs = jax.jit(lambda v, x: model.apply(v, x, False, method="outputs"))(variables, images)
    np.testing.assert_allclose(outputs.logits, outputs.features[-1].mean((1, 2)), atol=1e-6)


@pytest.mark.parametrize("overrides", [{}, {"teacher": TEACHER, "clusters": (5, 4, 0, 2)}])
def test_each_cluster_sums_to_one(overrides):
    model = golden.nano(**(SHALLOW | overrides))
    variables, images = _init(model, (40, 36))
    clusters = jax.jit(lambda v, x: model.apply(v, x, method="clusters"))(variables, images)
    assert clusters
    for assignment in clusters.values():
        np.testing.assert_allclose(assignment.sum((-1, -2)), 1, atol=1e-5)
        assert assignment.min() >= 0


@pytest.mark.parametrize(("period", "blocks"), [(0, [0]), (1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (3, [0, 3]), (9, [0])])
def test_periods_choose_the_blocks_that_compute_an_assignment(period, blocks):
    model = golden.nano(depths=(5, 1, 1, 1), clusters=(4, 0, 3, 0), clustering_periods=(period, 1, 0, 0))
    variables = _shapes(model)
    clusters = jax.eval_shape(lambda v, x: model.apply(v, x, method="clusters"), variables, jnp.zeros((1, 32, 32, 3)))
    assert set(clusters) == {f"stage1/block{block}" for block in blocks} | {"stage3/block0"}
    owners = [block for block in range(5) if "conv_clustering" in variables["params"]["stage1"][f"block{block}"]["attention"]]
    assert owners == blocks


def test_later_blocks_use_the_assignment_of_the_first():
    model = golden.nano(depths=(2, 1, 1, 1), clusters=(4, 0, 0, 0), num_classes=10)
    variables, images = _init(model)
    project = variables["params"]["stage1"]["block0"]["attention"]["conv_clustering"]["project"]
    sharper = jax.tree.map(lambda leaf: leaf, variables)
    sharper["params"]["stage1"]["block0"]["attention"]["conv_clustering"]["project"] = {"kernel": 50 * project["kernel"]}
    outputs = jax.jit(lambda v, x: model.apply(v, x, False, method="outputs"))
    before, after = outputs(variables, images), outputs(sharper, images)
    assert np.abs(before.clusters["stage1/block0"] - after.clusters["stage1/block0"]).max() > 1e-3
    assert list(before.clusters) == ["stage1/block0"]


def test_bfloat16_computes_close_to_float32_with_float32_parameters():
    wide, narrow = golden.nano(**SHALLOW), golden.nano(**SHALLOW, dtype="bfloat16")
    variables, images = _init(narrow)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables["params"])} == {jnp.dtype("float32")}
    logits = jax.jit(narrow.apply)(variables, images)
    assert logits.dtype == jnp.float32
    exact = jax.jit(wide.apply)(variables, images)
    assert 0 < np.abs(logits - exact).max() < 0.05 * np.abs(exact).max()
    features = jax.eval_shape(lambda v, x: narrow.apply(v, x, method="features"), variables, images)
    assert {feature.dtype for feature in features} == {jnp.dtype("bfloat16")}


@pytest.mark.parametrize("rate", ["dropout_rate", "attention_dropout_rate", "drop_path_rate"])
def test_dropout_follows_its_key_and_only_in_training(rate):
    rates = {"dropout_rate": 0.0, "attention_dropout_rate": 0.0, "drop_path_rate": 0.0}
    model, plain = golden.nano(**SHALLOW, **(rates | {rate: 0.5})), golden.nano(**SHALLOW, **rates)
    variables, images = _init(model)

    def apply(seed):
        trained = model.apply(variables, images, train=True, rngs={"dropout": jax.random.key(seed)})
        return trained, model.apply(variables, images), plain.apply(variables, images, train=True)

    outputs = jax.jit(apply)
    (first, evaluated, untouched), (again, *_), (other, *_) = outputs(0), outputs(0), outputs(1)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    np.testing.assert_allclose(evaluated, untouched, atol=1e-6)


def test_stochastic_depth_grows_linearly():
    rates = golden.nano(drop_path_rate=0.6).config.drop_path_rates()
    np.testing.assert_allclose(sum(rates, ()), np.linspace(0, 0.6, 7))
    assert [len(stage) for stage in rates] == [2, 2, 2, 1]


def test_training_updates_every_running_statistic():
    model = golden.nano(**SHALLOW, teacher=TEACHER)
    variables, images = _init(model)
    assert set(variables) == {"params", "batch_stats"}
    _, updates = jax.jit(lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"]))(variables, images)
    before, after = flatten_dict(variables["batch_stats"], sep="/"), flatten_dict(updates["batch_stats"], sep="/")
    assert before.keys() == after.keys()
    for path in before:
        assert (after[path] == 4) if path.endswith("/count") else np.abs(after[path] - before[path]).max() > 0


def test_every_layer_is_initialized_as_in_the_paper():
    model = golden.nano(**SHALLOW, teacher=TEACHER, layer_scale=0.5)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    fixed = {"bias": 0, "scale": 1, "mean": 0, "var": 1, "count": 0, "attention_scale": 0.5, "mlp_scale": 0.5}
    for path, leaf in flatten_dict(variables, sep="/").items():
        name = path.split("/")[-1]
        if name in fixed:
            assert np.all(leaf == fixed[name]), path
    block = variables["params"]["stage1"]["block0"]
    assert block["mlp"]["fc1"]["kernel"].std() == pytest.approx(0.02, rel=0.05)
    assert block["mlp"]["depthwise"]["kernel"].std() == pytest.approx(np.sqrt(2 / 9), rel=0.1)
    assert variables["params"]["stem"]["conv2"]["kernel"].std() == pytest.approx(np.sqrt(2 / (9 * 32)), rel=0.1)


def test_position_embedding_is_resized_with_aligned_corners():
    model = golden.nano(**SHALLOW, position_embedding=True)
    variables, images = _init(model, (64, 48))
    assert variables["params"]["stage1"]["block0"]["position_embedding"].shape == (64, 32)
    assert jax.jit(model.apply)(variables, images).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("pacavit_tiny", {}, "pacavit_tiny_p2cconv_100_0"),
        (NANO, {"cluster": (1, 1, 1, 1)}, "clusters"),
        (NANO, {"clusters": (1, 2)}, "clusters"),
        (NANO, {"clusters": (1, 2, 3, -1)}, "clusters"),
        (NANO, {"num_heads": (3, 2, 4, 5)}, "num_heads"),
        (NANO, {"clustering": "convolution"}, "conv, mlp, linear"),
        (NANO, {"clustering_kernel_sizes": (7, 7, 4, 7)}, "odd"),
        (NANO, {"drop_path_rate": 1.0}, "drop_path_rate"),
        (NANO, {"num_classes": -1}, "num_classes"),
        (NANO, {"image_channels": 0}, "image_channels"),
    ],
)
def test_wrong_names_and_options_are_rejected(name, overrides, message):
    with pytest.raises(UserError, match=message):
        create_model(name, **overrides)


def test_teachers_are_validated():
    with pytest.raises(UserError, match="odd"):
        TeacherConfig(kernel_size=4)
    with pytest.raises(UserError, match="depths"):
        PaCaConfig(teacher=TeacherConfig(depths=(1, 1)))


@pytest.mark.parametrize("shape", [(32, 32, 3), (1, 3, 32, 32), (1, 32, 32, 1)])
def test_images_of_another_shape_are_rejected(shape):
    with unchecked(), pytest.raises(UserError, match=r"\(batch, height, width, 3\)"):
        jax.eval_shape(golden.nano().init, jax.random.key(0), jnp.zeros(shape))


@pytest.mark.slow
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="compilers of other platforms compute the sums only once anyway")
def test_no_block_adds_up_the_branches_of_others():
    def most_operands(depth):
        model = create_model("pacavit_nano", depths=(1, depth, 1, 1))
        images = jnp.ones((2, 32, 32, model.config.image_channels))
        variables = jax.eval_shape(model.init, jax.random.key(0), images)

        def loss(params, images):
            logits, _ = model.apply(
                {"params": params}, images, train=True, rngs={"dropout": jax.random.key(0)}, mutable=["batch_stats"]
            )
            return jnp.sum(logits**2)

        program = jax.jit(jax.grad(loss)).lower(variables["params"], images).compile().as_text()
        return max(operands.count("%") for operands in re.findall(r" fusion\((.*?)\)", program))

    assert most_operands(depth=3) == most_operands(depth=2)
