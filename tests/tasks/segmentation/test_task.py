"""Segmentation end to end on a small folder of images and label maps: evaluation, training on several devices, resuming."""

import functools
import io
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from PIL import Image

import paca_jax
from configs.ade20k import get_config as ade20k
from paca_jax import ops
from paca_jax.checkpoints.initial import initial_variables
from paca_jax.data.transforms.resampling import bilinear
from paca_jax.errors import UserError
from paca_jax.ops import normalize
from paca_jax.tasks.segmentation.metrics import SegmentationMetrics
from paca_jax.train.config import default_config
from paca_jax.train.evaluation import evaluate, evaluate_only
from paca_jax.train.run import prepare
from paca_jax.train.train_loop import train
from tests import golden
from tests.runs import overridden, scalars

pytestmark = pytest.mark.xdist_group("segmentation")  # one worker makes the fixtures

CLASSES = ("ground", "square", "bar")
SIZES = [(40, 56), (64, 48)]  # the second is resized
ONE = jax.devices()[:1]


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def drawn(rng, size):
    """Returns a noisy picture with a bright square and a blue bar, and its label map with some unlabeled pixels."""
    mask = np.zeros(size, np.uint8)
    image = rng.integers(0, 60, (*size, 3))
    top, left = rng.integers(0, size[0] - 16), rng.integers(0, size[1] - 16)
    mask[top : top + 16, left : left + 16] = 1
    row = rng.integers(0, size[0] - 6)
    mask[row : row + 6] = 2
    image[mask == 1] += 180
    image[mask == 2, 2] += 150
    mask[rng.random(size) < 0.05] = 255
    return image.astype(np.uint8), mask


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("shapes"), np.random.default_rng(0)
    for split, count in (("train", 24), ("validation", 19)):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for index in range(count):
            image, mask = drawn(rng, SIZES[index % len(SIZES)])
            (root / "images" / split / f"{index:02}.png").write_bytes(png(image))
            (root / "masks" / split / f"{index:02}.png").write_bytes(png(mask))
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    return root


def config_of(folder, **values):
    config = default_config()
    config.task = "segmentation"
    config.model.name = "pacahead_nano"
    config.dataset.name, config.dataset.data_dir = "folder", str(folder)
    settings = {
        "model.embed_dims": (16, 16, 32, 32),
        "model.depths": (1, 1, 1, 1),
        "model.num_heads": (1, 1, 2, 2),
        "model.head_channels": 16,
        "image_size": 32,
        "short_side": 40,
        "long_side": 80,
        "test.size_multiple": 32,
        "batch_size": 8,
        "num_steps": 8,
        "warmup_steps": 0,
        "learning_rate": 3e-3,
        "schedule": "linear",
        "log_every_steps": 1,
        "eval_every_steps": 4,
        "checkpoint_every_steps": 4,
    }
    return overridden(config, settings, values)


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    return workdir, train(config_of(folder), workdir, devices=ONE)


def plain_counts(folder, model, variables):
    """Returns the correct, true and predicted pixels of each class in the validation folder, picture by picture, unpadded."""

    @functools.partial(jax.jit, static_argnums=(1, 2))
    def classes(image, size, original):
        logits = model.apply(variables, image[None])
        return jnp.argmax(ops.resize_bilinear(ops.resize_bilinear(logits, size), original)[0], -1)

    counts = np.zeros((len(CLASSES), 3))
    for path in sorted((folder / "images" / "validation").iterdir()):
        image = np.asarray(Image.open(path))
        label = np.asarray(Image.open(folder / "masks" / "validation" / path.name))
        size = tuple(int(40 * side / min(label.shape) + 0.5) for side in label.shape)
        found = np.asarray(classes(normalize(bilinear(image, size, (0, 0, *size))), size, label.shape))[label != 255]
        true = label[label != 255]
        for k in range(len(CLASSES)):
            counts[k] += ((true == k) & (found == k)).sum(), (true == k).sum(), (found == k).sum()
    return counts.T


def of_every_class(model):
    """Returns random variables with which a model predicts every class: all logits have mean 0 and standard deviation 1."""
    variables, rng = golden.random_variables(model), np.random.default_rng(5)
    images = np.stack([normalize(drawn(rng, SIZES[0])[0]) for _ in range(8)])
    logits = np.asarray(jax.jit(model.apply)(variables, images))
    project = variables["params"]["head"]["classifier"]["project"]
    project["bias"] = (project["bias"] - logits.mean((0, 1, 2))) / logits.std((0, 1, 2))
    project["kernel"] = project["kernel"] / logits.std((0, 1, 2))
    return variables


def test_evaluation_over_eight_devices_is_a_plain_count_over_pictures(folder):
    run = prepare(config_of(folder, test__size_multiple=1), devices=jax.devices())  # nothing is padded
    variables = of_every_class(run.task.model)
    right, true, found = plain_counts(folder, run.task.model, variables)
    assert found.min() > 500
    assert evaluate(run, variables) == pytest.approx(
        {
            "eval/miou": np.mean(right / (true + found - right)),
            "eval/mean_accuracy": np.mean(right / true),
            "eval/accuracy": right.sum() / true.sum(),
            "eval/classes_counted": 3,
            "eval/ignored_fraction": 1 - true.sum() / sum(SIZES[i % 2][0] * SIZES[i % 2][1] for i in range(19)),
        },
        abs=2e-4,
    )


@pytest.mark.parametrize(
    ("bars", "ignored", "told"),
    [
        (3, 9, None),
        (
            0,
            0,
            "mIoU is over 2 of 3 classes, mean accuracy over 2. No pixel of the evaluation set is of 1 of 3 classes, 'bar'.",
        ),
        (
            0,
            9,
            "1 of 3 classes, 'bar'. Pixels of 255 occur, which count as no class. If 255 stands for 'bar', .* write 2 instead.",
        ),
    ],
)
def test_classes_that_no_evaluation_mask_shows_are_named_once(folder, prepare_once, caplog, bars, ignored, told):
    task = prepare_once(config_of(folder), ONE).task
    task._logged.clear()  # the task is that of other tests, too
    counts = SegmentationMetrics.single_from_model_output(
        confusion=np.diag([5, 4, bars]), ignored=np.int64(ignored), nonfinite=np.zeros(1)
    )
    for _ in range(2):
        assert task.summarize(counts)["classes_counted"] == (3 if bars else 2)
    assert len(caplog.records) == (told is not None)
    assert told is None or re.search(told, caplog.text)


def test_weights_that_give_no_numbers_are_told(folder, prepare_once):
    run = prepare_once(config_of(folder), ONE)
    broken = jax.tree.map(lambda leaf: leaf * np.nan, golden.random_variables(run.task.model))
    with pytest.raises(UserError, match="Expected finite outputs of the model, got NaN"):
        evaluate(run, broken)


def test_one_class_alone_is_refused(folder, tmp_path):
    alone = tmp_path / "alone"
    shutil.copytree(folder, alone)
    (alone / "classes.txt").write_text("object")
    with pytest.raises(UserError, match="Expected two or more classes to tell apart, got 'object' alone"):
        prepare(config_of(alone), devices=ONE)


def test_a_short_run_learns_and_leaves_everything_behind(folder, finished):
    workdir, results = finished
    lines = scalars(workdir)
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert len(losses) == 8
    assert losses[-1] < losses[0]
    assert {"train/accuracy", "train/auxiliary_loss", "train/learning_rate"} <= set(lines[0])
    assert 0 < results["eval/miou"] <= results["eval/mean_accuracy"] <= 1
    picture = Image.open(workdir / "segments.png")
    assert len(picture.getcolors(1 << 24)) > 50
    model, variables = paca_jax.load(workdir)
    assert model.config.num_classes == 3
    images = paca_jax.preprocess(folder / "images" / "validation" / "00.png", model)
    assert images.shape == (40, 56, 3)
    assert jax.eval_shape(model.apply, variables, images[None]).shape == (1, 10, 14, 3)


def test_a_run_that_was_cut_off_ends_in_the_same_bits(folder, finished, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished[0], workdir)
    shutil.rmtree(workdir / "checkpoints" / "8")
    train(config_of(folder), workdir, devices=ONE)
    assert scalars(workdir) == scalars(finished[0])
    whole, resumed = (paca_jax.load(place)[1] for place in (finished[0], workdir))
    assert jax.tree.all(jax.tree.map(np.array_equal, whole, resumed))


def test_eight_devices_agree_with_one(folder, prepare_once):
    mesh = {"mesh__data": 2, "mesh__fsdp": 2, "mesh__model": 2, "remat": True}
    many, one = prepare(config_of(folder, **mesh), devices=jax.devices()), prepare_once(config_of(folder), ONE)
    variables = golden.random_variables(one.task.model)
    losses = []
    for run in (many, one):
        with jax.set_mesh(run.mesh):
            state = run.start_from(variables)
            for batch in run.task.train_batches(0, 2, run.rows):
                state, scalars = run.train_step(state, run.to_devices(batch))
                losses.append(float(scalars["loss"]))
    np.testing.assert_allclose(losses[:2], losses[2:], rtol=1e-4)


@pytest.fixture
def from_a_classifier(folder, tmp_path):
    """A config that starts from a classifier's file, and that classifier's parameters."""
    config = config_of(folder, num_steps=2, freeze_backbone=True, init_allow_new=("head",))
    backbone = {key: config.model[key] for key in ("embed_dims", "depths", "num_heads")}
    classifier = paca_jax.create_model("pacavit_nano", num_classes=5, **backbone)
    variables = golden.random_variables(classifier)
    path = tmp_path / "classifier.safetensors"
    state = paca_jax.convert.to_torch(variables, classifier)
    paca_jax.checkpoints.write_state_dict(path, state, {"name": "pacavit_nano", "num_classes": 5, **backbone})
    config.init_from = str(path)
    return config, variables["params"]


def test_a_classifiers_weights_start_it_and_a_frozen_backbone_keeps_them(from_a_classifier):
    config, params = from_a_classifier
    run = prepare(config, devices=ONE)
    variables = initial_variables(config.init_from, run.task.model, config.init_allow_new)
    with jax.set_mesh(run.mesh):
        state = run.start_from(variables)
        for batch in run.task.train_batches(0, 2, run.rows):
            state, _ = run.train_step(state, run.to_devices(batch))
    given = {name: part for name, part in params.items() if name != "head"}
    assert jax.tree.all(jax.tree.map(np.array_equal, state.params["backbone"], given))
    assert not jax.tree.all(jax.tree.map(np.array_equal, state.params["head"], variables["params"]["head"]))


def test_a_head_that_was_never_trained_is_not_evaluated(from_a_classifier, tmp_path):
    told = r"nothing to evaluate: .*no checkpoint in .*none, .*init_from does not give the whole model: .*decode_head"
    with pytest.raises(UserError, match=told):
        evaluate_only(from_a_classifier[0], tmp_path / "none", devices=ONE)


def test_a_classifier_cannot_segment(folder):
    with pytest.raises(
        UserError, match=r"model\.name to be a segmentor such as 'pacahead_tiny' for .* 'segmentation', got 'pacavit_nano'"
    ):
        prepare(config_of(folder, model__head_channels=None, model__name="pacavit_nano"), devices=ONE)


def test_the_ade20k_step_can_be_prepared_without_its_data():
    config = ade20k("upernet,tiny")
    config.model.depths = (1, 1, 1, 1)
    run = prepare(config, devices=ONE, without_data=True)
    assert run.steps.total == 160_000
    assert run.abstract_batch["label"].shape == (16, 512, 512)
    assert len(run.task.class_names) == 150
    losses = jax.eval_shape(run.train_step, run.abstract, run.abstract_batch)[1]
    assert losses["loss"].dtype == jnp.float32


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (np.zeros((10, 10), np.uint8), "10"),
        (np.full((40, 56), 7, np.uint8), "7"),
        (np.zeros((40, 56, 3), np.uint8), "RGB"),
    ],
    ids=["size", "labels", "RGB"],
)
def test_a_wrong_mask_stops_the_run_with_its_name(folder, tmp_path, mask, told):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "masks" / "train" / "00.png").write_bytes(png(mask))
    run = prepare(config_of(broken), devices=ONE)
    with pytest.raises(UserError, match=rf"(?s)masks/train/00\.png.*{told}"):
        list(run.task.train_batches(0, 6, run.rows))


def test_a_picture_that_is_too_long_to_evaluate_is_named(folder, tmp_path):
    longer = tmp_path / "longer"
    shutil.copytree(folder, longer)
    pixels = np.zeros((2, 60_000), np.uint8)
    for kind in ("images", "masks"):
        (longer / kind / "validation" / "long.png").write_bytes(png(pixels))
    task = prepare(config_of(longer), devices=ONE).task
    with pytest.raises(UserError, match=r"images/validation/long\.png.*: Expected pictures that take at most 1 GiB .*60000x2"):
        list(task.eval_batches(range(8)))


def test_pictures_that_cannot_be_decoded_are_left_out_of_the_report(folder, tmp_path):
    broken = tmp_path / "shapes"
    shutil.copytree(folder, broken)
    damaged = broken / "images" / "validation" / "03.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    heights = []
    for name, root in (("whole", folder), ("broken", broken)):
        task = prepare(config_of(root, dataset__skip_corrupt=True), devices=ONE).task
        (tmp_path / name).mkdir()
        (sheet,) = task.report(golden.random_variables(task.model), epath.Path(tmp_path / name), remake=True)
        heights.append(Image.open(sheet).height)
    assert heights[1] < heights[0]
