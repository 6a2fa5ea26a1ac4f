"""Pictures of detections: objects over the picture in the colors of their classes, and a legend."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from PIL import Image

from paca_jax import ops
from paca_jax.errors import UserError
from paca_jax.explain.checks import BOOL, REAL, WHOLE, check_picture, checked_array, checked_names, checked_rows
from paca_jax.explain.columns import LegendLine, Strip, draw_columns, shown_pictures
from paca_jax.explain.marking import Marked, by_score, class_color, mark
from paca_jax.fields import check_value

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
        UserError: if there is no picture, if a picture is no Pillow image, has no pixels or is damaged, if objects do not fit
            their picture, each other or the classes, or if the names are no texts.
    """
    class_names = checked_names(class_names)
    rows = [_checked(row, len(class_names)) for row in checked_rows(rows, Found)]
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
    check_picture(row.picture)

    def fitting(name: str, objects: Marked) -> Marked:
        check_value(name, objects, Marked)
        labels = np.asarray(checked_array("labels", objects.labels, WHOLE, ("n",), least=0))
        wrong = labels[(labels < 0) | (labels >= num_classes)]
        if wrong.size:
            raise UserError(f"Expected labels from 0 to {num_classes - 1}, got {wrong[0]}. Correct them.")
        boxes = np.asarray(checked_array("boxes", objects.boxes, REAL, (len(labels), 4)), np.float64)
        if not np.isfinite(boxes).all() or (boxes[:, :2] > boxes[:, 2:]).any():
            raise UserError(
                f"Expected finite left, top, right and bottom edges of {len(labels)} boxes, in this order, got edges that are "
                "not finite or out of order. Correct them."
            )
        scores, masks = objects.scores, objects.masks
        if scores is not None:
            scores = np.asarray(checked_array("scores", scores, REAL, labels.shape), np.float64)
            if not ((scores >= 0) & (scores <= 1)).all():
                raise UserError(f"Expected scores from 0 to 1, got {scores.min()} to {scores.max()}. Correct them.")
        if masks is not None:
            masks = np.asarray(checked_array("masks", masks, BOOL, (len(labels), *row.picture.size[::-1])))
        return Marked(boxes, labels, scores, masks)

    return Found(row.picture, fitting("objects", row.objects), None if row.truth is None else fitting("truth", row.truth))
