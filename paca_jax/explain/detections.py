"""Pictures of detections: objects over the picture in the colors of their classes, and a legend."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from PIL import Image

from paca_jax import ops
from paca_jax.errors import UserError
from paca_jax.explain.columns import LegendLine, Strip, draw_columns, shown_pictures
from paca_jax.explain.marking import Marked, by_score, class_color, mark

TITLES = ("picture", "objects", "truth")
_LEAST_OVERLAP = 0.5  # an object with at least this IoU with a box of its class counts as found


class Found(NamedTuple):
    """One picture of a sheet.

    Attributes:
        picture: the picture, in any mode.
        objects: the objects that a model found.
        truth: the true objects, if known.
    """

    picture: Image.Image
    objects: Marked
    truth: Marked | None = None


def detection_overlay(
    picture: Image.Image, objects: Marked, class_names: Sequence[str], truth: Marked | None = None
) -> Image.Image:
    """Draws a picture next to the objects found in it, the true objects if they are known, and a legend.

    Args:
        picture: the picture, in any mode.
        objects: the objects that a model found.
        class_names: the names of the classes, in order.
        truth: the true objects, if known.

    Returns:
        An RGB picture; see `detection_sheet`.

    Raises:
        UserError: as for `detection_sheet`.
    """
    return detection_sheet([Found(picture, objects, truth)], class_names)


def detection_sheet(rows: Sequence[Found], class_names: Sequence[str]) -> Image.Image:
    """Draws pictures below each other, each next to the objects found in it and the true objects if they are known.

    Objects have the colors of their classes and lie over the picture in gray; white outlines separate masks of the same class.
    The legend counts the objects of up to 12 classes, the most frequent first. A caption below each picture with known true
    objects counts those that were found: those that a box of their class overlaps with an IoU of at least 0.5. Each box counts
    once.

    Args:
        rows: the pictures, at least one.
        class_names: the names of the classes, in order.

    Returns:
        An RGB picture, in which the longer side of each picture has 320 to 640 pixels.

    Raises:
        UserError: if there is no picture, or if objects do not fit their picture, each other or the classes.
    """
    rows = [_checked(row, len(class_names)) for row in rows]
    shown = shown_pictures([row.picture for row in rows])
    strips = [_strip(row, picture, class_names) for row, picture in zip(rows, shown, strict=True)]
    return draw_columns(strips, TITLES, *_legend(rows, class_names))


def _strip(row: Found, shown: Image.Image, class_names: Sequence[str]) -> Strip:
    pictures = [shown, mark(shown, row.objects, row.picture.size, class_names)]
    if row.truth is None:
        return Strip(pictures)
    right, there, drawn = _num_right(row.objects, row.truth), len(row.truth.labels), len(row.objects.labels)
    caption = f"{right} of {there} objects found" + (f", {drawn - right} wrong" if drawn > right else "")
    return Strip([*pictures, mark(shown, row.truth, row.picture.size, class_names)], caption)


def _num_right(objects: Marked, truth: Marked) -> int:
    """Returns the number of objects that match a true one; each true one matches only the object with the highest score."""
    if not len(objects.labels) or not len(truth.labels):
        return 0
    overlaps = np.array(ops.box_iou(jnp.asarray(objects.boxes), jnp.asarray(truth.boxes)))
    overlaps[objects.labels[:, None] != truth.labels] = 0
    right = 0
    for k in by_score(objects):
        nearest = overlaps[k].argmax()
        if overlaps[k, nearest] >= _LEAST_OVERLAP:
            overlaps[:, nearest] = 0
            right += 1
    return right


def _legend(rows: Sequence[Found], class_names: Sequence[str]) -> tuple[str, list[LegendLine]]:
    """Returns the title and the lines of the legend."""
    known = any(row.truth is not None for row in rows)
    found, there = np.zeros((2, len(class_names)), np.int64)
    for row in rows:
        found += np.bincount(row.objects.labels, minlength=len(class_names))
        there += 0 if row.truth is None else np.bincount(row.truth.labels, minlength=len(class_names))
    lines = [
        LegendLine(class_color(label), class_names[label], f"{found[label]} / {there[label]}" if known else f"{found[label]}")
        for label in np.lexsort((-there, -found)).tolist()
        if found[label] or there[label]
    ]
    return "objects, found / true" if known else "objects", lines


def _checked(row: Found, num_classes: int) -> Found:
    def fitting(objects: Marked) -> Marked:
        boxes, labels = np.asarray(objects.boxes, np.float64), np.asarray(objects.labels)
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise UserError(f"Expected integer labels of shape (n,), got {labels.dtype} of shape {labels.shape}. Convert them.")
        wrong = labels[(labels < 0) | (labels >= num_classes)]
        if wrong.size:
            raise UserError(f"Expected labels from 0 to {num_classes - 1}, got {wrong[0]}. Correct them.")
        if boxes.shape != (len(labels), 4) or not np.isfinite(boxes).all() or (boxes[:, :2] > boxes[:, 2:]).any():
            raise UserError(
                f"Expected finite left, top, right and bottom edges of {len(labels)} boxes, in this order, got shape "
                f"{boxes.shape}, or edges that are not finite or out of order. Correct them."
            )
        scores = None if objects.scores is None else np.asarray(objects.scores)
        if scores is not None and scores.shape != labels.shape:
            raise UserError(f"Expected a score for each of {len(labels)} objects, got shape {scores.shape}. Correct them.")
        masks = None if objects.masks is None else np.asarray(objects.masks)
        expected = (len(labels), *row.picture.size[::-1])
        if masks is not None and (masks.dtype != bool or masks.shape != expected):
            raise UserError(f"Expected bool masks of shape {expected}, got {masks.dtype} of shape {masks.shape}. Paste them.")
        return Marked(boxes, labels, scores, masks)

    return Found(row.picture, fitting(row.objects), None if row.truth is None else fitting(row.truth))
