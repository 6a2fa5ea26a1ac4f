import copy
import json
import math
import pickle

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from paca_jax.data import COCO_CLASSES, ObjectDataset, decode_image, describe_dataset, encode_bitmap, open_dataset
from paca_jax.data.codecs.rle import decode, parse_counts
from paca_jax.errors import UserError
from tests.data.coco_folder import content, crowd, square, write_folder

FEATURES = ("image", "objects")
SIZES = {12: (40, 60), 5: (50, 40), 9: (33, 32), 30: (31, 64), 2: (48, 48)}
# 5 has a crowd alone and 9 nothing, 30 is too small for training; annotations of one image need not stand together.
ANNOTATIONS = [
    square(100, 12, 10.25, 4.5, 12.37),
    crowd(101, 5, SIZES[5]),
    square(102, 30, 3, 3, 9, category=90),
    square(104, 12, 30, 20, 15, category=7, segmentation=[[30, 20, 45, 20, 45, 35], [31.1, 33, 35.5, 33, 31, 34.01]]),
    crowd(103, 12, SIZES[12], "text"),
    square(7, 2, 0, 0, 48, category=90),
]
TRAIN = [12, 5, 2]
JSON = "annotations/instances_train2017.json"


@pytest.fixture
def holds():
    return copy.deepcopy(content(SIZES, ANNOTATIONS))


@pytest.fixture
def folder(holds, tmp_path):
    return write_folder(tmp_path, holds, JSON, "train2017")


def opened(folder, split="train"):
    return open_dataset("coco", split, str(folder), FEATURES)


def refused(folder, split="train"):
    with pytest.raises(UserError) as caught:
        opened(folder, split)
    return str(caught.value)


def test_training_leaves_out_what_has_no_annotation_or_is_too_small(folder):
    dataset, everything = opened(folder), opened(folder, "train_all")
    assert isinstance(dataset, ObjectDataset)
    assert (dataset.name, dataset.split, len(dataset), len(everything)) == ("coco", "train", 3, 5)
    assert dataset.image_ids.tolist() == TRAIN
    assert everything.image_ids.tolist() == list(SIZES)
    assert everything.sizes.tolist() == [list(size) for size in SIZES.values()]
    assert dataset.num_objects.tolist() == [2, 0, 1]
    assert everything.num_objects.tolist() == [2, 0, 0, 1, 1]
    for index, number in enumerate(TRAIN):
        path = folder / "train2017" / f"{number:04}.png"
        assert dataset[index]["image"] == path.read_bytes()
        assert dataset[index]["index"] == index
        assert dataset.where(index) == f"image {number} ({path})"
    for index in (-1, 3):
        with pytest.raises(IndexError):
            dataset[index]


def test_labels_follow_the_category_ids(folder):
    dataset = opened(folder)
    assert dataset.class_names == ("bee", "cat", "ant")
    assert dataset.category_ids == (3, 7, 90)
    assert dataset.objects(0)["labels"].tolist() == [0, 1, 1]
    assert dataset.objects(2)["labels"].tolist() == [2]


def test_objects_are_those_of_the_file(folder):
    objects = opened(folder)[0]["objects"]
    assert {key: (value.shape, value.dtype.name) for key, value in objects.items() if isinstance(value, np.ndarray)} == {
        "boxes": ((3, 4), "float32"),
        "labels": ((3,), "int32"),
        "crowd": ((3,), "bool"),
        "area": ((3,), "float64"),
    }
    np.testing.assert_allclose(objects["boxes"][0], [10.25, 4.5, 22.62, 16.87])
    assert objects["boxes"][1:].tolist() == [[30, 20, 45, 35], [0, 0, 30, 40]]
    assert objects["crowd"].tolist() == [False, False, True]
    assert (objects["image_id"], objects["size"]) == (12, (40, 60))
    first, second, third = objects["segments"]
    assert [polygon.tolist() for polygon in first] == ANNOTATIONS[0]["segmentation"]
    assert [polygon.tolist() for polygon in second] == ANNOTATIONS[3]["segmentation"]
    assert third == {"size": [40, 60], "counts": [0, 1200, 1200]}


def test_annotations_come_back_with_the_numbers_of_the_file(folder):
    dataset = opened(folder, "train_all")
    found = [annotation for index in range(5) for annotation in dataset.annotations(index)]
    by_image = {number: [given for given in ANNOTATIONS if given["image_id"] == number] for number in SIZES}
    given = [copy.deepcopy(annotation) for number in SIZES for annotation in by_image[number]]
    assert len(found) == len(given)
    for annotation, expected in zip(found, given, strict=True):
        del expected["id"]
        if isinstance(expected["segmentation"], dict):
            counts = expected["segmentation"]["counts"]
            expected["segmentation"]["counts"] = parse_counts(counts) if isinstance(counts, str) else counts
        assert annotation == expected


def test_numbers_that_are_no_hundredths_are_kept_too(holds, tmp_path):
    holds["annotations"][0]["segmentation"] = [[1 / 3, 2.0000001, 20, math.pi, 7.5, 30.3]]
    dataset = opened(write_folder(tmp_path, holds, JSON, "train2017"))
    assert dataset.objects(0)["segments"][0][0].tolist() == [1 / 3, 2.0000001, 20, math.pi, 7.5, 30.3]


def test_a_pickled_copy_needs_neither_the_file_nor_dicts(folder):
    dataset = opened(folder)
    size = len(pickle.dumps(dataset))
    copied = pickle.loads(pickle.dumps(dataset))
    (folder / JSON).unlink()
    assert copied.annotations(0) == dataset.annotations(0)
    assert copied[1]["image"] == dataset[1]["image"]
    assert size < 8000


@pytest.mark.parametrize(
    ("annotations", "images", "split"),
    [
        ("annotations/instances_val2017.json", "val2017", "validation"),
        ("annotations/val.json", "images/val", "validation"),
        ("valid/_annotations.coco.json", "valid", "validation"),
        ("annotations/instances_train.json", "images", "train"),
        ("annotations/test.json", ".", "test"),
    ],
)
def test_other_layouts(holds, tmp_path, annotations, images, split):
    dataset = opened(write_folder(tmp_path, holds, annotations, images), split)
    assert decode_image(dataset[0]["image"], 3).size == (60, 40)


def test_published_splits_are_described_without_files():
    described = {split: describe_dataset("coco", split, None, FEATURES) for split in ("train", "train_all", "validation")}
    assert {split: len(facts) for split, facts in described.items()} == {
        "train": 117266,
        "train_all": 118287,
        "validation": 5000,
    }
    assert all(facts.class_names == COCO_CLASSES for facts in described.values())
    assert (len(COCO_CLASSES), COCO_CLASSES[0], COCO_CLASSES[-1]) == (80, "person", "toothbrush")
    assert len(set(COCO_CLASSES)) == 80


def test_what_is_no_coco_folder_is_reported(holds, folder, tmp_path):
    assert refused(folder, "validation").startswith(
        f"Expected the annotations of split 'validation' at {folder}/annotations/instances_val2017.json, found neither"
    )
    assert "Expected one of the splits 'train', 'train_all', 'validation', 'test' of a COCO folder, got 'all'" in refused(
        folder, "all"
    )
    with pytest.raises(UserError, match="Expected the folder of images, got None"):
        open_dataset("coco", "train", None, FEATURES)
    with pytest.raises(
        UserError, match=r"Expected features of the data set 'coco', 'image' and 'objects' or .*, got 'image', 'label'"
    ):
        open_dataset("coco", "train", str(folder))
    (folder / JSON).write_bytes(b"\x80\x81 no text")
    assert f"Expected a COCO annotation file at {folder / JSON}, got a file that is not JSON" in refused(folder)
    (folder / JSON).write_text("[1, 2]")
    assert "got JSON without 'images', 'annotations', 'categories'. Give an instances file" in refused(folder)
    for annotation in holds["annotations"]:
        del annotation["segmentation"]
    (folder / JSON).write_text(json.dumps(holds))
    assert "Expected segmentations of the objects in the COCO file" in refused(folder)
    assert refused(folder).endswith("or train on boxes alone with dataset.boxes_only=True.")


def test_run_lengths_are_those_of_coco():
    rng = np.random.default_rng(0)
    for share in (0, 0.02, 0.5, 0.98, 1):
        for size in ((1, 1), (7, 300), (300, 5), (64, 48)):
            bitmap = rng.random(size) < share
            encoded = encode_bitmap(bitmap)
            assert encoded["counts"] == coco_mask.encode(np.asfortranarray(bitmap, np.uint8))["counts"].decode()
            counts = parse_counts(encoded["counts"])
            assert sum(counts) == bitmap.size
            for form in (encoded, {"size": list(size), "counts": counts}):
                np.testing.assert_array_equal(decode(form), bitmap)
