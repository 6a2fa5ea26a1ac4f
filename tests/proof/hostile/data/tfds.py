"""Prepared data sets of TFDS: metadata that lies, and damaged files."""

import json
import os
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tests.proof.hostile.case import Case, copies, short, then, train, writes

HERE = "tfds/tiny/1.2.0"
NAMES = ("tiny", "label")


def cases(world: Path, rng: random.Random) -> Iterator[Case]:
    """Yields the cases of this module."""
    there = copies(world, "tfds")
    yield from _labels(there)
    yield from _lengths(there)
    yield from _metadata(there)
    yield from _files(there, rng)
    yield from _records(there, rng)


def _read() -> None:
    """Opens the data set, and reads every example."""
    from paca_jax import data

    for split in ("train", "test"):
        dataset = data.open_dataset("tiny", split, "tfds")
        for _ in data.eval_batches(dataset, data.EvalTransform(32, 3, 1.0), batch_size=2):
            pass
        len(dataset.class_names)


def _read_masks() -> None:
    from paca_jax import data

    dataset = data.open_dataset("masked", "train", "tfds", ("image", "mask"))
    transform = data.SegmentationTrainTransform(8, dataset.num_classes, 3, 8, 16)
    for _ in data.train_batches(dataset, transform, batch_size=3, seed=0, start_step=0, num_steps=2):
        pass


def _train(**changes: Any) -> list[str]:
    data = {
        "dataset__name": "tiny",
        "dataset__data_dir": "tfds",
        "dataset__train_split": "train",
        "dataset__eval_split": "test",
    }
    return train(**data | {"batch_size": 2} | changes)


def _edit(path: str, change: Callable[[Any], Any]) -> Callable[[], None]:
    def make() -> None:
        content = json.loads(Path(path).read_text())
        change(content)
        Path(path).write_text(json.dumps(content))

    return make


def _labels(there: Callable[[], None]) -> Iterator[Case]:
    kind = "labels of TFDS outside the classes"
    features, names = f"{HERE}/features.json", f"{HERE}/label.labels.txt"

    def count(number: Any) -> Callable[[], None]:
        return _edit(
            features, lambda content: content["featuresDict"]["features"]["label"]["classLabel"].update(numClasses=number)
        )

    for name, change in (
        ("two classes of three", then(count("2"), writes(names, "ant\nbee\n"))),
        ("two names of three", writes(names, "ant\nbee\n")),
        ("four names of three", writes(names, "ant\nbee\ncat\ndog\n")),
        ("no names", writes(names, "")),
        ("one name twice", writes(names, "ant\nbee\nbee\n")),
        ("names in Latin-1", writes(names, "ant\nb\xe4r\ncat\n".encode("latin-1"))),
        ("a count of 0", count("0")),
        ("a count of -3", count("-3")),
        ("a count that is a text", count("three")),
    ):
        for how, run in (("read", _read), ("train", _train(batch_size=7))):
            yield Case(kind, f"{how}: {name}", then(there, change), run, NAMES)
    masks = "tfds/masked/1.2.0/mask.labels.txt"
    for name, change in (
        ("masks of two classes, one name", writes(masks, "sky\n")),
        ("masks without names", writes(masks, "")),
        (
            "masks of one class",
            then(
                writes(masks, "sky\n"),
                _edit(
                    "tfds/masked/1.2.0/features.json",
                    lambda content: content["featuresDict"]["features"]["mask"]["image"]["label"].update(numClasses="1"),
                ),
            ),
        ),
    ):
        yield Case(kind, name, then(there, change), _read_masks, ("masked", "mask"))


def _lengths(there: Callable[[], None]) -> Iterator[Case]:
    info = f"{HERE}/dataset_info.json"

    def lengths(*numbers: Any) -> Callable[[], None]:
        return _edit(
            info,
            lambda content: next(split for split in content["splits"] if split["name"] == "train").update(
                shardLengths=list(numbers)
            ),
        )

    for name, numbers in (
        ("more", ("4", "9")),
        ("fewer", ("2", "1")),
        ("another order", ("3", "4")),
        ("negative", ("-4", "11")),
        ("of one shard", ("7",)),
        ("of three shards", ("4", "2", "1")),
        ("zero", ("0", "0")),
        ("none", ()),
        ("texts", ("four", "three")),
        ("huge", ("4", "99999999999")),
    ):
        yield Case("shard lengths that disagree", name, then(there, lengths(*numbers)), _read, ("tiny",))


def _metadata(there: Callable[[], None]) -> Iterator[Case]:
    for file in ("dataset_info.json", "features.json"):
        for content in ("", "null", "[]", "{}", "{", "7", b"\xff\xfe\x00", "[" * 99_999):
            make = then(there, writes(f"{HERE}/{file}", content))
            yield Case("JSON of TFDS", f"{file}: {short(content, 20)}", make, _read, ("tiny", file))
    for place in ("", "label", "image"):
        make = then(there, _edit(f"{HERE}/features.json", partial(_of_another_module, place)))
        yield Case("JSON of TFDS", f"features.json: a class of another module {place}", make, _read, ("features.json",))
    info = f"{HERE}/dataset_info.json"
    for key, value in (
        ("name", None),
        ("name", 5),
        ("version", "x"),
        ("splits", {}),
        ("splits", [{}]),
        ("splits", None),
        ("fileFormat", "zip"),
        ("fileFormat", "tfrecord"),
        ("moduleName", 3),
        ("splits", [{"name": "train", "shardLengths": ["7"], "filepathTemplate": "/etc/passwd"}]),
    ):
        make = then(there, _edit(info, lambda content, key=key, value=value: content.update({key: value})))
        yield Case(
            "JSON of TFDS",
            f"{key}={short(value, 50)}",
            make,
            _read,
            ("tiny",),
            may_load="the name is that of the folder" if key in ("moduleName", "name") else "",
        )


def _of_another_module(place: str, features: dict[str, Any]) -> None:
    changed = features["featuresDict"]["features"][place] if place else features
    changed["pythonClassName"] = "antigravity.Feature"


def _files(there: Callable[[], None], rng: random.Random) -> Iterator[Case]:
    def shard(number: int = 0) -> Path:
        return sorted(Path(HERE).glob("tiny-train.array_record-*"))[number]

    def cut(part: float) -> Callable[[], None]:
        def make() -> None:
            path = shard(1)
            path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])

        return make

    def flip(part: float) -> Callable[[], None]:
        def make() -> None:
            path = shard()
            data = bytearray(path.read_bytes())
            data[int(part * len(data))] ^= 0xFF
            path.write_bytes(data)

        return make

    kind = "damaged files of TFDS"
    for _ in range(3):
        part = rng.uniform(0.05, 0.95)
        yield Case(kind, f"a shard cut at {part:.2f}", then(there, cut(part)), _read, ("tiny",))
    for _ in range(3):
        part = rng.uniform(0.001, 0.05)
        yield Case(
            kind,
            f"a byte at {part:.3f} negated",
            then(there, flip(part)),
            _read,
            ("tiny",),
            may_load="bytes that pad a block are not data",
        )
    yield Case(kind, "an empty shard", then(there, lambda: shard().write_bytes(b"")), _read, ("tiny",))
    yield Case(kind, "a missing shard", then(there, lambda: shard().unlink()), _read, ("tiny",))
    yield Case(kind, "a shard twice", then(there, lambda: shard().write_bytes(shard(1).read_bytes())), _read, ("tiny",))
    yield Case(
        kind, "random bytes", then(there, lambda: shard().write_bytes(random.Random(0).randbytes(5000))), _read, ("tiny",)
    )
    yield Case(
        kind,
        "another data set of this name",
        then(there, lambda: (os.rename("tfds/tiny", "tfds/old"), os.rename("tfds/masked", "tfds/tiny"))),
        _read,
        ("tiny",),
    )
    yield Case(kind, "a missing version", then(there, lambda: os.rename(HERE, "tfds/tiny/old")), _read, ("tiny",))
    yield Case(kind, "not of this format", there, _train(dataset__name="records"), ("records",))
    yield Case(kind, "not of this task", there, _train(dataset__name="masked"), ("masked",))
    for name in ("tiny/", "tiny:9.9.9", "../tiny", "tiny/config", "TINY!", "tiny:1.2.0/x"):
        yield Case(kind, f"the name {name!r}", there, _train(dataset__name=name), (name, "data set"))


def _records(there: Callable[[], None], rng: random.Random) -> Iterator[Case]:
    """Conversion of damaged TFRecord files."""
    kind = "damaged files to convert"
    here = "tfds/records/1.2.0"
    run = ["convert-records", here]

    def shard() -> Path:
        return sorted(Path(here).glob("records-train.tfrecord-*"))[0]

    part = rng.uniform(0.1, 0.9)
    for name, change in (
        (f"a shard cut at {part:.2f}", lambda: shard().write_bytes(shard().read_bytes()[: int(part * shard().stat().st_size)])),
        ("a missing shard", lambda: shard().unlink()),
        ("a shard of zeros", lambda: shard().write_bytes(bytes(500))),
        ("an info of no splits", _edit(f"{here}/dataset_info.json", lambda content: content.update(splits=[]))),
        ("an info that is a list", writes(f"{here}/dataset_info.json", "[]")),
        ("an info that is cut", writes(f"{here}/dataset_info.json", "{")),
        ("features that are cut", writes(f"{here}/features.json", "{")),
        ("a format of another kind", _edit(f"{here}/dataset_info.json", lambda content: content.update(fileFormat="zip"))),
        (
            "lengths that disagree",
            _edit(f"{here}/dataset_info.json", lambda content: content["splits"][0].update(shardLengths=["1", "1"])),
        ),
    ):
        yield Case(kind, name, then(there, change), run, ("records",))
