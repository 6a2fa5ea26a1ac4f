"""Small folders with annotations in COCO's format."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from paca_jax.data import encode_bitmap
from tests.data.tiny import encode

CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 3, "name": "bee"}, {"id": 90, "name": "ant"}]


def square(number: int, image: int, left: float, top: float, side: float, category: int = 3, **changes: Any) -> dict[str, Any]:
    """An annotation of a square."""
    right, bottom = left + side, top + side
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": [left, top, side, side],
        "area": side * side,
        "iscrowd": 0,
        "segmentation": [[left, top, right, top, right, bottom, left, bottom]],
    } | changes


def crowd(number: int, image: int, size: tuple[int, int], form: str = "list") -> dict[str, Any]:
    """An annotation of a crowd that covers the left half of its picture."""
    height, width = size
    half = width // 2
    counts: Any = [0, height * half, height * (width - half)]
    if form == "text":
        counts = encode_bitmap(np.arange(width) < half * np.ones((height, 1)))["counts"]
    return {
        "id": number,
        "image_id": image,
        "category_id": 7,
        "bbox": [0, 0, half, height],
        "area": height * half,
        "iscrowd": 1,
        "segmentation": {"size": [height, width], "counts": counts},
    }


def content(sizes: dict[int, tuple[int, int]], annotations: list[dict[str, Any]]) -> dict[str, Any]:
    """What a JSON file holds for images of (height, width) by id."""
    images = [
        {"id": number, "file_name": f"{number:04}.png", "height": height, "width": width}
        for number, (height, width) in sizes.items()
    ]
    return {"images": images, "annotations": annotations, "categories": CATEGORIES}


def write_folder(root: Path, holds: dict[str, Any], annotations: str, images: str) -> Path:
    """Writes a JSON file and its images, noisy ones."""
    for image in holds["images"]:
        path = root / images / image["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (image["height"], image["width"], 3)
        path.write_bytes(encode(np.random.default_rng(image["id"]).integers(0, 256, shape, dtype=np.uint8)))
    (root / annotations).parent.mkdir(parents=True, exist_ok=True)
    (root / annotations).write_text(json.dumps(holds))
    return root
