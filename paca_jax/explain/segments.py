"""Pictures of segmentations: the classes of pixels as colors over the picture, and a legend."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Integer, UInt8
from PIL import Image

from paca_jax.errors import UserError
from paca_jax.explain.checks import check_picture, checked_names, checked_rows
from paca_jax.explain.colors import IGNORED, MAX_CLASSES, checked_labels, palette
from paca_jax.explain.columns import LegendLine, Strip, draw_columns, shown_pictures

TITLES = ("picture", "segments", "truth")
_OPACITY = 0.62
_BOUNDARY = (255, 255, 255)


class Segments(NamedTuple):
    """One picture of a sheet.

    Attributes:
        picture: the picture, in any mode.
        labels: the class of each pixel that a model predicted; 255 for none.
        truth: the true classes, if known; 255 for ignored pixels.
    """

    picture: Image.Image
    labels: Integer[np.ndarray, "H W"]
    truth: Integer[np.ndarray, "H W"] | None = None


def segment_overlay(
    picture: Image.Image,
    labels: Integer[np.ndarray, "H W"],
    class_names: Sequence[str],
    truth: Integer[np.ndarray, "H W"] | None = None,
) -> Image.Image:
    """Draws a picture next to its segments, the true segments if they are known, and a legend.

    Args:
        picture: the picture, in any mode.
        labels: the class of each pixel; 255 for none.
        class_names: the names of the classes, in order.
        truth: the true classes, if known; 255 for ignored pixels.

    Returns:
        An RGB picture; see `segment_sheet`.

    Raises:
        UserError: as for `segment_sheet`.
    """
    return segment_sheet([Segments(picture, labels, truth)], class_names)


def segment_sheet(rows: Sequence[Segments], class_names: Sequence[str]) -> Image.Image:
    """Draws pictures below each other, each next to its segments and the true segments if they are known.

    Segments have the colors of their classes and lie over the picture in gray. The legend lists up to 12 classes with their
    fraction of all pixels that have a class, the largest first.

    Args:
        rows: the pictures, at least one.
        class_names: the names of the classes, in order, 1 to 255.

    Returns:
        An RGB picture, in which the longer side of each picture has 320 to 640 pixels.

    Raises:
        UserError: if there is no picture, if a picture is no Pillow image, has no pixels or is damaged, if labels do not fit
            their picture or the classes, or if there are more or fewer names.
    """
    class_names = checked_names(class_names)
    if not 1 <= len(class_names) <= MAX_CLASSES:
        raise UserError(f"Expected class_names of 1 to {MAX_CLASSES} classes, got {len(class_names)}. Draw a subset of them.")
    rows = [_checked(row, len(class_names)) for row in checked_rows(rows, Segments)]
    strips = [_strip(row, shown) for row, shown in zip(rows, shown_pictures([row.picture for row in rows]), strict=True)]
    return draw_columns(strips, TITLES, "fraction of pixels", _legend(rows, class_names))


def _strip(row: Segments, shown: Image.Image) -> Strip:
    pictures = [shown, colored(shown, row.labels)]
    if row.truth is None:
        return Strip(pictures)
    counts = row.truth != IGNORED
    right = f"{(row.labels == row.truth)[counts].mean():.1%} of the pixels right" if counts.any() else ""
    return Strip([*pictures, colored(shown, row.truth)], right)


def colored(picture: Image.Image, labels: UInt8[np.ndarray, "H W"]) -> Image.Image:
    """Returns the picture in gray with colored classes and a thin line around each region; pixels without a class stay gray."""
    fine = np.asarray(Image.fromarray(labels).resize(picture.size, Image.Resampling.NEAREST))
    gray = np.asarray(picture.convert("L"), np.float32)[..., None]
    colors = np.zeros((256, 3), np.float32)
    colors[:IGNORED] = palette(IGNORED)
    opacity = np.where(fine == IGNORED, 0, _OPACITY)[..., None]
    mixed = gray * (1 - opacity) + colors[fine] * opacity
    mixed[_boundaries(fine)] = _BOUNDARY
    return Image.fromarray(np.round(mixed).astype(np.uint8))


def _boundaries(labels: UInt8[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """Returns whether the label differs from that of the next pixel to the right or below."""
    edges = np.zeros(labels.shape, bool)
    edges[:, :-1] |= labels[:, 1:] != labels[:, :-1]
    edges[:-1] |= labels[1:] != labels[:-1]
    return edges


def _legend(rows: Sequence[Segments], class_names: Sequence[str]) -> list[LegendLine]:
    counts, there = np.zeros((2, 256), np.int64)
    for row in rows:
        counts += np.bincount(row.labels.ravel(), minlength=256)
        there += 0 if row.truth is None else np.bincount(row.truth.ravel(), minlength=256)
    counts[IGNORED] = there[IGNORED] = 0
    present = [int(label) for label in np.lexsort((-there, -counts)) if counts[label] or there[label]]
    total, colors = max(counts.sum(), 1), palette(len(class_names)).tolist()
    return [LegendLine(tuple(colors[label]), class_names[label], f"{counts[label] / total:.1%}") for label in present]


def _checked(row: Segments, num_classes: int) -> Segments:
    check_picture(row.picture)

    def fitting(labels: Integer[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
        labels = checked_labels(labels, num_classes)
        if labels.shape != row.picture.size[::-1]:
            raise UserError(
                f"Expected one label for each of the picture's {row.picture.height} x {row.picture.width} pixels, got "
                f"{labels.shape[0]} x {labels.shape[1]}. Resize them."
            )
        return labels

    truth = None if row.truth is None else fitting(row.truth)
    return Segments(row.picture, fitting(row.labels), truth)
