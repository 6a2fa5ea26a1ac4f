import json
import pickle
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest

from paca_jax.data import ADE20K_CLASSES, Dataset, convert_records, decode_mask, describe_dataset, open_dataset
from paca_jax.data.convert_records import convert
from paca_jax.data.prepare import prepare
from paca_jax.errors import UserError
from tests.data.tiny import DATASETS, encode, prepare_tfds
from tests.runs import run_code

EXAMPLES = [{"image": encode(np.full((2, 3, 3), 10 * i, np.uint8)), "label": i % 3} for i in range(7)]
MASKS = [encode(np.full((2, 3), i, np.uint8)) for i in range(7)]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A folder with `tiny` (tfrecord, 2 shards), and as array_record `masks`, `named_masks`, `scene_parse150` (the features of
    TFDS's own builder) and `words` (no image)."""
    import tensorflow_datasets as tfds

    image = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
    label = tfds.features.ClassLabel(names=["ant", "bee", "cat"])
    mask = tfds.features.Image(shape=(None, None, 1), encoding_format="png")
    named_mask = tfds.features.LabeledImage(labels=["sky", "sea"], shape=(None, None, 1), encoding_format="png")
    numbers = tfds.features.Tensor(shape=(2,), dtype=np.int32)
    masks = [{**example, "mask": MASKS[i], "numbers": [i, 9]} for i, example in enumerate(EXAMPLES)]
    named_masks = [{"image": example["image"], "mask": MASKS[i]} for i, example in enumerate(EXAMPLES)]
    scenes = [{"image": example["image"], "annotation": MASKS[i]} for i, example in enumerate(EXAMPLES)]
    scene_features = {"image": tfds.features.Image(), "annotation": tfds.features.Image(encoding_format="png")}
    folder = tmp_path_factory.mktemp("prepared") / "data"
    for name, file_format, features, examples in (
        ("tiny", "tfrecord", {"image": image, "label": label}, EXAMPLES),
        ("masks", "array_record", {"image": image, "label": label, "mask": mask, "numbers": numbers}, masks),
        ("named_masks", "array_record", {"image": image, "mask": named_mask}, named_masks),
        ("scene_parse150", "array_record", scene_features, scenes),
        ("words", "array_record", {"text": tfds.features.Text(), "label": label}, [{"text": "x", "label": 1}] * 2),
    ):
        prepare_tfds(folder, f"{name}:1.2.0", features, {"train": examples, "test": examples[:2]}, file_format)
    return folder


@pytest.fixture
def converted(prepared, tmp_path):
    return convert(prepared / "tiny" / "1.2.0", tmp_path / "tiny" / "1.2.0")


def test_converted_examples_are_the_same_in_order(converted, prepared):
    dataset = open_dataset("tiny", "train", data_dir=str(converted.parents[1]))
    assert [dataset[i] for i in range(len(dataset))] == EXAMPLES
    assert len(open_dataset("tiny", "test", data_dir=str(converted.parents[1]))) == 2
    assert dataset.class_names == ("ant", "bee", "cat")
    names = sorted(path.name for path in converted.iterdir())
    assert names == sorted(path.name.replace("tfrecord", "array_record") for path in (prepared / "tiny" / "1.2.0").iterdir())
    assert len(list(converted.glob("tiny-train.array_record-*"))) == 2


def test_converted_records_are_the_same_bytes(converted, prepared):
    import tensorflow as tf
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    for source in (prepared / "tiny" / "1.2.0").glob("*.tfrecord-*"):
        old = [record.numpy() for record in tf.data.TFRecordDataset(str(source))]
        with ArrayRecordDataSource(str(converted / source.name.replace("tfrecord", "array_record"))) as new:
            assert list(new) == old
        assert old


def test_conversion_goes_beside_the_data_folder_and_never_overwrites(prepared, tmp_path, monkeypatch, capsys):
    shutil.copytree(prepared / "tiny", tmp_path / "data" / "tiny")
    folder = tmp_path / "data" / "tiny" / "1.2.0"
    monkeypatch.setattr("sys.argv", ["convert_records", str(folder)])
    convert_records.main()
    data_dir = tmp_path / "data_array_record"
    assert capsys.readouterr().out.splitlines()[-1] == f"Done. Use it with dataset.data_dir={data_dir}"
    assert len(open_dataset("tiny", "train", data_dir=str(data_dir))) == 7
    assert sorted(path.name for path in (data_dir / "tiny").iterdir()) == ["1.2.0"]
    with pytest.raises(UserError, match=r"Expected no folder at .*, found one. Delete it or name another with --out"):
        convert(folder)
    with pytest.raises(SystemExit) as caught:
        convert_records.main()
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("error: Expected no folder at ")


def test_conversion_refuses_what_it_cannot_convert(prepared, tmp_path):
    with pytest.raises(UserError, match=r"has no dataset_info\.json"):
        convert(prepared / "tiny")
    with pytest.raises(UserError, match=r"holds array_record\. Give another"):
        convert(prepared / "masks" / "1.2.0")
    with pytest.raises(UserError, match=r"Expected a folder that ends with tiny/1\.2\.0"):
        convert(prepared / "tiny" / "1.2.0", tmp_path / "other")


@pytest.mark.parametrize(
    ("kept", "shards", "message"),
    [
        ((), None, r"Expected splits with examples in .*dataset_info\.json, got none"),
        (("train", "test"), [], r"Expected splits with examples in .*dataset_info\.json, got none"),
        (("train",), None, r"does not list 'tiny-test\.tfrecord-00000-of-00002'"),
        (("test",), None, r"does not list 'tiny-train\.tfrecord-00000-of-00002', 'tiny-train\.tfrecord-00001-of-00002'"),
    ],
)
def test_conversion_refuses_metadata_without_the_splits_of_the_records(prepared, tmp_path, kept, shards, message):
    folder = tmp_path / "data" / "tiny" / "1.2.0"
    shutil.copytree(prepared / "tiny" / "1.2.0", folder)
    info = json.loads((folder / "dataset_info.json").read_text())
    info["splits"] = [split for split in info["splits"] if split["name"] in kept]
    for split in info["splits"]:
        split["shardLengths"] = split["shardLengths"] if shards is None else shards
    (folder / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match=message):
        convert(folder)
    assert not (tmp_path / "data_array_record").exists()


def test_conversion_of_a_damaged_file_leaves_nothing(prepared, tmp_path):
    folder = tmp_path / "data" / "tiny" / "1.2.0"
    shutil.copytree(prepared / "tiny" / "1.2.0", folder)
    shard = max(folder.glob("tiny-train*"))
    shard.write_bytes(shard.read_bytes()[:-7])
    with pytest.raises(UserError, match=r"Expected the intact file .*, reading example \d of it failed \(DataLossError\)"):
        convert(folder)
    assert list((tmp_path / "data_array_record" / "tiny").iterdir()) == []


def test_masks_come_as_the_bytes_of_their_files(prepared):
    dataset = open_dataset("masks", "train", str(prepared), features=("image", "mask"))
    assert [dataset[i] for i in range(7)] == [{"image": EXAMPLES[i]["image"], "mask": MASKS[i]} for i in range(7)]
    assert (decode_mask(dataset[3]["mask"]) == 3).all()
    assert pickle.loads(pickle.dumps(dataset))[3] == dataset[3]


def test_other_features_come_as_tfds_decodes_them(prepared):
    example = open_dataset("masks", "train", str(prepared), features=("mask", "numbers"))[3]
    assert example.keys() == {"mask", "numbers"}
    assert example["mask"] == MASKS[3]
    assert example["numbers"].dtype == np.int32
    assert example["numbers"].tolist() == [3, 9]


def test_reading_masks_imports_no_tensorflow(prepared):
    code = (
        "import sys; from paca_jax.data import open_dataset;"
        f"example = open_dataset('named_masks', 'train', {str(prepared)!r}, features=('image', 'mask'))[2];"
        "print(sorted(example), 'tensorflow' in sys.modules)"
    )
    assert run_code(code).strip() == "['image', 'mask'] False"


def test_masks_name_the_classes(prepared):
    assert open_dataset("named_masks", "train", str(prepared), features=("image", "mask")).class_names == ("sky", "sea")
    with pytest.raises(
        UserError, match=r"to name its classes, none of its features 'image', 'mask' does\. For classification add 'label'"
    ):
        open_dataset("masks", "train", str(prepared), features=("image", "mask")).class_names  # noqa: B018
    with pytest.raises(UserError, match="for segmentation prepare the masks as TFDS's LabeledImage"):
        open_dataset("named_masks", "train", str(prepared), features=("image",)).class_names  # noqa: B018
    labeled = open_dataset("masks", "train", str(prepared), features=("image", "mask", "label"))
    assert labeled.class_names == ("ant", "bee", "cat")


@pytest.mark.parametrize("name", ["scene_parse150", "scene_parse150:1.2.0"])
def test_scene_parse150_has_the_classes_of_ade20k(prepared, name):
    dataset = open_dataset(name, "test", str(prepared), features=("image", "annotation"))
    assert dataset.class_names == ADE20K_CLASSES
    assert [dataset[i]["annotation"] for i in range(2)] == MASKS[:2]


def test_published_splits_are_described_without_files(tmp_path):
    features = ("image", "annotation")
    described = {split: describe_dataset("scene_parse150", split, str(tmp_path), features) for split in ("train", "test")}
    assert {split: len(facts) for split, facts in described.items()} == {"train": 20210, "test": 2000}
    assert all(facts.class_names == ADE20K_CLASSES for facts in described.values())
    assert len(describe_dataset("imagenet2012", "train", str(tmp_path))) == 1281167
    with pytest.raises(UserError, match="Prepare it with"):
        describe_dataset("scene_parse150", "train[:50%]", str(tmp_path), features)


def test_other_splits_are_described_by_their_files(prepared):
    described = describe_dataset("named_masks", "test", str(prepared), features=("image", "mask"))
    assert (len(described), described.class_names) == (2, ("sky", "sea"))


def test_slices_and_sums_of_splits():
    whole = open_dataset("fashion_mnist_small", "test", DATASETS)
    part = open_dataset("fashion_mnist_small", "test[10:13]", DATASETS)
    assert [part[i] for i in range(3)] == [whole[i] for i in range(10, 13)]
    assert len(open_dataset("fashion_mnist_small", "train[:90%]", DATASETS)) == 10800
    assert len(open_dataset("fashion_mnist_small:1.0.0", "train+test", DATASETS)) == 14000


def test_pickled_copy_reads_the_same():
    dataset = open_dataset("fashion_mnist_small", "test", DATASETS)
    example = dataset[7]
    copy = pickle.loads(pickle.dumps(dataset))
    assert isinstance(copy, Dataset)
    assert (copy.name, copy.split, copy.num_classes, len(copy)) == ("fashion_mnist_small", "test", 10, 2000)
    assert copy[7] == example
    with pytest.raises(IndexError):
        copy[2000]
    with pytest.raises(IndexError):
        copy[-1]


def test_opening_needs_no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert len(open_dataset("fashion_mnist_small", "train", DATASETS)) == 12000
    with pytest.raises(UserError):
        open_dataset("mnist", "train", DATASETS)


@pytest.mark.parametrize("name", ["imagenet2012", "coco/2017", "nosuchset"])
def test_missing_data_set_names_the_command(name, tmp_path):
    with pytest.raises(UserError) as caught:
        open_dataset(name, "train", str(tmp_path))
    assert str(caught.value) == (
        f"Expected data set {name!r} in {tmp_path}, found none. Prepare it with: "
        f"python -m paca_jax.data.prepare {name} --data_dir {tmp_path}"
    )


def test_tfrecord_names_the_command(prepared):
    with pytest.raises(UserError) as caught:
        open_dataset("tiny", "train", str(prepared))
    folder = prepared / "tiny" / "1.2.0"
    assert str(caught.value) == (
        f"Expected data set 'tiny' to be prepared as array_record, {folder} holds 'tfrecord'. "
        f"Convert it with: python -m paca_jax.data.convert_records {folder}"
    )


@pytest.mark.parametrize("split", ["validation", "train[", "train[:0]", "train[9:5]", ""])
def test_unknown_split_names_the_known(split):
    with pytest.raises(
        UserError, match=r"Expected one of the splits of data set 'fashion_mnist_small', 'train', 'test', or a slice"
    ):
        open_dataset("fashion_mnist_small", split, DATASETS)


def test_wrong_features_and_names(prepared):
    with pytest.raises(UserError, match=r"has 'label', 'text', missing 'image'\. Choose another data set"):
        open_dataset("words", "train", str(prepared))
    with pytest.raises(UserError, match="Expected a data set's name such as 'imagenet2012' or 'coco/2017', got 'not a name!'"):
        open_dataset("not a name!", "train", str(prepared))


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:1000])])
def test_missing_or_truncated_file_is_reported(tmp_path, damage):
    shutil.copytree(Path(DATASETS) / "fashion_mnist_small", tmp_path / "fashion_mnist_small")
    damage(next(tmp_path.glob("*/*/*test.array_record*")))
    with pytest.raises(
        UserError, match="Expected intact files of data set 'fashion_mnist_small', reading split 'test' failed with: "
    ):
        open_dataset("fashion_mnist_small", "test", str(tmp_path))[0]


def test_prepare_reports_unknown_names_and_formats(prepared, tmp_path):
    with pytest.raises(
        UserError, match=r"Expected the name of a TFDS data set, got 'imagnet2012'\. The nearest are imagenet2012"
    ):
        prepare("imagnet2012", str(tmp_path))
    with pytest.raises(UserError, match=r"Convert it with: python -m paca_jax\.data\.convert_records "):
        prepare("tiny", str(prepared))
    with pytest.raises(UserError, match="Expected a TFDS data set or data set/config, got 'coco/1999'"):
        prepare("coco/1999", str(tmp_path))
    assert prepare("masks", str(prepared)) == str(prepared / "masks" / "1.2.0")
