"""Small data sets that the tests of paca_jax/data share."""

import io
import struct
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from paca_jax.data import Dataset, decode_image

DATASETS = str(Path(__file__).parents[2] / "datasets")
CORRUPT = (5, 11)


def encode(pixels: np.ndarray, file_format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, file_format, **options)
    return buffer.getvalue()


def png(bits: int, color_type: int, width: int, row: bytes, key: bytes = b"") -> bytes:
    """Returns a PNG of one row of pixels, given as stored, of kinds that Pillow reads but does not write.

    `key` is the color of transparent pixels, as stored.
    """

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, bits, color_type, 0, 0, 0)) + (
        chunk(b"tRNS", key) if key else b""
    )
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")


def tiff(width: int, bits: int, photometric: int, row: bytes) -> bytes:
    """Returns a TIFF of one row of gray pixels, given as stored, with tags that Pillow reads but does not write."""
    tags = {256: width, 257: 1, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: 1, 279: len(row)}
    start = 8 + len(row) + len(row) % 2
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return struct.pack("<2sHI", b"II", 42, start) + row.ljust(start - 8, b"\0") + directory


class Numbers(Dataset):
    """Example i is a 1x1 gray image of value i and label i; some can be corrupt."""

    name, split, class_names = "numbers", "train", ()

    def __init__(self, length: int, corrupt: tuple[int, ...] = ()) -> None:
        self.length, self.corrupt = length, corrupt

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        data = encode(np.full((1, 1), index, np.uint8))
        return {"image": data[:40] if index in self.corrupt else data, "label": index}


class Pictures(Dataset):
    """Example i has an RGB image and a mask of the i-th (height, width), with seeded pixels and labels below 3."""

    name, split, class_names = "pictures", "validation", ("ant", "bee", "cat")

    def __init__(self, sizes: Sequence[tuple[int, int]], changes: dict[int, dict[str, bytes]] | None = None) -> None:
        self.sizes, self.changes = sizes, changes or {}

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng(index)
        image = encode(rng.integers(0, 256, (*self.sizes[index], 3), dtype=np.uint8))
        mask = encode(rng.integers(0, 3, self.sizes[index], dtype=np.uint8))
        return {"image": image, "mask": mask, **self.changes.get(index, {})}


def draw(example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """A transform that returns what it draws."""
    pixels = np.asarray(decode_image(example["image"], 1), np.float32)
    return {"image": pixels[:, :, None], "label": np.int32(example["label"]), "drawn": rng.random(3)}


def spy(example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """A transform that reports the process it runs in."""
    import os

    from jax._src import xla_bridge

    return {"pid": np.int64(os.getpid()), "backends": np.int32(len(xla_bridge._backends))}


def slow(example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    time.sleep(0.05)
    return {"label": np.int32(example["label"])}


class _Bytes:
    """TFDS takes an encoded image as an open file."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self) -> bytes:
        return self.data


def prepare_tfds(
    folder: Path, name: str, features: dict[str, Any], splits: dict[str, list[dict[str, Any]]], file_format: str
) -> None:
    """Prepares the data set "name:version" as TFDS does, in two shards; images may be arrays or the bytes of files."""
    import tensorflow_datasets as tfds

    def encoded(example: dict[str, Any]) -> dict[str, Any]:
        return {key: _Bytes(value) if isinstance(value, bytes) else value for key, value in example.items()}

    builder = tfds.dataset_builders.AdhocBuilder(
        name=name.split(":")[0],
        version=name.split(":")[1],
        features=tfds.features.FeaturesDict(features),
        split_datasets={split: list(enumerate(map(encoded, examples))) for split, examples in splits.items()},
        data_dir=folder,
        file_format=file_format,
        disable_shuffling=True,
    )
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False, num_shards=2))
