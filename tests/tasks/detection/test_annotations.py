"""What a detection task makes of a COCO export: boxes without masks, classes that are absent, files that disagree."""

import copy

import numpy as np
import pytest

from paca_jax.data import Objects, encode_bitmap
from paca_jax.errors import UserError
from paca_jax.tasks.detection.metrics import Collected, Detections
from paca_jax.tasks.detection.task import Detection
from paca_jax.train.config import default_config, model_overrides
from tests.data.coco_folder import content, crowd, square, write_folder

SIZES = {12: (40, 60), 5: (50, 40), 9: (64, 64)}
ANNOTATIONS = [square(1, 12, 10, 4, 12), square(2, 12, 30, 20, 15, category=7), crowd(3, 5, SIZES[5]), square(4, 9, 8, 8, 40)]


@pytest.fixture
def holds():
    return copy.deepcopy(content(SIZES, ANNOTATIONS))


def task(root, training, evaluation, **dataset):
    write_folder(root, training, "annotations/train.json", "train")
    write_folder(root, evaluation, "annotations/val.json", "val")
    config = default_config()
    config.task, config.model.name = "detection", "mask_rcnn_nano"
    config.dataset.update({"name": "coco", "data_dir": str(root), **dataset})
    config.augment.short_sides, config.augment.bucket_sides, config.augment.detr_crop = (64,), (64,), False
    config.short_side, config.long_side, config.batch_size = 64, 96, 3
    return Detection(config, model_overrides(config), False)


def answers(task):
    """The true objects of the evaluation set, as detections."""
    found = Collected()
    for index, row in enumerate(task._eval_set.objects(i) for i in range(len(task._eval_set))):
        objects: Objects = row
        mask = encode_bitmap(np.ones(objects["size"]))
        count = len(objects["boxes"])
        found[index] = Detections(objects["boxes"], np.ones(count), objects["labels"], [mask] * count)
    return found


def test_boxes_alone_are_trained_on_and_evaluated(holds, tmp_path):
    for annotation in holds["annotations"]:
        annotation["segmentation"] = []
    made = task(tmp_path, holds, holds, boxes_only=True)
    batch = next(made.train_batches(0, 1, range(3)))
    assert batch["object_valid"].any()
    masks = np.unpackbits(batch["masks"], axis=-1).astype(bool)
    for row, valid in enumerate(batch["object_valid"]):
        for (left, top, right, bottom), mask in zip(batch["boxes"][row][valid], masks[row][valid], strict=True):
            assert mask.sum() == pytest.approx((right - left) * (bottom - top), rel=0.15)
    numbers = made.summarize(answers(made))
    assert numbers["box_ap"] == pytest.approx(1)
    assert not any(name.startswith("mask") for name in numbers)


def test_boxes_without_masks_are_refused_at_once(holds, tmp_path):
    for annotation in holds["annotations"]:
        del annotation["segmentation"]
    with pytest.raises(
        UserError, match=r"got only boxes\. Add polygons .* or train on boxes alone with dataset\.boxes_only=True"
    ):
        task(tmp_path, holds, holds)


def test_classes_without_objects_are_named_with_the_result(holds, tmp_path, caplog):
    """ "ant" has no annotation; "cat" has a crowd and an object without a mask."""
    holds["annotations"][1]["segmentation"] = [[1, 2, 3]]
    made = task(tmp_path, holds, holds)
    assert made.summarize(answers(made))["classes_counted"] == 2
    made.summarize(answers(made))
    said = [text for text in caplog.messages if "AP is over" in text]
    assert said == [
        "Box AP is over 2 of 3 classes. The evaluation set shows no box of 1 of 3 classes, 'ant'.",
        "Mask AP is over 1 of 3 classes. The evaluation set shows no mask of 2 of 3 classes, 'cat', 'ant'.",
    ]


def test_sizes_without_objects_are_told_once(holds, tmp_path, caplog):
    made = task(tmp_path, holds, holds)
    numbers = [made.summarize(answers(made)) for _ in range(2)][-1]
    large = [f"{kind}_{number}_large" for kind in ("box", "mask") for number in ("ap", "ar")]
    assert np.isnan([numbers[name] for name in large]).all()
    (said,) = [text for text in caplog.messages if "No value" in text]
    assert said.startswith(f"No value (nan, null in JSON) for {', '.join(large)}: the evaluation set shows no objects ")


def test_training_names_the_classes_that_it_never_sees(holds, tmp_path, caplog):
    holds["annotations"][1]["area"] = 0
    next(task(tmp_path, holds, holds).train_batches(0, 1, range(3)))
    assert any("2 of 3 classes, 'cat', 'ant'" in text for text in caplog.messages)


@pytest.mark.parametrize(
    ("categories", "difference"),
    [
        ([{"id": 3, "name": "bee"}, {"id": 7, "name": "cat"}], "got 'ant' in only one of them"),
        (
            [{"id": 3, "name": "bee"}, {"id": 7, "name": "cat"}, {"id": 90, "name": "fly"}],
            "got 'ant', 'fly' in only one of them",
        ),
        (
            [{"id": 7, "name": "bee"}, {"id": 3, "name": "cat"}, {"id": 90, "name": "ant"}],
            "got the same names in another order",
        ),
    ],
)
def test_both_files_must_number_their_classes_alike(holds, tmp_path, categories, difference):
    with pytest.raises(UserError, match=f"Expected the same categories in the training and the evaluation set, .*{difference}"):
        task(tmp_path, holds, {**holds, "categories": categories})


def test_the_ids_of_the_categories_may_differ(holds, tmp_path):
    other = copy.deepcopy(holds)
    for entry, key in [(entry, "id") for entry in other["categories"]] + [(one, "category_id") for one in other["annotations"]]:
        entry[key] += 100
    made = task(tmp_path, holds, other)
    assert made._eval_set.category_ids == (103, 107, 190)
    assert made.summarize(answers(made))["box_ap"] == pytest.approx(1)
