"""Small models of every kind, pictures for them, and what is in the page of an explorer."""

import base64
import functools
import json
import re
import zlib

import numpy as np
from PIL import Image

from paca_jax import explain
from paca_jax.models import TeacherConfig, create_model
from tests import golden

SMALL = {
    "embed_dims": (8, 16, 16, 16),
    "depths": (2, 1, 1, 1),
    "num_heads": (2, 1, 2, 1),
    "mlp_ratios": (1, 1, 1, 1),
    "clusters": (6, 5, 0, 0),
}
SIDES = {"num_classes": 7, "head_channels": 8, "short_side": 48, "long_side": 96}
KINDS = {
    "classifier": ("pacavit_nano", {"num_classes": 9, "image_size": 64, "clustering_periods": (1, 0, 0, 0)}),
    "teacher": ("pacavit_nano", {"num_classes": 3, "image_size": 48, "teacher": TeacherConfig((1, 1, 1, 1), 3)}),
    "gray": ("pacavit_nano", {"num_classes": 2, "image_size": 32, "image_channels": 1}),
    "large": ("pacavit_nano", {"num_classes": 3, "image_size": 228}),
    "segmentor": ("pacahead_nano", SIDES),
    "detector": (
        "mask_rcnn_nano",
        SIDES | {"box_channels": 8, "candidates": 20, "proposals": 10, "detections": 8},
    ),
}


@functools.cache
def made(kind):
    """Returns a model and random variables."""
    name, overrides = KINDS[kind]
    model = create_model(name, **(SMALL | overrides))
    return model, golden.random_variables(model)


def pictures(count=2, shape=(90, 140)):
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (count, 6, 6, 3), np.uint8)
    return [Image.fromarray(pixels).resize(shape[::-1], Image.Resampling.BICUBIC) for pixels in coarse]


@functools.cache
def page(kind):
    """Returns the page of a model, for two pictures with the first kind and for one with the others."""
    return explain.explorer(*made(kind), pictures(2 if kind == "classifier" else 1)).html


def content(html):
    """Returns the data of a page."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[1])


def unpacked(text, shape, axes):
    """Returns weights that sum to one over `axes`, from their text in a page."""
    roots = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).reshape(shape).astype(np.float64)
    return roots**2 / (roots**2).sum(axis=axes, keepdims=True)


def maps_of(picture, block, owner):
    """Returns the attention weights (heads, rows, columns, M) and the assignment (M, rows, columns) of a block in a page."""
    shape = picture["attention"][block]
    rows, columns, clusters = shape["rows"], shape["columns"], shape["clusters"]
    attention = unpacked(shape["bytes"], (shape["heads"], rows, columns, clusters), 3)
    return attention, unpacked(picture["assignments"][owner], (clusters, rows, columns), (1, 2))
