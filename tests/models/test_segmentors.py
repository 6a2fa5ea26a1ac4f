"""Segmentors: against the recorded outputs of the official implementation, and their shapes and options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paca_jax import convert, ops
from paca_jax.errors import UserError
from paca_jax.models import create_model, list_models
from paca_jax.tasks.segmentation.loss import segmentation_loss
from tests import golden
from tests.golden import Differences

FILES = sorted(golden.SEGMENTATION.glob("*.npz"))
SMALL = {"num_classes": 7, "head_channels": 16, "depths": (1, 1, 1, 1)}


def small(head="pacahead", **overrides):
    return create_model(f"{head}_nano", **(SMALL | overrides))


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_outputs_losses_and_gradients_of_the_official_code(file):
    reference = np.load(file)
    name = file.name.split(".")[0]
    model = golden.model(name, drop_path_rate=0.0, head_dropout_rate=0.0)
    variables = convert.from_torch(golden.state_dict(name, int(reference["salt"])), model)
    images = golden.images(int(reference["input_seed"]), tuple(reference["input_shape"]))
    found = Differences()
    with jax.default_matmul_precision("highest"):
        _check_outputs(found, reference, model, variables, images)
        _check_training(found, reference, model, variables, images)
    assert not found.failures, "\n".join(found.failures)


def _check_outputs(found, reference, model, variables, images):
    @jax.jit
    def outputs(variables, images):
        logits, auxiliary = model.apply(variables, images, method="with_auxiliary")
        prediction = jnp.argmax(ops.resize_bilinear(logits, images.shape[1:3]), -1)
        return model.apply(variables, images, method="features"), logits, auxiliary, prediction

    features, logits, auxiliary, prediction = outputs(variables, images)
    for index, feature in enumerate(np.moveaxis(np.asarray(x), -1, 1) for x in features):
        found.check(f"feature{index} mean", feature.mean((2, 3)), reference[f"feature{index}/mean"], 1e-4)
        found.check(f"feature{index} std", feature.std((2, 3)), reference[f"feature{index}/std"], 1e-4)
        found.check(f"feature{index} corner", feature[:, :, :2, :2], reference[f"feature{index}/corner"], 1e-4)
    logits = np.moveaxis(np.asarray(logits), -1, 1)
    assert logits.shape == tuple(reference["logits_shape"])
    found.check("logits", logits[:, :, ::8, ::8], reference["logits/patch"], 1e-4)
    found.check("logits mean", logits.mean((2, 3)), reference["logits/mean"], 1e-4)
    if "aux_logits/patch" in reference:
        auxiliary = np.moveaxis(np.asarray(auxiliary), -1, 1)[:, :, ::4, ::4]
        found.check("auxiliary logits", auxiliary, reference["aux_logits/patch"], 1e-4)
    agreeing = np.mean(prediction == reference["prediction"])
    assert agreeing >= 0.999, agreeing


def _check_training(found, reference, model, variables, images):
    seed = int(reference["input_seed"])
    shape = images.shape[:3]
    labels = np.random.default_rng(seed + 1000).integers(0, 150, shape)
    labels[np.random.default_rng(seed + 2000).random(shape) < 0.1] = 255
    batch = {"image": images, "label": labels.astype(np.uint8), "valid": np.ones(len(images), np.float32)}

    @jax.jit
    def loss(params, batch_stats):
        output = segmentation_loss(model, {"params": params, "batch_stats": batch_stats}, batch, jax.random.key(0))
        return output.total / output.weight, output

    (total, output), gradients = jax.value_and_grad(loss, has_aux=True)(variables["params"], variables["batch_stats"])
    auxiliary, count = output.sums["auxiliary_loss"]
    expected_auxiliary = reference["train/" + ("paca" if "train/paca.loss_ce" in reference else "aux") + ".loss_ce"]
    found.check("loss", total, reference["train/decode.loss_ce"] + expected_auxiliary, 1e-5)
    found.check("auxiliary loss", 0.4 * auxiliary / count, expected_auxiliary, 1e-5)
    correct, count = output.sums["accuracy"]
    found.check("accuracy", 100 * correct / count, reference["train/decode.acc_seg"], 1e-3)
    gradients = convert.to_torch(gradients, model)
    assert set(gradients) == set(reference["train/grad_names"])
    found.check_norms("gradient norm", gradients, reference["train/grad_names"], reference["train/grad_norm"], 1e-3)
    state = convert.to_torch({"params": variables["params"], "batch_stats": output.batch_stats}, model)
    found.check_norms("norm", state, reference["train/running_names"], reference["train/running_norm"], 1e-4)


def test_every_backbone_has_both_heads():
    names = list_models()
    backbones = [name for name in names if name.startswith("pacavit_")]
    for head in ("pacahead_", "upernet_"):
        assert sum(name.startswith(head) for name in names) == len(backbones)
    assert {"pacahead_base", "upernet_convmixer_tiny", "pacahead_small_p2cmlp_100_0", "pacahead_nano"} <= set(names)


def test_downstream_clusters_and_stochastic_depth_are_the_papers():
    def settings(name):
        backbone = create_model(name).config.backbone
        return backbone.clusters, backbone.drop_path_rate

    assert settings("pacahead_tiny") == ((200, 200, 200, 0), 0.1)
    assert settings("pacahead_base") == ((200, 200, 200, 0), 0.5)
    assert settings("upernet_base") == ((200, 200, 200, 0), 0.1)
    assert settings("pacahead_convmixer_base") == ((200, 200, 200, 200), 0.5)
    assert settings("pacahead_small_p2cconv_49_100") == ((200, 200, 200, 200), 0.1)
    assert create_model("pacahead_tiny", clusters=(50, 40, 0, 0)).config.backbone.clusters == (50, 40, 0, 0)


@pytest.mark.parametrize("head", ["pacahead", "upernet"])
@pytest.mark.parametrize("size", [(64, 64), (45, 70)])
def test_logits_at_stride_four_for_any_size(head, size):
    model = small(head)
    images = jnp.zeros((2, *size, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    logits = jax.eval_shape(model.apply, variables, images)
    height, width = (-(-side // 4) for side in size)
    assert (logits.shape, logits.dtype) == ((2, height, width, 7), jnp.float32)
    clusters = jax.eval_shape(lambda v, x: model.apply(v, x, method="clusters"), variables, images)
    assert ("head" in clusters) == (head == "pacahead")
    assert clusters["stage1/block0"].shape == (2, 16, height, width)


def test_the_head_has_one_cluster_per_class():
    model = small()
    images = jax.random.normal(jax.random.key(1), (2, 40, 36, 3))
    clusters = jax.jit(lambda v, x: model.apply(v, x, method="clusters"))(golden.random_variables(model), images)
    assert clusters["head"].shape == (2, 7, 10, 9)
    np.testing.assert_allclose(clusters["head"].sum((2, 3)), 1, rtol=1e-5)


def test_batch_statistics_are_those_of_the_whole_batch_on_eight_devices():
    from jax.sharding import NamedSharding, PartitionSpec

    from paca_jax.sharding import make_mesh

    model = small(drop_path_rate=0.0, head_dropout_rate=0.0)
    variables = golden.random_variables(model)
    images = jax.random.normal(jax.random.key(1), (8, 32, 32, 3))
    apply = jax.jit(lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"]))
    with jax.default_matmul_precision("highest"):
        expected = apply(variables, images)
        mesh = make_mesh(8, 1, 1)
        with jax.set_mesh(mesh):
            found = apply(variables, jax.device_put(images, NamedSharding(mesh, PartitionSpec("data"))))
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), atol=2e-5)


def test_a_frozen_backbone_keeps_its_teachers_statistics():
    from paca_jax.models import TeacherConfig

    model = small(teacher=TeacherConfig(depths=(1, 1, 1, 1), kernel_size=3))
    variables = golden.random_variables(model)
    images = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))

    def updates(train_backbone):
        options = {"train": True, "train_backbone": train_backbone, "method": "with_auxiliary", "mutable": ["batch_stats"]}
        return model.apply(variables, images, rngs={"dropout": jax.random.key(0)}, **options)[1]["batch_stats"]

    frozen = jax.jit(updates, static_argnums=0)(False)
    before = variables["batch_stats"]
    jax.tree.map(np.testing.assert_array_equal, frozen["backbone"], before["backbone"])
    assert np.abs(frozen["head"]["out"]["norm"]["mean"] - before["head"]["out"]["norm"]["mean"]).max() > 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"num_classes": 0}, "1 to 255"),
        ({"num_classes": 256}, "1 to 255"),
        ({"head_channels": 0}, "head_channels to be a whole number from 1 to"),
        ({"head_dropout_rate": 1.0}, "a number at least 0 and below 1"),
        ({"short_side": 64, "long_side": 32}, "at most long_side"),
        ({"image_size": 64}, "no option 'image_size'"),
        ({"head_chanels": 64}, "nearest are head_channels"),
    ],
)
def test_invalid_options_are_rejected(overrides, message):
    with pytest.raises(UserError, match=message):
        create_model("pacahead_nano", **overrides)
