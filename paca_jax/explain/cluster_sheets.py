"""Sheets of pictures with a classifier's predictions and the most selective clusters of each."""

import functools
import math
import os
from collections.abc import Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree
from PIL import Image

from paca_jax import data
from paca_jax.errors import UserError, check, nearest, shorten
from paca_jax.explain.checks import WHOLE, check_classifier, checked_array, checked_items, checked_names, rgb
from paca_jax.explain.drawing import Answer, Row, draw_sheet
from paca_jax.explain.heat import overlay
from paca_jax.explain.selection import strongest_clusters
from paca_jax.fields import Range, check_value
from paca_jax.models import PaCaViT
from paca_jax.models.model import check_images

CELL = 160

_Columns = Annotated[int, Range(1, 100)]


def sheet(
    model: PaCaViT,
    variables: dict[str, PyTree],
    pictures: data.Picture | Sequence[data.Picture],
    class_names: Sequence[str] | None = None,
    *,
    clusters_per_image: int = 4,
    block: str | None = None,
) -> Image.Image:
    """Draws what a classifier sees in your own pictures: for each its prediction, and its strongest clusters as heat maps.

    Args:
        model: a classifier with clusters, as from `paca_jax.load`.
        variables: the variables of the model.
        pictures: one picture, or several in a list: paths, bytes of image files, Pillow images, or uint8 arrays (H, W, C).
        class_names: the names of the model's classes, in order, as from `paca_jax.class_names`. Default: those of ImageNet for
            a model with 1000 classes, which a warning says, and numbers for another.
        clusters_per_image: as for `cluster_sheet`.
        block: as for `cluster_sheet`.

    Returns:
        An RGB picture with one row per picture, as `cluster_sheet` draws it.

    Raises:
        UserError: if a picture cannot be read, or as for `cluster_sheet`.
    """
    check_classifier(model, variables)
    single = isinstance(pictures, str | bytes | os.PathLike | Image.Image | np.ndarray)
    listed: Sequence[Any] = [pictures] if single else checked_items("pictures", pictures)
    shown = [data.read_picture(picture, model.config.image_channels) for picture in listed]
    check(bool(shown), "Expected at least one picture to draw, got none. Pass one.")
    images = jnp.asarray(np.stack([data.preprocess(picture, model) for picture in shown]))
    names = data.assumed_names(model.config.num_classes) if class_names is None else class_names
    return cluster_sheet(model, variables, shown, images, names, clusters_per_image=clusters_per_image, block=block)


def cluster_sheet(
    model: PaCaViT,
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
        clusters_per_image: the largest number of heat maps in a row, 1 to 100.
        block: the assignment to draw, a key of `model.apply(variables, images, method="clusters")`; by default the first.

    Returns:
        An RGB picture with a header, about 165 (B + 1) pixels high.

    Raises:
        UserError: if the model is no classifier, or has other variables, no clusters or no such block; if the numbers of
            pictures, images, names and labels do not agree; or if one of these is of another type, or out of range.
    """
    check_value("clusters_per_image", clusters_per_image, _Columns)
    check_value("block", block, str | None)
    check_classifier(model, variables)
    class_names, shown = checked_names(class_names), [rgb(picture) for picture in checked_items("pictures", pictures)]
    labels = None if labels is None else checked_array("labels", labels, WHOLE, ("B",), least=0).tolist()
    _check_counts(model, shown, images, class_names, labels)
    probabilities, by_block = _answer(model, variables, images)
    block = _known_block(list(by_block), block)
    assignments = np.asarray(by_block[block], np.float32)
    size = _cell_size(images.shape[1], images.shape[2])
    rows = []
    for index, picture in enumerate(shown):
        cell = _seen_by_model(picture, model.config, images.shape[1:3]).resize(size, Image.Resampling.BICUBIC)
        found = int(np.argmax(probabilities[index]))
        true_name = None if labels is None else class_names[labels[index]]
        right = None if labels is None else labels[index] == found
        chosen = strongest_clusters(assignments[index], clusters_per_image)
        heat_maps = [(f"{block} #{cluster}", overlay(cell, assignments[index, cluster])) for cluster in chosen]
        rows.append(Row(cell, Answer(class_names[found], float(probabilities[index, found]), right, true_name), heat_maps))
    return draw_sheet(rows, size, clusters_per_image)


@functools.partial(jax.jit, static_argnums=0)
def _answer(
    model: PaCaViT, variables: dict[str, PyTree], images: Float[Array, "B H W C"]
) -> tuple[Float[Array, "B K"], dict[str, Float[Array, "B M Hi Wi"]]]:
    """Returns the class probabilities and the assignment of every block; compiled once per model and shape."""
    logits: Any = model.apply(variables, images)
    assignments: Any = model.apply(variables, images, method="clusters")
    return jax.nn.softmax(logits), assignments


def _known_block(known: list[str], block: str | None) -> str:
    if not known:
        raise UserError("Expected a model with clusters, got one that attends to patches in every stage. Choose another.")
    if block is not None and block not in known:
        raise UserError(f"Expected a block with an assignment, got {block!r}; {nearest(block, known)}. Choose one of them.")
    return known[0] if block is None else block


def _check_counts(
    model: PaCaViT,
    pictures: Sequence[Image.Image],
    images: Float[Array, "B H W C"],
    class_names: Sequence[str],
    labels: Sequence[int] | None,
) -> None:
    classes = model.config.num_classes
    if len(class_names) != classes:
        raise UserError(f"Expected the names of the model's {classes} classes, got {len(class_names)}. Pass one for each.")
    check(bool(pictures), "Expected at least one picture to draw, got none. Pass one.")
    check_images(images, model.config.image_channels)
    if len(pictures) != len(images):
        raise UserError(
            f"Expected one image for each picture, got {len(pictures)} pictures and {len(images)} images. Pass equally many."
        )
    if labels is not None and len(labels) != len(images):
        raise UserError(
            f"Expected one label for each image, got {len(images)} images and {len(labels)} labels. Pass equally many."
        )
    if labels is not None and not all(0 <= label < classes for label in labels):
        raise UserError(f"Expected labels from 0 to {classes - 1}, got {shorten(str([*labels]))}. Correct them.")


def _cell_size(height: int, width: int) -> tuple[int, int]:
    """Returns the width and height of a cell in pixels: those of the image, scaled to a longer side of CELL."""
    longer = max(height, width)
    return max(round(CELL * width / longer), 1), max(round(CELL * height / longer), 1)


def _seen_by_model(picture: Image.Image, config: Any, shape: tuple[int, ...]) -> Image.Image:
    """Returns the part of the picture that the model sees: the centered square that `preprocess` keeps, or all."""
    if tuple(shape) != (config.image_size, config.image_size):
        return picture
    short = min(picture.size)
    side = short * config.image_size / math.floor(config.image_size / config.crop)
    left, top = (picture.width - side) / 2, (picture.height - side) / 2
    return picture.transform(
        (max(round(side), 1),) * 2, Image.Transform.EXTENT, (left, top, left + side, top + side), Image.Resampling.BICUBIC
    )
