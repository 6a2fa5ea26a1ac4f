"""Folders of images and masks, and folders of images."""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.data.tiny import encode, png, tiff
from tests.proof.hostile.case import PHOTOS, Case, copies, then, train, writes
from tests.proof.hostile.data.images import read_photos

MASK = "masks/masks/train/1.png"


def cases(world: Path, rng: random.Random) -> Iterator[Case]:
    """Yields the cases of this module."""
    there = copies(world, "masks")
    labels = np.arange(2000, dtype=np.uint8).reshape(40, 50) % 3
    colors = np.zeros((40, 50, 3), np.uint8)
    files = {
        "a mask of another size": encode(labels[:30]),
        "a mask on its side": encode(labels.T.copy()),
        "a value beyond the classes": encode(np.where(labels == 2, 9, labels).astype(np.uint8)),
        "a value of 254": encode(np.where(labels == 2, 254, labels).astype(np.uint8)),
        "16-bit values": encode(labels.astype(np.uint16) * 300),
        "colors": encode(colors),
        "colors with alpha": encode(np.zeros((40, 50, 4), np.uint8)),
        "gray with alpha": encode(np.zeros((40, 50, 2), np.uint8)),
        "JPEG": encode(labels, "JPEG"),
        "WEBP": encode(colors, "WEBP"),
        "GIF": encode(labels, "GIF"),
        "floats": encode(labels.astype(np.float32), "TIFF"),
        "2 bits of gray": png(2, 0, 4, b"\x1b"),
        "white is 0": tiff(4, 8, 0, b"\0\1\2\3"),
        "a cut file": encode(labels)[:60],
        "random bytes": rng.randbytes(500),
        "nothing": b"",
        "a text": b"0 1 2\n",
        "a page": b"<html></html>",
    }
    for name, data in files.items():
        yield Case("masks", name, then(there, writes(MASK, data)), _read, ("1.png",))
    for name, change, names in (
        ("no mask", lambda: Path(MASK).unlink(), ("1.png",)),
        ("no image", lambda: Path("masks/images/train/1.png").unlink(), ("1.png",)),
        ("no masks", lambda: shutil.rmtree("masks/masks"), ("masks",)),
        ("no masks of the split", lambda: shutil.rmtree("masks/masks/train"), ("masks/train",)),
        ("no images of the split", lambda: shutil.rmtree("masks/images/train"), ("train",)),
        ("two images of one name", lambda: shutil.copy("masks/images/train/1.png", "masks/images/train/1.jpg"), ("1.",)),
        ("two masks of one name", lambda: shutil.copy(MASK, "masks/masks/train/1.tif"), ("1.",)),
        ("no classes.txt", lambda: Path("masks/classes.txt").unlink(), ("classes.txt",)),
        ("an empty classes.txt", writes("masks/classes.txt", ""), ("classes.txt",)),
        ("an empty line", writes("masks/classes.txt", "sky\n\nland\n"), ("classes.txt",)),
        ("classes.txt in Latin-1", writes("masks/classes.txt", "sk\xfd\nsea\nland\n".encode("latin-1")), ("classes.txt",)),
        ("classes.txt with zero bytes", writes("masks/classes.txt", "sky\0\nsea\nland\n"), ("classes.txt",)),
        (
            "classes.txt is a folder",
            lambda: (Path("masks/classes.txt").unlink(), Path("masks/classes.txt").mkdir()),
            ("classes.txt",),
        ),
        ("two classes of one name", writes("masks/classes.txt", "sky\nsea\nsea\n"), ("classes.txt", "sea")),
        ("one class", writes("masks/classes.txt", "sky\n"), ("sky", "classes", "1.png", "0.png")),
        ("300 classes", writes("masks/classes.txt", "".join(f"c{i}\n" for i in range(300))), ("classes", "300", "255")),
        (
            "masks of one class and 255",
            _every_mask(lambda shape: np.where(np.arange(shape[1]) < 9, 255, 0) * np.ones(shape)),
            ("masks", "folder"),
        ),
        ("masks of 255", _every_mask(lambda shape: np.full(shape, 255)), ("masks", "folder")),
        ("masks that begin with 1", _every_mask(lambda shape: 1 + np.arange(shape[1]) % 3 * np.ones(shape)), (".png",)),
    ):
        yield Case("folders of masks", name, then(there, change), _read, names)
    yield from _images(world)


def _every_mask(values: Callable[[tuple[int, int]], Any]) -> Callable[[], None]:
    def make() -> None:
        for path in Path("masks/masks").rglob("*.png"):
            Image.fromarray(values((40, 50)).astype(np.uint8)).save(path)

    return make


def _read() -> None:
    """Opens the folder, and makes the first training batches."""
    from paca_jax import data

    dataset = data.open_dataset("folder", "train", "masks", ("image", "mask"))
    transform = data.SegmentationTrainTransform(32, dataset.num_classes, 3, 32, 64)
    for _ in data.train_batches(dataset, transform, batch_size=3, seed=0, start_step=0, num_steps=2):
        pass


def _images(world: Path) -> Iterator[Case]:
    kind = "folders of images"
    there = copies(world, "photos")
    for name, make in (
        ("one class", then(there, lambda: shutil.rmtree("photos/bee"))),
        ("an empty class", then(there, lambda: Path("photos/cat").mkdir())),
        ("a class of texts", then(there, writes("photos/cat/notes.txt", "x"))),
        ("no folder", lambda: None),
        ("a file", writes("photos", "x")),
        ("an empty folder", lambda: Path("photos").mkdir()),
        (
            "train and val that differ",
            then(
                there,
                lambda: (
                    shutil.copytree("photos", "p/train"),
                    shutil.copytree("photos/ant", "p/val/ant"),
                    shutil.rmtree("photos"),
                    os.rename("p", "photos"),
                ),
            ),
        ),
        (
            "one image per class",
            then(there, lambda: [path.unlink() for path in Path("photos").rglob("*.png") if path.name != "0.png"]),
        ),
        (
            "a link to its own folder",
            then(
                there,
                lambda: os.symlink("..", "photos/bee/up"),
                lambda: [path.unlink() for path in Path("photos/bee").glob("*.png")],
            ),
        ),
        ("a link that leads nowhere", then(there, lambda: os.symlink("absent.png", "photos/bee/9.png"))),
    ):
        yield Case(kind, name, make, read_photos, ("photos",))
    for split in ("train[:50%]", "test", "", "validation+train"):
        run = train(f"--config.dataset.train_split={split}", on=PHOTOS)
        yield Case(kind, f"split {split!r}", there, run, ("split", "photos"))
