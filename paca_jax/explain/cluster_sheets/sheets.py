"""Sheets of pictures with the answers of a model and the most selective clusters of every stage."""

import math
import os
from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree
from PIL import Image

from paca_jax import data, ops
from paca_jax.errors import UserError, check, shorten
from paca_jax.explain.checks import (
    WHOLE,
    AnyModel,
    check_model,
    checked_array,
    checked_items,
    checked_names,
    names_of_classes,
    rgb,
)
from paca_jax.explain.cluster_sheets.answers import STRIDE, Seen, answer, outputs
from paca_jax.explain.cluster_sheets.layout import Row, draw_sheet
from paca_jax.explain.cluster_sheets.maps import HEAD, drawn_blocks, stage_maps
from paca_jax.explain.inspection.cluster_effects import cluster_effects
from paca_jax.fields import OneOf, Range, check_value
from paca_jax.models import Detector, PaCaViT, Segmentor
from paca_jax.models.model import check_images

# The longer side of a picture in pixels; larger where the answer has places, which are drawn in it.
_CELL, _LARGE_CELL = 160, 208
_SCORE = 0.5  # the score above which the objects of a detector are usually drawn

_Columns = Annotated[int, Range(1, 100)]
_Score = Annotated[float, Range(0, 1)]
Order = Literal["effect", "sharpness"]
_Orders = Annotated[str, OneOf(*get_args(Order))]


def sheet(
    model: AnyModel,
    variables: dict[str, PyTree],
    pictures: data.Picture | Sequence[data.Picture],
    class_names: Sequence[str] | None = None,
    *,
    clusters_per_image: int = 4,
    block: str | None = None,
    score: float | None = None,
    order: Order = "effect",
) -> Image.Image:
    """Draws what a model sees in your own pictures: for each its answer, and each stage's clusters that do most for it.

    Args:
        model: a classifier, segmentor or detector with clusters, as from `paca_jax.load`.
        variables: the variables of the model.
        pictures: one picture, or several in a list: paths, bytes of image files, Pillow images, or uint8 arrays (H, W, C).
        class_names: the names of the model's classes, in order, as from `paca_jax.class_names`. Default: those of ImageNet,
            ADE20K or COCO for a classifier, segmentor or detector with as many classes, which a warning says, otherwise
            numbers.
        clusters_per_image: as for `cluster_sheet`.
        block: as for `cluster_sheet`.
        score: as for `cluster_sheet`.
        order: as for `cluster_sheet`.

    Returns:
        An RGB picture, as `cluster_sheet` draws it.

    Raises:
        UserError: if a picture cannot be read, or as for `cluster_sheet`.
    """
    check_model(model, variables)
    single = isinstance(pictures, str | bytes | os.PathLike | Image.Image | np.ndarray)
    listed: Sequence[Any] = [pictures] if single else checked_items("pictures", pictures)
    seen = [_seen(model, data.read_picture(picture, model.config.image_channels)) for picture in listed]
    check(bool(seen), "Expected at least one picture to draw, got none. Pass one.")
    return _draw(model, variables, seen, class_names, None, clusters_per_image, block, score, order)


def cluster_sheet(
    model: AnyModel,
    variables: dict[str, PyTree],
    pictures: Sequence[Image.Image],
    images: Float[Array, "B H W C"],
    class_names: Sequence[str],
    labels: Sequence[int] | None = None,
    clusters_per_image: int = 4,
    block: str | None = None,
    score: float | None = None,
    order: Order = "effect",
) -> Image.Image:
    """Draws the picture, the model's answer and the clusters of each stage that do most for it, for every image.

    The answer depends on the kind of model: up to three classes of a classifier by probability; the classes of a segmentor by
    area, and its segments; the objects of a detector by score, and their boxes and masks. Beside it are the stages that have
    clusters, a row for each: its clusters that do most for the answer and differ from each other, at most `clusters_per_image`,
    as heat maps over the picture. A caption has the number of the cluster, its largest weight as a multiple of a uniform one,
    and the drop without it. Clusters of a PaCa head are the classes, and have their names.

    Args:
        model: a classifier, segmentor or detector with clusters.
        variables: the variables of the model.
        pictures: the B pictures that `images` were made from, in any size. If `images` have a classifier's native size, as from
            `paca_jax.preprocess`, the part of a picture that it keeps is drawn, otherwise the whole picture.
        images: the normalized images, not padded.
        class_names: the names of the model's classes, in order.
        labels: for a classifier, the true classes, if known.
        clusters_per_image: the largest number of heat maps in a row, 1 to 100.
        block: the one assignment to draw, a key of `model.apply(variables, images, method="clusters")`; None for the first of
            each stage.
        score: for a detector, the score above which objects are drawn, 0 to 1; None for one half.
        order: how clusters are chosen: "effect", those without which the model is least sure of its answer (the drops of
            `cluster_effects`; of a PaCa head, the classes that cover most), which takes an answer without each cluster for each
            image; or "sharpness", those that gather the smallest part of the picture, which takes none.

    Returns:
        An RGB picture with a header; each stage of each image takes about 210 pixels of its height.

    Raises:
        UserError: if the model has no classes, other variables, no clusters or no such block, or with order="effect" outputs
            that are not finite; if the numbers of pictures, images, names and labels do not agree; if labels or a score do not
            fit the kind of model; or if one of these is of another type, or out of range.
    """
    check_model(model, variables)
    shown = [rgb(picture) for picture in checked_items("pictures", pictures)]
    labels = None if labels is None else checked_array("labels", labels, WHOLE, ("B",), least=0).tolist()
    _check_counts(model, shown, images, labels)
    size = (images.shape[1], images.shape[2])
    seen = [
        Seen(_cell(model, seen_by_model(picture, model, size), size), image, size)
        for picture, image in zip(shown, images, strict=True)
    ]
    return _draw(model, variables, seen, checked_names(class_names), labels, clusters_per_image, block, score, order)


def _draw(
    model: AnyModel,
    variables: dict[str, PyTree],
    seen: Sequence[Seen],
    class_names: Sequence[str] | None,
    labels: Sequence[int] | None,
    columns: int,
    block: str | None,
    score: float | None,
    order: Order,
) -> Image.Image:
    check_value("clusters_per_image", columns, _Columns)
    check_value("block", block, str | None)
    check_value("score", score, _Score | None)
    check_value("order", order, _Orders)
    if score is not None and not isinstance(model, Detector):
        raise UserError(
            f"Expected a detector with a score, got a {type(model).__name__}, which finds no objects. Leave it out."
        )
    names = names_of_classes(model, class_names)
    least, rows = _SCORE if score is None else score, []
    for index, image in enumerate(seen):
        found, assignments = outputs(model, variables, image)
        drawn = drawn_blocks(list(assignments), block)
        effects = {name: _effects(model, variables, image, name, found) if order == "effect" else None for name in drawn}
        stages = [stage_maps(name, assignments[name], image, columns, names, effects[name]) for name in drawn]
        label = None if labels is None else labels[index]
        rows.append(Row(image.picture, answer(model, found, image, names, label, least), stages))
    unit = None if order == "sharpness" else "in scores" if isinstance(model, Detector) else "in nats"
    return draw_sheet(rows, columns, unit)


def _effects(model: AnyModel, variables: dict[str, PyTree], seen: Seen, block: str, found: Any) -> Float[np.ndarray, "M"]:
    """Returns what each cluster of an assignment does for the answer to an image; of a head, how much each class covers."""
    height, width = seen.size
    if block != HEAD:
        return cluster_effects(model, variables, seen.image[None, :height, :width], block).drops[0]
    classes = found[: -(-height // STRIDE), : -(-width // STRIDE)].argmax(-1)
    counts = np.bincount(classes.ravel(), minlength=found.shape[-1])
    return np.where(counts > 0, counts / classes.size, np.nan)  # a class that covers nothing is not drawn


def _check_counts(
    model: AnyModel, pictures: Sequence[Image.Image], images: Float[Array, "B H W C"], labels: Sequence[int] | None
) -> None:
    check(bool(pictures), "Expected at least one picture to draw, got none. Pass one.")
    check_images(images, model.config.image_channels)
    if len(pictures) != len(images):
        raise UserError(
            f"Expected one image for each picture, got {len(pictures)} pictures and {len(images)} images. Pass equally many."
        )
    if labels is None:
        return
    classes = model.config.num_classes
    check(
        isinstance(model, PaCaViT),
        f"Expected labels for a classifier alone, got some for a {type(model).__name__}. Leave them out.",
    )
    if len(labels) != len(images):
        raise UserError(
            f"Expected one label for each image, got {len(images)} images and {len(labels)} labels. Pass equally many."
        )
    if not all(0 <= label < classes for label in labels):
        raise UserError(f"Expected labels from 0 to {classes - 1}, got {shorten(str([*labels]))}. Correct them.")


def _seen(model: AnyModel, picture: Image.Image) -> Seen:
    """Returns a picture as the model's evaluation and `paca predict` see it."""
    transform: Any = data.eval_transform(model.config)
    view = transform.view(picture)
    if isinstance(model, PaCaViT):
        size, image = view.shape[:2], jnp.asarray(data.preprocess(picture, model))
        return Seen(_cell(model, seen_by_model(rgb(picture), model, size), size), image, size)
    suffix = "_0" if isinstance(model, Segmentor) else ""
    size = tuple(view[f"size{suffix}"].tolist())
    image = ops.normalize_inside(jnp.asarray(view[f"image{suffix}"])[None], jnp.asarray([size], jnp.int32))[0]
    return Seen(_cell(model, rgb(picture), size), image, size)


def _cell(model: AnyModel, picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Returns the picture to draw, in the proportions of an image of a (height, width)."""
    longer = _CELL if isinstance(model, PaCaViT) else _LARGE_CELL
    height, width = (max(round(longer * side / max(size)), 1) for side in size)
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def seen_by_model(picture: Image.Image, model: AnyModel, size: tuple[int, int]) -> Image.Image:
    """Returns the part of the picture that the model sees: the centered square that `preprocess` keeps, or all."""
    if not isinstance(model, PaCaViT) or size != (model.config.image_size, model.config.image_size):
        return picture
    config, short = model.config, min(picture.size)
    side = short * config.image_size / math.floor(config.image_size / config.crop)
    left, top = (picture.width - side) / 2, (picture.height - side) / 2
    return picture.transform(
        (max(round(side), 1),) * 2, Image.Transform.EXTENT, (left, top, left + side, top + side), Image.Resampling.BICUBIC
    )
