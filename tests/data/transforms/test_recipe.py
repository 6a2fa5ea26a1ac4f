"""ImageNet as TFDS prepares it, read with the whole recipe of training."""

import numpy as np
import pytest

from paca_jax.data import (
    IMAGENET_CLASSES,
    IMAGENET_SYNSETS,
    EvalTransform,
    TrainTransform,
    eval_batches,
    open_dataset,
    readable_names,
    train_batches,
)
from tests.data.tiny import encode, prepare_tfds

SIZES = [(75, 100), (100, 75), (64, 64), (40, 120)]
LABELS = [0, 999, 388, 17, 281, 0, 734, 5, 6, 7, 500]
TRANSFORM = TrainTransform(48, rand_operations=2, rand_magnitude=9.0, rand_magnitude_std=0.5)
STEPS = {"batch_size": 4, "seed": 11, "start_step": 0, "num_steps": 6}


def example(index, label):
    height, width = SIZES[index % len(SIZES)]
    rows, columns = np.mgrid[:height, :width]
    image = np.dstack([columns * 2, rows * 2, np.full_like(rows, 20 * index)]).astype(np.uint8)
    return {"image": encode(image, "JPEG"), "label": label, "file_name": f"{IMAGENET_SYNSETS[label]}_{index}.JPEG"}


TRAIN = [example(i, label) for i, label in enumerate(LABELS)]
VALIDATION = [example(i, label) for i, label in enumerate(LABELS[::-1])]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("tfds")
    features = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "label": tfds.features.ClassLabel(names=list(IMAGENET_SYNSETS)),
        "file_name": tfds.features.Text(),
    }
    splits = {"train": TRAIN, "validation": VALIDATION}
    prepare_tfds(folder, "imagenet2012:5.1.0", features, splits, "array_record")
    return str(folder)


def test_examples_classes_and_splits(data_dir):
    for split, examples in (("train", TRAIN), ("validation", VALIDATION)):
        dataset = open_dataset("imagenet2012", split, data_dir)
        assert [dataset[i] for i in range(len(dataset))] == [{"image": e["image"], "label": e["label"]} for e in examples]
        assert dataset.class_names == IMAGENET_SYNSETS
        assert readable_names(dataset.class_names) == IMAGENET_CLASSES
    assert len(open_dataset("imagenet2012:5.1.0", "train[:5]", data_dir)) == 5


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_recipe_gives_the_same_batches_in_threads_and_workers(data_dir, workers):
    dataset = open_dataset("imagenet2012", "train", data_dir)
    batches = list(train_batches(dataset, TRANSFORM, **STEPS, num_workers=workers))
    line = np.concatenate([batch["label"] for batch in batches])
    assert sorted(line[:11]) == sorted(line[11:22]) == sorted(LABELS)
    for batch in batches:
        assert {key: (value.shape, value.dtype.name) for key, value in batch.items()} == {
            "image": ((4, 48, 48, 3), "uint8"),
            "label": ((4,), "int32"),
            "valid": ((4,), "float32"),
        }
    one_by_one = train_batches(dataset, TRANSFORM, **{**STEPS, "batch_size": 1, "num_steps": 24})
    images = np.concatenate([batch["image"] for batch in batches])
    np.testing.assert_array_equal(images, np.concatenate([batch["image"] for batch in one_by_one]))


def test_evaluation_reads_the_validation_split_once(data_dir):
    dataset = open_dataset("imagenet2012", "validation", data_dir)
    batches = list(eval_batches(dataset, EvalTransform(48), batch_size=4))
    mask = np.concatenate([batch["valid"] for batch in batches])
    assert np.concatenate([batch["label"] for batch in batches])[mask == 1].tolist() == LABELS[::-1]
    assert mask.sum() == 11
