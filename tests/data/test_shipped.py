import gzip
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from paca_jax.data import ADE20K_CLASSES, IMAGENET_CLASSES, IMAGENET_SYNSETS, decode_image, open_dataset, readable_names
from paca_jax.errors import UserError
from scripts import build_fashion_mnist, fashion_mnist_folder
from tests.data.tiny import DATASETS

FASHION = Path(DATASETS) / "fashion_mnist_small"


@pytest.mark.parametrize(("split", "official", "per_class"), [("train", 60000, 1200), ("test", 10000, 200)])
def test_fashion_mnist_is_even_and_whole(split, official, per_class):
    dataset = open_dataset("fashion_mnist_small", split, DATASETS, features=("image", "label", "index"))
    examples = [dataset[i] for i in range(len(dataset))]
    assert Counter(example["label"] for example in examples) == dict.fromkeys(range(10), per_class)
    indices = [int(example["index"]) for example in examples]
    assert len(set(indices)) == len(indices)
    assert 0 <= min(indices) < max(indices) < official
    assert all(decode_image(example["image"], 1).size == (28, 28) for example in examples[::50])
    # Every stretch of the file mixes the classes.
    assert {example["label"] for example in examples[:100]} == set(range(10))


def test_fashion_mnist_looks_like_its_labels():
    dataset = open_dataset("fashion_mnist_small", "test", DATASETS)
    assert dataset.class_names[0] == "T-shirt/top"
    assert dataset.class_names[9] == "Ankle boot"
    means = np.zeros((10, 28, 28))
    for i in range(len(dataset)):
        example = dataset[i]
        means[example["label"]] += np.asarray(decode_image(example["image"], 1)) / 200
    trouser, pullover, sandal, boot = means[[1, 2, 5, 9]]
    assert trouser[20, 13:15].mean() < 0.6 * trouser[20, 9:12].mean()  # a gap between two legs
    assert pullover.mean() > 2 * sandal.mean()
    assert boot[20:24].mean() > 2 * boot[:4].mean()  # a sole, and nothing above the shaft


def test_fashion_mnist_is_small_and_has_its_license():
    files = [path for path in FASHION.rglob("*") if path.is_file()]
    assert max(path.stat().st_size for path in files) < 2**21
    assert sum(path.stat().st_size for path in files) < 10_000_000
    assert "Zalando SE" in (FASHION / "LICENSE").read_text("utf-8")
    assert "build_fashion_mnist.py" in (FASHION / "README.md").read_text("utf-8")


@pytest.fixture
def fewer_images(monkeypatch):
    monkeypatch.setattr(build_fashion_mnist, "PER_CLASS", {"train": 30, "test": 20})


@pytest.fixture
def originals(tmp_path):
    """A folder of IDX files like the originals, with 40 and 25 images of each class."""
    folder = tmp_path / "idx"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 40), ("t10k", 25)):
        labels = rng.permutation(np.repeat(np.arange(10, dtype=np.uint8), count))
        images = np.zeros((len(labels), 28, 28), np.uint8)
        images[:, 0, :2] = np.stack([np.arange(len(labels)) % 256, np.arange(len(labels)) // 256], 1)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            (folder / f"{prefix}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes(), 1))
    return folder


@pytest.mark.usefixtures("fewer_images")
def test_rebuilding_gives_the_same_bytes_and_the_right_images(originals, tmp_path):
    first, second = (build_fashion_mnist.build(originals, tmp_path / name) for name in ("a", "b"))
    contents = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in (first, second)]
    assert contents[0] == contents[1]
    assert contents[0].keys() == {path.name for path in (FASHION / "1.0.0").iterdir()}
    dataset = open_dataset("fashion_mnist_small", "test", str(tmp_path / "a"), features=("image", "label", "index"))
    labels = build_fashion_mnist.read_idx(originals / "t10k-labels-idx1-ubyte.gz")
    assert len(dataset) == 200
    for i in range(0, 200, 10):
        low, high = np.asarray(decode_image(dataset[i]["image"], 1))[0, :2].astype(int)
        assert dataset[i]["index"] == low + 256 * high
        assert dataset[i]["label"] == labels[low + 256 * high]
    with pytest.raises(UserError, match="Expected no data set at"):
        build_fashion_mnist.build(originals, tmp_path / "a")


@pytest.mark.usefixtures("fewer_images")
def test_rebuilding_refuses_missing_and_cut_files(originals, tmp_path):
    path = originals / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1]))
    with pytest.raises(UserError, match="is none or is cut short"):
        build_fashion_mnist.build(originals, tmp_path / "out")
    path.unlink()
    with pytest.raises(UserError, match=r"Expected the original Fashion-MNIST file train-labels-idx1-ubyte\.gz"):
        build_fashion_mnist.build(originals, tmp_path / "out")
    assert list((tmp_path / "out" / "fashion_mnist_small").iterdir()) == []


def test_all_of_fashion_mnist_as_a_folder(originals, tmp_path):
    fashion_mnist_folder.main([str(originals), str(tmp_path / "folder")])
    for split, name in (("train", "train"), ("test", "validation")):
        images, labels = build_fashion_mnist.read_split(originals, split)
        dataset = open_dataset("folder", name, str(tmp_path / "folder"), features=("image", "label"))
        assert len(dataset) == len(images)
        found = {}
        for index in range(len(dataset)):
            low, high = np.asarray(decode_image(dataset[index]["image"], 1))[0, :2].astype(int)
            found[low + 256 * high] = dataset.class_names[dataset[index]["label"]]
        assert found == {number: fashion_mnist_folder.NAMES[label] for number, label in enumerate(labels)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no gzip", "is none or is cut short"),
        (gzip.compress(b"\0\0\x08\x03" + b"\0\0\0\1" * 2), "is none or is cut short"),
        (gzip.compress(b"\0\0\x08\x01" + b"\0\0\0\2" + b"ab"), r"got arrays of shapes \(250, 28, 28\) and \(2,\)"),
    ],
)
def test_fashion_mnist_that_is_damaged_is_not_written(originals, tmp_path, content, message):
    (originals / "t10k-labels-idx1-ubyte.gz").write_bytes(content)
    with pytest.raises(UserError, match=message):
        fashion_mnist_folder.main([str(originals), str(tmp_path / "folder")])
    assert not (tmp_path / "folder").exists()


def test_imagenet_names():
    import tensorflow_datasets as tfds

    official = tfds.core.tfds_path("datasets/imagenet2012/labels.txt").read_text().split()
    assert official == list(IMAGENET_SYNSETS)
    assert len(IMAGENET_CLASSES) == 1000
    known = {
        0: "tench",
        1: "goldfish",
        281: "tabby",
        388: "giant panda",
        734: "police van",
        817: "sports car",
        999: "toilet tissue",
    }
    assert {label: IMAGENET_CLASSES[label].split(",")[0] for label in known} == known
    assert [name for name, count in Counter(IMAGENET_CLASSES).items() if count > 1] == ["crane"]
    assert all(name == name.strip() and name for name in IMAGENET_CLASSES)


def test_readable_names_are_for_imagenet_in_its_order_only():
    assert readable_names(IMAGENET_SYNSETS) == readable_names(list(IMAGENET_SYNSETS)) == IMAGENET_CLASSES
    assert readable_names(["ant", "bee"]) == ("ant", "bee")
    assert readable_names(IMAGENET_SYNSETS[::-1]) == IMAGENET_SYNSETS[::-1]


def test_ade20k_names():
    assert len(set(ADE20K_CLASSES)) == 150
    known = {
        0: "wall",
        1: "building",
        2: "sky",
        12: "person",
        20: "car",
        44: "chest of drawers",
        89: "television receiver",
        149: "flag",
    }
    assert {label: ADE20K_CLASSES[label] for label in known} == known
    assert all(name == name.strip() and name for name in ADE20K_CLASSES)
