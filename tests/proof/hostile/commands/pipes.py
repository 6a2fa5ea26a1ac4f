"""Pipes, devices and folders where a regular file is expected."""

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.proof.hostile.case import BOXED, MASKED, PHOTOS, Case, copies, predict, then, train
from tests.proof.hostile.data.annotations import read_boxes
from tests.proof.hostile.data.images import preprocessed, read_photos


def cases(world: Path, rng: random.Random) -> Iterator[Case]:
    """Yields the cases of this module."""
    kind = "pipes, devices and folders among files"
    there = copies(
        world,
        "a.png",
        "classifier.safetensors",
        "names.txt",
        "photos",
        "masks",
        "coco",
        "trained:run",
        "converted",
        "tfds",
        "classifier.pth:w.pth",
    )

    def pipe(path: str) -> Callable[[], None]:
        def make() -> None:
            Path(path).unlink(missing_ok=True)
            os.mkfifo(path)

        return then(there, make)

    tiny = PHOTOS | {"dataset.name": "tiny", "dataset.data_dir": "tfds", "dataset.eval_split": "test"}
    where = "photos/bee/1.png"
    for name, make, run, names in (
        ("a pipe as a picture", pipe("p.png"), predict("classifier.safetensors", "p.png"), ("p.png",)),
        ("a pipe for preprocess", pipe("p.png"), preprocessed("p.png"), ("p.png",)),
        ("a pipe as weights", pipe("p.safetensors"), predict("p.safetensors", "a.png"), ("p.safetensors",)),
        ("a pipe as a sidecar", pipe("w.pth.json"), predict("w.pth", "a.png"), ("w.pth.json", "Expected")),
        (
            "a pipe as names",
            pipe("p.txt"),
            predict("classifier.safetensors", "a.png", flags=["--class-names=p.txt"]),
            ("p.txt",),
        ),
        ("a pipe as a config", pipe("p.py"), ["train", "--config=p.py", "--workdir=new"], ("p.py",)),
        ("a pipe among photos", pipe(where), read_photos, (where,)),
        ("a pipe among masks", pipe("masks/masks/train/1.png"), train(workdir="new", on=MASKED), ("masks/train/1.png",)),
        (
            "a pipe as annotations",
            pipe("coco/annotations/instances_train2017.json"),
            train(workdir="new", on=BOXED),
            ("instances_train2017.json",),
        ),
        ("a pipe among images of COCO", pipe("coco/train2017/0001.png"), read_boxes, ("0001.png",)),
        (
            "a pipe as dataset_info.json",
            pipe("tfds/tiny/1.2.0/dataset_info.json"),
            train(workdir="new", on=tiny),
            ("tiny",),
        ),
        ("a pipe as metrics", pipe("run/metrics.jsonl"), train(), ("metrics.jsonl",)),
        (
            "a pipe as metadata",
            pipe("converted/checkpoints/0/metadata/metadata"),
            predict("converted", "a.png"),
            ("converted",),
        ),
        ("a pipe as the output", pipe("out"), predict("classifier.safetensors", "a.png"), ("out",)),
        ("/dev/zero as a picture", there, predict("classifier.safetensors", "/dev/zero"), ("/dev/zero",)),
        ("/dev/zero as weights", there, predict("/dev/zero", "a.png"), ("/dev/zero",)),
        (
            "/dev/zero as names",
            there,
            predict("classifier.safetensors", "a.png", flags=["--class-names=/dev/zero"]),
            ("/dev/zero",),
        ),
        ("/dev/null as a workdir", there, train(workdir="/dev/null"), ("/dev/null",)),
        ("/dev/urandom for preprocess", there, preprocessed("/dev/urandom"), ("/dev/urandom",)),
        ("a folder as a picture", there, predict("classifier.safetensors", "photos"), ("photos",)),
        (
            "a link to itself",
            then(there, lambda: os.symlink("loop.png", "loop.png")),
            predict("classifier.safetensors", "loop.png"),
            ("loop.png",),
        ),
    ):
        yield Case(kind, name, make, run, names)
