import json
import os
import shutil

import numpy as np
import pytest

from paca_jax.data import open_dataset
from paca_jax.data.convert_records import convert
from paca_jax.data.prepare import prepare
from paca_jax.errors import UserError
from tests.data.tiny import encode, prepare_tfds

FIRST, SECOND = "tiny-train.array_record-00000-of-00002", "tiny-train.array_record-00001-of-00002"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with `tiny`: seven examples of three classes in shards of four and three, and two of them as "test"."""
    import tensorflow_datasets as tfds

    features = {
        "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
        "label": tfds.features.ClassLabel(names=["ant", "bee", "cat"]),
        "objects": tfds.features.Sequence({"label": tfds.features.ClassLabel(names=["ant", "bee"]), "id": np.int64}),
    }
    examples = [
        {"image": encode(np.full((2, 3, 3), i, np.uint8)), "label": i % 3, "objects": [{"label": i % 2, "id": 1}]}
        for i in range(7)
    ]
    folder = tmp_path_factory.mktemp("whole")
    prepare_tfds(folder, "tiny:1.2.0", features, {"train": examples, "test": examples[:2]}, "array_record")
    return folder


@pytest.fixture
def version(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "data")
    return tmp_path / "data" / "tiny" / "1.2.0"


def read(version, split="train", features=("image", "label")):
    dataset = open_dataset("tiny", split, str(version.parents[1]), features)
    return [dataset[i] for i in range(len(dataset))], dataset.class_names


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def records(count, **values):
    """Serialized examples of the given features."""
    from tensorflow_datasets.proto import tf_example_pb2

    example = tf_example_pb2.Example()
    for name, value in values.items():
        kind = example.features.feature[name]
        (kind.bytes_list if isinstance(value, bytes) else kind.int64_list).value.append(value)
    return [example.SerializeToString()] * count


def write_records(path, contents):
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(os.fspath(path), "group_size:1")
    for content in contents:
        writer.write(content)
    writer.close()


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize("content", ["", "null", "[]", '"x"', "{}", '{"a":', "[" * 100_000, "NaN", '{"name": null}', "\0"])
def test_damaged_metadata_is_one_sentence_that_names_the_file(version, file, content):
    (version / file).write_text(content)
    with pytest.raises(UserError, match=file.replace(".", r"\.")) as caught:
        read(version)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["image", "label", "objects", None])
def test_features_that_would_import_a_module_are_refused(version, tmp_path, monkeypatch, key):
    (tmp_path / "planted.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)

    def plant(features):
        of_key = features if key is None else features["featuresDict"]["features"][key]
        of_key["pythonClassName"] = "planted.Feature"

    edit(version / "features.json", plant)
    with pytest.raises(UserError, match=r"features\.json to be classes of TFDS .*, got 'planted\.Feature'"):
        read(version)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda info: info.update(name=5),
        lambda info: info.update(version=None),
        lambda info: info.update(splits={}),
        lambda info: info.update(splits=[1]),
        lambda info: info.update(fileFormat="zip"),
        lambda info: info["splits"][0].update(shardLengths=["x", "3"]),
        lambda info: info["splits"][0].update(numBytes="x"),
    ],
)
def test_metadata_of_other_types_name_the_file(version, change):
    edit(version / "dataset_info.json", change)
    with pytest.raises(UserError, match=r"Expected the metadata of a TFDS data set in .*dataset_info\.json"):
        read(version)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        (["4", "2"], r"-00001-of-00002 holds 3 records, dataset_info\.json says 2"),
        (["3", "3"], r"-00000-of-00002 holds 4 records, dataset_info\.json says 3"),
        (["0", "3"], r"-00000-of-00002 holds 4 records, dataset_info\.json says 0"),
        (["4", "1000000000000"], r"holds 3 records, dataset_info\.json says 1000000000000"),
        (["7"], "No such file"),
    ],
)
@pytest.mark.parametrize("split", ["train", "train[1:]"])
def test_shard_lengths_agree_with_the_files(version, lengths, message, split):
    edit(version / "dataset_info.json", lambda info: info["splits"][0].update(shardLengths=lengths))
    with pytest.raises(UserError, match=f"Expected intact files of data set 'tiny', reading split .* failed with: .*{message}"):
        read(version, split)
    assert len(read(version, "test")[0]) == 2


@pytest.mark.parametrize("names", ["ant\nbee\n", "ant\nbee\ncat\ndog\n", "ant\nant\ncat\n", "", "ant\n\ncat\n"])
def test_every_class_has_a_name_of_its_own(version, names):
    (version / "label.labels.txt").write_text(names)
    with pytest.raises(UserError, match=r"Expected the different names of 3 classes in .*label\.labels\.txt"):
        read(version)


@pytest.mark.parametrize("label", [3, -1, 2**40])
def test_labels_are_classes(version, label):
    write_records(version / SECOND, records(3, image=b"x", label=label))
    with pytest.raises(UserError, match=f"Expected labels from 0 to 2 in data set 'tiny', got {label} in example 4 .*{SECOND}"):
        read(version)


def test_labels_of_objects_are_classes(version):
    write_records(version / FIRST, records(4, **{"image": b"x", "label": 0, "objects/label": 2, "objects/id": 1}))
    with pytest.raises(UserError, match="Expected labels from 0 to 1 in data set 'tiny', got 2 in example 0 "):
        read(version, features=("image", "label", "objects"))


@pytest.mark.parametrize(
    "contents",
    [records(3, image=b"x"), records(3, label=1), [b""] * 3, [b"\xff" * 50] * 3, records(3, image=1, label=1)],
    ids=["no label", "no image", "empty", "garbage", "other types"],
)
def test_records_that_are_no_examples_name_their_file(version, contents):
    write_records(version / SECOND, contents)
    with pytest.raises(UserError, match=f"the record of example 4 in .*{SECOND} is no example of this data set"):
        read(version)


@pytest.mark.parametrize("size", [0, 100])
def test_files_that_are_truncated_while_they_are_read(version, size):
    dataset = open_dataset("tiny", "train", str(version.parents[1]))
    assert dataset[0]["label"] == 0
    for name in (FIRST, SECOND):
        os.truncate(version / name, size)
    for index in (1, 5):
        with pytest.raises(UserError, match="Expected intact files of data set 'tiny', reading split 'train' failed with: "):
            dataset[index]


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json", "label.labels.txt", SECOND])
@pytest.mark.parametrize("kind", ["a pipe", "a device"])
def test_only_regular_files_are_opened(version, file, kind):
    (version / file).unlink()
    if kind == "a pipe":
        os.mkfifo(version / file)
    else:
        (version / file).symlink_to("/dev/zero")
    with pytest.raises(UserError, match=f"Expected a file at .*{file}, got {kind}"):
        read(version)


@pytest.mark.parametrize(
    "arguments", [(None, "train"), ([], "train"), ("tiny", None), ("tiny", 5), ("tiny", "train", 5), ("tiny", "train", b"x")]
)
def test_arguments_of_other_types(arguments):
    with pytest.raises(UserError, match=r"^Expected .*, got .*\. "):
        open_dataset(*arguments)


@pytest.mark.parametrize("features", [None, 5, "image", ["image", None], {"image": 1}])
def test_features_are_names(version, features):
    with pytest.raises(UserError, match="Expected features to be "):
        read(version, features=features)


def test_what_interrupted_jobs_left_is_ignored_and_said(tmp_path, caplog):
    import tensorflow_datasets as tfds

    features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(num_classes=2)}
    examples = [{"image": encode(np.zeros((2, 2, 3), np.uint8)), "label": 1}] * 2
    prepare_tfds(tmp_path / "old", "tiny:1.2.0", features, {"train": examples}, "tfrecord")
    left = tmp_path / "new" / "tiny" / "incomplete.abc_1.2.0"
    left.mkdir(parents=True)
    convert(tmp_path / "old" / "tiny" / "1.2.0", tmp_path / "new" / "tiny" / "1.2.0")
    assert "Ignored what interrupted jobs left in" in caplog.text
    assert "'incomplete.abc_1.2.0'" in caplog.text
    assert left.is_dir()
    assert len(open_dataset("tiny", "train", str(tmp_path / "new"))) == 2


@pytest.mark.parametrize("damage", ["null", "{", '{"name": 5}'])
def test_conversion_refuses_damaged_metadata(version, damage):
    (version / "dataset_info.json").write_text(damage)
    with pytest.raises(UserError, match=r"dataset_info\.json"):
        convert(version)


def test_a_part_of_a_data_set_is_not_taken_for_whole(tmp_path):
    (tmp_path / "scenes" / "1.0.0").mkdir(parents=True)
    with pytest.raises(UserError, match=r"Expected no part of a data set in .*scenes/1\.0\.0, found one. Delete it"):
        prepare("scenes", str(tmp_path))
    assert list((tmp_path / "scenes" / "1.0.0").iterdir()) == []
