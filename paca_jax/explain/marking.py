"""Objects drawn in a picture: their masks, boxes and labels."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8
from PIL import Image, ImageDraw, ImageFilter

from paca_jax.explain.colors import MAX_CLASSES, palette
from paca_jax.explain.drawing import INK, PAPER, fitted, font

Color = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]

_FINE = 2  # lines are drawn at twice the size and then reduced, for antialiasing
_BLUR = 0.5  # of a mask, in pixels of the original: smooths enlarged edges
_OPACITY = 0.55
_OUTLINE = (255, 255, 255)
_OUTLINE_WIDTH, _BOX_WIDTH = 2, 3  # at the doubled size
_LABEL_SIZE, _LABEL_HEIGHT, _LABEL_PADDING = 12, 17, 4
_BRIGHT = 150  # labels at least as luminous as this have dark text


class Marked(NamedTuple):
    """Objects of one picture: those that a model found, or the true ones.

    Attributes:
        boxes: left, top, right and bottom edges in pixels of the picture.
        labels: the classes.
        scores: 0 to 1; None for true objects.
        masks: the pixels of the picture that belong to each object; None if unknown.
    """

    boxes: Float[np.ndarray, "n 4"]
    labels: Integer[np.ndarray, "n"]
    scores: Float[np.ndarray, "n"] | None = None
    masks: Bool[np.ndarray, "n H W"] | None = None


def class_color(label: int) -> Color:
    """Returns the color of a class of objects: one of `palette` except that of the background, repeating after 254 classes."""
    red, green, blue = palette(MAX_CLASSES)[1 + label % (MAX_CLASSES - 1)].tolist()
    return red, green, blue


def mark(picture: Image.Image, objects: Marked, original: tuple[int, int], class_names: Sequence[str]) -> Image.Image:
    """Returns the picture in gray with objects in the colors of their classes, small ones over large ones.

    Each label is next to its box, inside the picture, and overlaps no other; labels of low scores are left out if they do not
    fit.

    Args:
        picture: the picture in RGB, in the size to draw.
        objects: the objects, in pixels of the original picture.
        original: the width and height of the original picture.
        class_names: the names of the classes, in order.
    """
    fine = (_FINE * picture.width, _FINE * picture.height)
    gray = np.asarray(picture.convert("L").resize(fine, Image.Resampling.NEAREST), np.float32)[..., None]
    pixels = np.repeat(gray, 3, -1).round().astype(np.uint8)
    colors = [class_color(label) for label in objects.labels.tolist()]
    boxes = np.clip(objects.boxes / np.tile(original, 2), 0, 1)
    by_size = np.argsort(-np.prod(boxes[:, 2:] - boxes[:, :2], -1), kind="stable").tolist()
    if objects.masks is not None:
        for k in by_size:
            _blend(pixels, gray, objects.masks[k], colors[k])
    drawn = Image.fromarray(pixels)
    draw = ImageDraw.Draw(drawn)
    for k in by_size:
        edges = np.round(boxes[k] * (np.tile(fine, 2) - 1)).astype(int).tolist()
        draw.rounded_rectangle(edges, 2 * _FINE, outline=colors[k], width=_BOX_WIDTH)
    drawn = drawn.reduce(_FINE)
    _draw_labels(drawn, objects, np.round(boxes * np.tile(picture.size, 2)).astype(int), colors, class_names)
    return drawn


def _blend(pixels: UInt8[np.ndarray, "H W 3"], gray: Float[np.ndarray, "H W 1"], mask: np.ndarray, color: Color) -> None:
    """Colors a mask and draws a thin line along the inside of its edge."""
    whole = Image.fromarray(mask.astype(np.uint8) * 255).resize(pixels.shape[1::-1], Image.Resampling.BICUBIC)
    whole = whole.filter(ImageFilter.GaussianBlur(_BLUR * whole.width / mask.shape[1])).point([0] * 128 + [255] * 128)
    extent = whole.getbbox()
    if extent is None:
        return
    left, top, right, bottom = extent
    part = np.asarray(whole)[top:bottom, left:right] > 0
    framed = Image.fromarray(np.pad(part, _OUTLINE_WIDTH).astype(np.uint8))
    inner = np.asarray(framed.filter(ImageFilter.MinFilter(2 * _OUTLINE_WIDTH + 1))) > 0
    inner = inner[_OUTLINE_WIDTH:-_OUTLINE_WIDTH, _OUTLINE_WIDTH:-_OUTLINE_WIDTH]
    mixed = gray[top:bottom, left:right] * (1 - _OPACITY) + np.array(color) * _OPACITY
    seen = pixels[top:bottom, left:right]
    seen[part] = np.round(mixed[part])
    seen[part & ~inner] = _OUTLINE


def _draw_labels(
    picture: Image.Image,
    objects: Marked,
    boxes: Integer[np.ndarray, "n 4"],
    colors: Sequence[Color],
    class_names: Sequence[str],
) -> None:
    draw = ImageDraw.Draw(picture)
    taken: list[Rectangle] = []
    for k in by_score(objects):
        name = class_names[int(objects.labels[k])]
        score = "" if objects.scores is None else f" {objects.scores[k]:.0%}"
        room = picture.width - 2 * _LABEL_PADDING - draw.textlength(score, font(_LABEL_SIZE))
        text = fitted(draw, name, room, _LABEL_SIZE) + score
        width = round(draw.textlength(text, font(_LABEL_SIZE))) + 2 * _LABEL_PADDING
        place = _free_place(boxes[k].tolist(), width, picture.size, taken)
        if place is None:
            continue
        taken.append(place)
        draw.rounded_rectangle((place[0], place[1], place[2] - 1, place[3] - 1), 3, colors[k])
        middle = (place[0] + _LABEL_PADDING, (place[1] + place[3]) / 2)
        draw.text(middle, text, INK if _luminance(colors[k]) >= _BRIGHT else PAPER, font(_LABEL_SIZE), anchor="lm")


def _free_place(box: Sequence[int], width: int, size: tuple[int, int], taken: Sequence[Rectangle]) -> Rectangle | None:
    """Returns the place of a label, above, below or inside its box; None if it does not fit."""
    left, top, right, bottom = box
    for y in (top - _LABEL_HEIGHT, bottom, top, bottom - _LABEL_HEIGHT):
        for x in (left, right - width):
            x = min(max(x, 0), size[0] - width)
            place = (x, y, x + width, y + _LABEL_HEIGHT)
            if x >= 0 and y >= 0 and place[3] <= size[1] and not any(_overlap(place, other) for other in taken):
                return place
    return None


def by_score(objects: Marked) -> list[int]:
    """Returns the indices of the objects in descending order of score."""
    scores = np.zeros(len(objects.labels)) if objects.scores is None else objects.scores
    return np.argsort(-scores, kind="stable").tolist()


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _luminance(color: Color) -> float:
    return float(np.dot(color, (0.299, 0.587, 0.114)))
