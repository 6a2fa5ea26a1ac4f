"""Detection end to end on a small folder in COCO's format: training, evaluation, resuming, unusual pictures."""

import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import paca_jax
from paca_jax import data, ops
from paca_jax.errors import UserError
from paca_jax.tasks.detection.masks import paste_mask
from paca_jax.tasks.detection.metrics import Collected, Detections
from paca_jax.train.config import default_config
from paca_jax.train.evaluation import evaluate
from paca_jax.train.run import prepare
from paca_jax.train.train_loop import train
from tests import golden
from tests.runs import overridden, scalars

pytestmark = pytest.mark.xdist_group("detection")  # one worker makes the fixtures

ONE = jax.devices()[:1]
SIZES = {
    "train2017": 5 * [(64, 96), (70, 90)] + [(96, 64)],  # too few portraits to fill a batch
    "val2017": [(64, 96), (96, 64), (70, 90)],
}


def polygon(x, y, width, height):
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def split(root, name, count, rng):
    """Writes pictures of bright squares and blue bars.

    The first has no objects, the second only a crowd, and the third 100 objects, as many as COCO counts. In the training split
    the third has 300, the fourth a box of zero width, and the fifth a polygon of two points.
    """
    training = name.startswith("train")
    images, annotations = [], []
    (root / name).mkdir(parents=True)
    for index in range(count):
        height, width = SIZES[name][index % len(SIZES[name])]
        pixels = rng.integers(0, 60, (height, width, 3))
        for _ in range({0: 0, 1: 1, 2: 300 if training else 100}.get(index, 2)):
            category = int(rng.integers(2))
            w, h = (20, 20) if category == 0 else (34, 10)
            x, y = int(rng.integers(0, width - w)), int(rng.integers(0, height - h))
            pixels[y : y + h, x : x + w, : 3 if category == 0 else 1] = 220
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": 3 + 4 * category,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                    "segmentation": polygon(x, y, w, h),
                }
            )
            if index == 1:
                counts = [0, height * width]
                annotations[-1] |= {"iscrowd": 1, "segmentation": {"size": [height, width], "counts": counts}}
        if training and index == 3:
            annotations[-1]["bbox"][2] = 0
        elif training and index == 4:
            annotations[-1]["segmentation"] = [[x, y, x + w, y + h]]
        Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{index + 1}.png")
        images.append({"id": index + 1, "file_name": f"{index + 1}.png", "height": height, "width": width})
    categories = [{"id": 3, "name": "square"}, {"id": 7, "name": "bar"}]
    (root / "annotations").mkdir(exist_ok=True)
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / f"instances_{name}.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("coco"), np.random.default_rng(0)
    split(root, "train2017", 24, rng)
    split(root, "val2017", 11, rng)
    return root


def config_of(folder, **values):
    config = default_config()
    config.task = "detection"
    config.model.name = "mask_rcnn_nano"
    config.dataset.name, config.dataset.data_dir = "coco", str(folder)
    config.dataset.train_split = "train_all"
    settings = {
        "model.embed_dims": (16, 16, 32, 32),
        "model.depths": (1, 1, 1, 1),
        "model.num_heads": (1, 1, 2, 2),
        "model.head_channels": 16,
        "model.box_channels": 32,
        "model.train_candidates": 60,
        "model.candidates": 40,
        "model.proposals": 40,
        "model.detections": 10,
        "model.box_samples": 16,
        "model.mask_samples": 4,
        "short_side": 64,
        "long_side": 96,
        "augment.short_sides": (64,),
        "augment.bucket_sides": (64,),
        "augment.detr_crop": False,
        "batch_size": 8,
        "num_steps": 6,
        "warmup_steps": 0,
        "learning_rate": 1e-3,
        "log_every_steps": 1,
        "eval_every_steps": 3,
        "checkpoint_every_steps": 3,
    }
    return overridden(config, settings, values)


@pytest.fixture(scope="module")
def run(folder, prepare_once):
    """The run of these tests on one device."""
    return prepare_once(config_of(folder), ONE)


@pytest.fixture(scope="module")
def variables(run):
    return golden.random_variables(run.task.model)


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        told = []
        patch.setattr("paca_jax.train.train_loop.logger.info", lambda text, *values: told.append(text % values))
        results = train(config_of(folder), workdir, devices=ONE)
    return workdir, results, told


def test_a_short_run_learns_from_every_kind_of_picture_and_compiles_once_a_shape(run, finished):
    workdir, results, told = finished
    lines = scalars(workdir)
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert len(losses) == 6
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    for name in ("rpn_score_loss", "rpn_box_loss", "class_loss", "box_loss", "mask_loss"):
        assert f"train/{name}" in lines[0]
    assert {"eval/box_ap", "eval/mask_ap50", "eval/box_ar100"} <= set(results)
    assert Image.open(workdir / "detections.png").width > 640
    shapes = {tuple(array.shape for array in batch.values()) for batch in run.task.train_batches(0, 6, run.rows)}
    assert sum(text.startswith("Compiled the step") for text in told) == len(shapes) > 1


def test_a_run_that_was_cut_off_ends_in_the_same_bits(folder, finished, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished[0], workdir)
    shutil.rmtree(workdir / "checkpoints" / "6")
    train(config_of(folder), workdir, devices=ONE)
    assert scalars(workdir) == scalars(finished[0])
    whole, resumed = (paca_jax.load(place)[1] for place in (finished[0], workdir))
    assert jax.tree.all(jax.tree.map(np.array_equal, whole, resumed))


def test_eight_devices_agree_with_one(folder, run, variables):
    many = prepare(config_of(folder), devices=jax.devices())
    found = []
    for placed in (many, run):
        with jax.set_mesh(placed.mesh):
            batch = placed.to_devices(next(placed.task.train_batches(0, 1, placed.rows)))
            found.append(placed.train_step(placed.start_from(variables), batch)[1])
    for name in ("loss", "class_loss", "mask_loss"):
        assert float(found[0][name]) == pytest.approx(float(found[1][name]), rel=1e-4)
    assert evaluate(many, variables) == pytest.approx(evaluate(run, variables), abs=1e-3, nan_ok=True)


def test_evaluation_compiles_once_a_shape(folder, variables, caplog):
    run = prepare(config_of(folder), devices=ONE)
    shapes = {batch["image"].shape for batch in run.task.eval_batches(run.rows)}
    with jax.log_compiles():
        assert evaluate(run, variables) == evaluate(run, variables)
    assert sum("Finished XLA compilation of jit(eval_step)" in text for text in caplog.messages) == len(shapes) > 1


def test_no_step_asks_the_host(run, variables):
    batch = run.to_devices(next(run.task.train_batches(0, 1, run.rows)))
    pictures = run.to_devices(next(run.task.eval_batches(run.rows)))
    asking = re.compile("callback|infeed|outfeed|stablehlo.(send|recv)")
    with jax.set_mesh(run.mesh):
        assert not asking.search(run.train_step.lower(run.abstract, batch).as_text())
        assert not asking.search(run.eval_step.lower(variables, pictures).as_text())
    assert asking.search(jax.jit(lambda x: jax.pure_callback(np.sin, x, x)).lower(np.ones(2, np.float32)).as_text())


def test_masks_are_pasted_like_on_the_device():
    rng = np.random.default_rng(0)
    masks = rng.random((6, 28, 28)).astype(np.float32)
    boxes = np.array(
        [[3, 4, 20, 30], [-5, -7, 12.5, 9], [30.2, 20.1, 60, 50], [5, 5, 5, 9], [7, 7, 7.4, 7.3], [50, 60, 70, 80]]
    )
    pasted = np.asarray(ops.paste_masks(jnp.asarray(masks), jnp.asarray(boxes, jnp.float32), (40, 48))) >= 0.5
    for mask, box, expected in zip(masks, boxes, pasted, strict=True):
        assert np.mean(paste_mask(mask, box, (40, 48)) == expected) > 0.999


def test_one_picture_for_a_notebook(folder, finished):
    model, variables = paca_jax.load(finished[0])
    image = paca_jax.preprocess(folder / "val2017" / "3.png", model)
    assert image.shape == (64, 82, 3)
    found = jax.eval_shape(model.apply, variables, image[None])
    assert {name: array.shape for name, array in found.items()} == {
        "boxes": (1, 10, 4),
        "scores": (1, 10),
        "labels": (1, 10),
        "masks": (1, 10, 28, 28),
        "valid": (1, 10),
    }


def test_a_segmentor_cannot_detect(folder):
    with pytest.raises(
        UserError, match=r"model\.name to be a detector such as 'mask_rcnn_tiny' for .* 'detection', got 'upernet_nano'"
    ):
        prepare(config_of(folder, model__name="upernet_nano"), devices=ONE)


def test_weights_that_give_no_numbers_are_told(run, variables):
    broken = jax.tree.map(lambda leaf: leaf * np.nan, variables)
    with pytest.raises(UserError, match="Expected finite outputs of the model, got NaN"):
        evaluate(run, broken)


def test_an_output_of_another_process_that_is_no_number_is_told():
    there = Collected()
    there.finite = False
    assert not Collected.merged([Collected().to_bytes(), there.to_bytes()]).finite
    assert Collected.merged([Collected().to_bytes()] * 2).finite


def test_perfect_answers_are_worth_one(folder, run):
    dataset = data.open_dataset("coco", "validation", str(folder), ("image", "objects"))
    collected = Collected()
    for index in range(len(dataset)):
        objects = dataset.objects(index)
        masks = [data.encode_bitmap(_drawn(segments, objects["size"])) for segments in objects["segments"]]
        boxes = objects["boxes"]
        collected[index] = Detections(boxes, np.ones(len(boxes)), objects["labels"], masks)
    found = run.task.summarize(collected)
    assert found["box_ap"] == pytest.approx(1)
    assert found["mask_ap"] == pytest.approx(1)


def _drawn(segments, size):
    if isinstance(segments, dict):
        return np.ones(size, bool)
    (x1, y1), (x2, y2) = segments[0].reshape(-1, 2).min(0), segments[0].reshape(-1, 2).max(0)
    bitmap = np.zeros(size, bool)
    bitmap[int(y1) : int(y2), int(x1) : int(x2)] = True
    return bitmap
