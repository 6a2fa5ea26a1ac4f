"""A sheet of pictures with a classifier's predictions and the most selective clusters of each."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Array, Float, PyTree
from PIL import Image

from paca_jax.errors import UserError
from paca_jax.explain.drawing import Answer, Row, draw_sheet
from paca_jax.explain.heat import overlay
from paca_jax.explain.selection import strongest_clusters

CELL = 160


def cluster_sheet(
    model: nn.Module,
    variables: dict[str, PyTree],
    pictures: Sequence[Image.Image],
    images: Float[Array, "B H W C"],
    class_names: Sequence[str],
    labels: Sequence[int] | None = None,
    clusters_per_image: int = 4,
    block: str | None = None,
) -> Image.Image:
    """Draws a sheet with one row per image: the picture, the prediction, and the strongest clusters as heat maps over it.

    The clusters of a row are its strongest ones that differ from each other (see `strongest_clusters`); there may be fewer than
    `clusters_per_image`.

    Args:
        model: a classifier with clusters.
        variables: the variables of the model.
        pictures: the B pictures that `images` were made from, in any size. If `images` have the model's native size, as from
            `paca_jax.preprocess`, the part of a picture that it keeps is drawn, otherwise the whole picture.
        images: the normalized images.
        class_names: the names of the model's classes, in order.
        labels: the true classes, if known.
        clusters_per_image: the largest number of heat maps in a row.
        block: the assignment to draw, a key of `model.apply(variables, images, method="clusters")`; by default the first.

    Returns:
        An RGB picture with a header, about 165 (B + 1) pixels high.

    Raises:
        UserError: if the model has no classifier, no clusters or no such block, or if the numbers of pictures, images, names
            and labels do not agree.
    """
    _check_counts(model, pictures, images, class_names, labels)
    probabilities, by_block = _answer(model, variables, images)
    block = _known_block(list(by_block), block)
    assignments = np.asarray(by_block[block], np.float32)
    size = _cell_size(images.shape[1], images.shape[2])
    rows = []
    for index, picture in enumerate(pictures):
        shown = _seen_by_model(picture, model.config, images.shape[1:3]).resize(size, Image.Resampling.BICUBIC)
        found = int(np.argmax(probabilities[index]))
        true_name = None if labels is None else class_names[labels[index]]
        right = None if labels is None else labels[index] == found
        chosen = strongest_clusters(assignments[index], clusters_per_image)
        heat_maps = [(f"{block} #{cluster}", overlay(shown, assignments[index, cluster])) for cluster in chosen]
        rows.append(Row(shown, Answer(class_names[found], float(probabilities[index, found]), right, true_name), heat_maps))
    return draw_sheet(rows, size, clusters_per_image)


@functools.partial(jax.jit, static_argnums=0)
def _answer(
    model: nn.Module, variables: dict[str, PyTree], images: Float[Array, "B H W C"]
) -> tuple[Float[Array, "B K"], dict[str, Float[Array, "B M Hi Wi"]]]:
    """Returns the class probabilities and the assignment of every block; compiled once per model and shape."""
    logits: Any = model.apply(variables, images)
    assignments: Any = model.apply(variables, images, method="clusters")
    return jax.nn.softmax(logits), assignments


def _known_block(known: list[str], block: str | None) -> str:
    if not known:
        raise UserError("Expected a model with clusters, got one that attends to patches in every stage. Choose another.")
    if block is not None and block not in known:
        raise UserError(f"Expected a block with an assignment, got {block!r}. Choose one of {', '.join(known)}.")
    return known[0] if block is None else block


def _check_counts(
    model: nn.Module,
    pictures: Sequence[Image.Image],
    images: Float[Array, "B H W C"],
    class_names: Sequence[str],
    labels: Sequence[int] | None,
) -> None:
    classes = model.config.num_classes
    if classes == 0:
        raise UserError("Expected a model with a classifier, got one without (num_classes=0). Choose one with classes.")
    if isinstance(pictures, Image.Image) or isinstance(class_names, str):
        raise UserError("Expected a list of pictures and a list of class names, got a single one. Put it into a list.")
    if len(class_names) != classes:
        raise UserError(f"Expected the names of the model's {classes} classes, got {len(class_names)}. Pass one for each.")
    if not len(pictures):
        raise UserError("Expected at least one picture to draw, got none. Pass one.")
    if len(pictures) != len(images):
        raise UserError(
            f"Expected one image for each picture, got {len(pictures)} pictures and {len(images)} images. Pass equally many."
        )
    if labels is not None and len(labels) != len(images):
        raise UserError(
            f"Expected one label for each image, got {len(images)} images and {len(labels)} labels. Pass equally many."
        )
    if labels is not None and not all(0 <= label < classes for label in labels):
        raise UserError(f"Expected labels from 0 to {classes - 1}, got {[int(label) for label in labels]}. Correct them.")


def _cell_size(height: int, width: int) -> tuple[int, int]:
    """Returns the width and height of a cell in pixels: those of the image, scaled to a longer side of CELL."""
    longer = max(height, width)
    return max(round(CELL * width / longer), 1), max(round(CELL * height / longer), 1)


def _seen_by_model(picture: Image.Image, config: Any, shape: tuple[int, ...]) -> Image.Image:
    """Returns the part of the picture that the model sees, as RGB: the centered square that `preprocess` keeps, or all."""
    picture = picture.convert("RGB")
    if tuple(shape) != (config.image_size, config.image_size):
        return picture
    short = min(picture.size)
    side = short * config.image_size / math.floor(config.image_size / config.crop)
    left, top = (picture.width - side) / 2, (picture.height - side) / 2
    return picture.transform(
        (max(round(side), 1),) * 2, Image.Transform.EXTENT, (left, top, left + side, top + side), Image.Resampling.BICUBIC
    )
