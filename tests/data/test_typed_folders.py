"""Folders of data sets as users type them, wherever they can be given."""

import numpy as np
import pytest

from paca_jax.data import open_dataset
from paca_jax.data.convert_records import convert
from paca_jax.data.prepare import prepare
from paca_jax.errors import UserError
from tests.data.coco_folder import content, square, write_folder
from tests.data.tiny import encode, prepare_tfds

OBJECTS = ("image", "objects")


def opened(name, features=("image", "label")):
    return lambda typed: open_dataset(name, "train", typed, features)


PLACES = {
    "tfds": opened("tiny"),
    "coco": opened("coco", OBJECTS),
    "folder": opened("folder"),
    "prepare": lambda typed: prepare("tiny", typed),
    "convert": convert,
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("typed", ["https://host/data", "s3://bucket/data", "", "  "])
def test_what_is_no_path_is_refused(place, typed):
    with pytest.raises(UserError, match="Expected a path"):
        PLACES[place](typed)


def test_a_home_folder_is_expanded(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    monkeypatch.setenv("HOME", str(tmp_path))
    write_folder(tmp_path / "coco", content({1: (40, 40)}, [square(1, 1, 3, 3, 9)]), "annotations/train.json", "train")
    assert len(open_dataset("coco", "train", "~/coco", OBJECTS)) == 1
    features = {"image": tfds.features.Image(shape=(2, 2, 3)), "label": tfds.features.ClassLabel(num_classes=2)}
    example = {"image": encode(np.zeros((2, 2, 3), np.uint8)), "label": 1}
    prepare_tfds(tmp_path / "old", "tiny:1.2.0", features, {"train": [example] * 2}, "tfrecord")
    convert("~/old/tiny/1.2.0", "~/new/tiny/1.2.0")
    assert len(open_dataset("tiny", "train", "~/new")) == 2
    assert prepare("tiny", "~/new") == str(tmp_path / "new/tiny/1.2.0")


def test_conversion_is_on_this_machine():
    with pytest.raises(UserError, match=r"Expected a folder on this machine, got gs://bucket/tiny/1\.2\.0\. Copy it"):
        convert("gs://bucket/tiny/1.2.0")
