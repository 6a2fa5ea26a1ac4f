"""A hostile input, and what the library must make of it."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tests.runs import ROOT, config_flags


class Case(NamedTuple):
    """One input. Both functions run with the case's own folder as the current one.

    Attributes:
        kind: the kind, as the table names it.
        name: what is special about it.
        make: writes the files.
        run: the arguments of `paca`, or a function that calls the library.
        names: texts of which the error must have one: the file or the field.
        loads: why the input must be accepted, if it must.
        may_load: why the input may be accepted as well as refused, if it may.
    """

    kind: str
    name: str
    make: Callable[[], Any]
    run: Sequence[str] | Callable[[], Any]
    names: tuple[str, ...] = ()
    loads: str = ""
    may_load: str = ""


# The folder in which runs train.
WORKDIR = "run"

# The smallest run that trains, evaluates and saves: what is wrongly accepted ends soon.
SMALLEST = {
    "model.embed_dims": (8,),
    "model.depths": (1,),
    "model.num_heads": (1,),
    "model.mlp_ratios": (1,),
    "model.clusters": (4,),
    "model.clustering_periods": (0,),
    "model.clustering_kernel_sizes": (3,),
    "dataset.train_split": "train[:16]",
    "dataset.eval_split": "test[:8]",
    "batch_size": 8,
    "num_steps": 3,
    "log_every_steps": 1,
    "eval_every_steps": 3,
    "checkpoint_every_steps": 1,
}
# The same on folders of images, of masks, and of COCO's annotations.
PHOTOS = {
    "dataset.name": "folder",
    "dataset.data_dir": "photos",
    "dataset.train_split": "train",
    "dataset.eval_split": "validation",
    "batch_size": 5,
}
MASKED = PHOTOS | {
    "model.embed_dims": (8, 8, 8, 8),
    "model.depths": (1, 1, 1, 1),
    "model.num_heads": (1, 1, 1, 1),
    "model.mlp_ratios": (1, 1, 1, 1),
    "model.clusters": (4, 4, 4, 0),
    "model.clustering_periods": (0, 0, 0, 0),
    "model.clustering_kernel_sizes": (3, 3, 3, 3),
    "task": "segmentation",
    "model.name": "pacahead_nano",
    "dataset.data_dir": "masks",
    "image_size": 32,
    "short_side": 32,
    "long_side": 64,
}
BOXED = MASKED | {
    "task": "detection",
    "model.name": "mask_rcnn_nano",
    "dataset.name": "coco",
    "dataset.data_dir": "coco",
    "dataset.eval_split": "train",
    "augment.short_sides": (32,),
    "augment.bucket_sides": (32,),
}
CONFIG = f"--config={ROOT}/configs/fashion_mnist.py"


def train(
    *flags: str, workdir: str | None = WORKDIR, on: Mapping[str, Any] = MappingProxyType({}), **changes: Any
) -> list[str]:
    """Returns the command line of the smallest run.

    Args:
        *flags: at its end.
        workdir: its workdir, or None.
        on: the keys of another data set.
        **changes: further keys, with __ for the dot.
    """
    values = SMALLEST | on | {key.replace("__", "."): value for key, value in changes.items()}
    place = [] if workdir is None else [f"--workdir={workdir}"]
    return ["train", CONFIG, *place, *config_flags(values), *flags]


def predict(place: str, *pictures: str, out: str = "out", flags: Sequence[str] = ()) -> list[str]:
    """Returns the command line that predicts for pictures."""
    return ["predict", *pictures, "--checkpoint", place, "--out", out, *flags]


def nothing() -> None:
    """Writes nothing."""


def copies(world: Path, *names: str) -> Callable[[], None]:
    """Returns a function that copies files and folders of the prepared ones, each "NAME" or "NAME:NEW NAME"."""

    def copy() -> None:
        for name in names:
            source, _, target = name.partition(":")
            target = target or Path(source).name
            (shutil.copytree if (world / source).is_dir() else shutil.copy)(world / source, target)

    return copy


def then(*steps: Callable[[], Any]) -> Callable[[], None]:
    """Returns a function that calls others in order."""

    def run() -> None:
        for step in steps:
            step()

    return run


def writes(path: str, content: bytes | str) -> Callable[[], None]:
    """Returns a function that writes a file."""

    def write() -> None:
        place = Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode() if isinstance(content, str) else content)

    return write


def short(value: object, most: int = 60) -> str:
    """Returns a description of a value, cut short, for names of cases."""
    text = repr(value)
    if isinstance(value, np.ndarray):
        text = f"{value.dtype} of {value.shape} up to {value.max(initial=0)}"
    elif isinstance(value, Image.Image):
        text = f"{value.mode} of {value.size}"
    return text if len(text) <= most else f"{text[:most]}..."


def call_of(kind: str, name: str, call: Callable[[], Any], *names: str, make: Callable[[], Any] = nothing, **more: str) -> Case:
    """Returns the case of a call."""
    return Case(kind, name, make, call, names, **more)
