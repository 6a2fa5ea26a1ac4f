"""Small data sets that the tests of paca_jax/data share."""

import io
import time
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


class Numbers(Dataset):
    """Example i is a 1x1 grey image of value i and label i; some can be corrupt."""

    name, split, class_names = "numbers", "train", ()

    def __init__(self, length: int, corrupt: tuple[int, ...] = ()) -> None:
        self.length, self.corrupt = length, corrupt

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        data = encode(np.full((1, 1), index, np.uint8))
        return {"image": data[:40] if index in self.corrupt else data, "label": index}


def draw(example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """A transform that returns what it draws."""
    pixels = np.asarray(decode_image(example["image"], 1), np.float32)
    return {"image": pixels[:, :, None], "label": np.int32(example["label"]), "drawn": rng.random(3)}


def spy(example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """A transform that tells about the process it runs in."""
    import os

    from jax._src import xla_bridge

    return {"pid": np.int64(os.getpid()), "backends": np.int32(len(xla_bridge._backends))}


def slow(example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    time.sleep(0.05)
    return {"label": np.int32(example["label"])}
