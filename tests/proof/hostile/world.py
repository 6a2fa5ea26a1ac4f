"""The intact files and folders that the cases damage, made once."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.data import coco_folder
from tests.data.tiny import encode, prepare_tfds
from tests.proof.hostile.case import SMALLEST, train

WIDTHS: dict[str, Any] = {
    "embed_dims": [8, 8, 8, 8],
    "depths": [1, 1, 1, 1],
    "num_heads": [1, 1, 1, 1],
    "clusters": [4, 4, 4, 0],
}
HEAD = {"num_classes": 3, "short_side": 32, "long_side": 64, "head_channels": 8}
# Its tensors alone say which model it is.
CLASSIFIER = {"name": "pacavit_nano", "num_classes": 4}
SEGMENTOR = {"name": "pacahead_nano", **HEAD, **WIDTHS}
FEW = {"box_channels": 8, "candidates": 20, "proposals": 10, "detections": 5}
DETECTOR = {"name": "mask_rcnn_nano", **HEAD, **FEW, **WIDTHS}
NAMES = ["ant", "bee", "cat", "dog"]
SIZES = {1: (40, 50), 2: (45, 60), 3: (50, 40)}


def make_files(world: Path) -> None:
    """Makes weights in every form, pictures and data sets."""
    _pictures(world)
    _data_sets(world)
    _weights(world)


def make_run(world: Path) -> None:
    """Makes a run that ended before its last step, whose programs are all compiled.

    It needs a process of its own, in which no JAX backend runs yet.
    """
    from paca_jax.cli.main import main

    main(train(workdir=str(world / "trained")))
    trained = world / "trained"
    last = SMALLEST["num_steps"]
    shutil.rmtree(trained / "checkpoints" / str(last))
    for name in ("report.json", "clusters.png"):
        (trained / name).unlink()
    lines = (trained / "metrics.jsonl").read_text().splitlines(keepends=True)
    (trained / "metrics.jsonl").write_text("".join(line for line in lines if json.loads(line)["step"] < last))


def _weights(world: Path) -> None:
    import torch

    from paca_jax import create_model
    from paca_jax.checkpoints import write_state_dict
    from paca_jax.checkpoints.workdir import write_variables
    from paca_jax.convert import to_torch
    from tests import golden

    for name, recipe in (("classifier", CLASSIFIER), ("segmentor", SEGMENTOR), ("detector", DETECTOR)):
        model = create_model(**recipe)
        variables = golden.random_variables(model)
        state = to_torch(variables, model)
        names = NAMES if name == "classifier" else None
        for suffix in ("safetensors", "pth"):
            write_state_dict(world / f"{name}.{suffix}", state, recipe, names)
        if name == "classifier":
            write_variables(world / "converted", variables, {"model": recipe, "class_names": NAMES})
            tensors = {key: torch.from_numpy(np.array(value)) for key, value in state.items()}
            torch.save(tensors, world / "legacy.pth", _use_new_zipfile_serialization=False)


def _pictures(world: Path) -> None:
    rng = np.random.default_rng(0)
    for name, size in (("a.png", (40, 50)), ("b.jpg", (61, 37))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(world / name)
    for group, count in (("ant", 4), ("bee", 3)):
        folder = world / "photos" / group
        folder.mkdir(parents=True)
        for index in range(count):
            Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(folder / f"{index}.png")
    masks = world / "masks"
    for split in ("train", "validation"):
        for kind in ("images", "masks"):
            (masks / kind / split).mkdir(parents=True)
        for index in range(3):
            Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(masks / "images" / split / f"{index}.png")
            Image.fromarray(rng.integers(0, 3, (40, 50), np.uint8)).save(masks / "masks" / split / f"{index}.png")
    (masks / "classes.txt").write_text("sky\nsea\nland\n")


def _data_sets(world: Path) -> None:
    import tensorflow_datasets as tfds

    boxes = [coco_folder.square(number, 1 + number % 3, 5, 5, 20) for number in range(1, 7)]
    crowd = coco_folder.crowd(7, 1, SIZES[1])
    coco_folder.write_folder(
        world / "coco", coco_folder.content(SIZES, [*boxes, crowd]), "annotations/instances_train2017.json", "train2017"
    )
    image = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
    label = tfds.features.ClassLabel(names=["ant", "bee", "cat"])
    examples = [{"image": encode(np.full((8, 9, 3), 10 * i, np.uint8)), "label": i % 3} for i in range(7)]
    mask = tfds.features.LabeledImage(labels=["sky", "sea"], shape=(None, None, 1), encoding_format="png")
    masked = [
        {"image": example["image"], "mask": encode(np.full((8, 9), i % 2, np.uint8))} for i, example in enumerate(examples)
    ]
    for name, file_format, features, of in (
        ("tiny", "array_record", {"image": image, "label": label}, examples),
        ("records", "tfrecord", {"image": image, "label": label}, examples),
        ("masked", "array_record", {"image": image, "mask": mask}, masked),
    ):
        prepare_tfds(world / "tfds", f"{name}:1.2.0", features, {"train": of, "test": of[:2]}, file_format)
    (world / "names.txt").write_text("\n".join(NAMES) + "\n")
    (world / "numbers.json").write_text(json.dumps([1, 2]))
