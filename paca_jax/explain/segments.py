"""Pictures of segmentations: the classes of pixels in colours over the picture, and a legend."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Integer, UInt8
from PIL import Image, ImageDraw

from paca_jax.errors import UserError
from paca_jax.explain.colours import IGNORED, checked_labels, palette
from paca_jax.explain.drawing import CAPTION_HEIGHT, GAP, INK, LINE, MARGIN, PAPER, ROW_GAP, SOFT, fitted, font

# A picture's longer side in pixels: small ones are enlarged, large ones made smaller.
SMALLEST, LARGEST = 320, 640
LEGEND_WIDTH = 230
LEGEND_LINE = 25
MAX_NAMED = 12
TITLES = ("picture", "segments", "truth")
_OPACITY = 0.62
_BOUNDARY = (255, 255, 255)


class Segments(NamedTuple):
    """One picture of a sheet.

    Attributes:
        picture: any mode.
        labels: the class of each of its pixels, as a model has it; 255 where there is none.
        truth: the right classes, where they are known; 255 where a pixel does not count.
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
    """Draws a picture, beside it its classes in colours, then the right ones where they are known, and a legend.

    Args:
        picture: any mode.
        labels: the class of each of its pixels, 255 where there is none.
        class_names: the classes in their order.
        truth: the right classes, 255 where a pixel does not count.

    Returns:
        An RGB picture; see `segment_sheet`.

    Raises:
        UserError: as for `segment_sheet`.
    """
    return segment_sheet([Segments(picture, labels, truth)], class_names)


def segment_sheet(rows: Sequence[Segments], class_names: Sequence[str]) -> Image.Image:
    """Draws pictures below each other, beside each its classes in colours and the right ones where they are known.

    The legend names the classes by the share that they have of all pixels with a class, largest first, at most 12.

    Args:
        rows: at least one.
        class_names: the classes in their order, 1 to 255.

    Returns:
        An RGB picture. A picture's longer side is 320 to 640 pixels in it.

    Raises:
        UserError: if there is no picture, or labels are not those of the picture's pixels or of the classes.
    """
    if not rows:
        raise UserError("Expected at least one picture to draw, got none.")
    rows = [_checked(row, len(class_names)) for row in rows]
    cell = min(max(SMALLEST, *(max(row.picture.size) for row in rows)), LARGEST)
    sizes = [_fitted_size(row.picture.size, cell) for row in rows]
    width = max(size[0] for size in sizes)
    titles = TITLES if any(row.truth is not None for row in rows) else TITLES[:2]
    lines = _legend_lines(rows, class_names)
    top = MARGIN + CAPTION_HEIGHT
    known = CAPTION_HEIGHT if len(titles) == 3 else 0
    pictures_height = sum(size[1] + known + ROW_GAP for size in sizes) - ROW_GAP
    left = MARGIN + len(titles) * (width + GAP) + GAP
    sheet = Image.new(
        "RGB", (left + LEGEND_WIDTH + MARGIN, top + max(pictures_height, len(lines) * LEGEND_LINE) + MARGIN), PAPER
    )
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        draw.text((MARGIN + column * (width + GAP), MARGIN), title, SOFT, font(15))
    draw.text((left, MARGIN), "share of the pixels", SOFT, font(15))
    _draw_legend(draw, lines, palette(len(class_names)), left, top)
    for row, size in zip(rows, sizes, strict=True):
        _draw_row(sheet, row, size, width, top)
        top += size[1] + known + ROW_GAP
    return sheet


def _draw_row(sheet: Image.Image, row: Segments, size: tuple[int, int], width: int, top: int) -> None:
    shown = row.picture.resize(size, Image.Resampling.LANCZOS)
    pictures = [shown, _coloured(shown, row.labels)]
    if row.truth is not None:
        pictures.append(_coloured(shown, row.truth))
        draw = ImageDraw.Draw(sheet)
        counts = row.truth != IGNORED
        if counts.any():
            right = f"{(row.labels == row.truth)[counts].mean():.1%} of the pixels right"
            draw.text((MARGIN + width + GAP, top + size[1] + 5), right, SOFT, font(13))
    for column, picture in enumerate(pictures):
        sheet.paste(picture, (MARGIN + column * (width + GAP), top))


def _coloured(picture: Image.Image, labels: UInt8[np.ndarray, "H W"]) -> Image.Image:
    """Returns the picture in grey with its classes in colours and a thin line around each region; no class stays grey."""
    fine = np.asarray(Image.fromarray(labels).resize(picture.size, Image.Resampling.NEAREST))
    grey = np.asarray(picture.convert("L"), np.float32)[..., None]
    colours = np.zeros((256, 3), np.float32)
    colours[:IGNORED] = palette(IGNORED)
    opacity = np.where(fine == IGNORED, 0, _OPACITY)[..., None]
    mixed = grey * (1 - opacity) + colours[fine] * opacity
    mixed[_boundaries(fine)] = _BOUNDARY
    return Image.fromarray(np.round(mixed).astype(np.uint8))


def _boundaries(labels: UInt8[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """Where the label differs from that of the next pixel to the right or below."""
    edges = np.zeros(labels.shape, bool)
    edges[:, :-1] |= labels[:, 1:] != labels[:, :-1]
    edges[:-1] |= labels[1:] != labels[:-1]
    return edges


def _legend_lines(rows: Sequence[Segments], class_names: Sequence[str]) -> list[tuple[int | None, str, str]]:
    """Class, name and share of each line; the last one tells how many classes were left out."""
    counts, there = np.zeros((2, 256), np.int64)
    for row in rows:
        counts += np.bincount(row.labels.ravel(), minlength=256)
        there += 0 if row.truth is None else np.bincount(row.truth.ravel(), minlength=256)
    counts[IGNORED] = there[IGNORED] = 0
    present = [int(label) for label in np.lexsort((-there, -counts)) if counts[label] or there[label]]
    total = max(counts.sum(), 1)
    lines: list[tuple[int | None, str, str]] = [
        (label, class_names[label], f"{counts[label] / total:.1%}") for label in present[:MAX_NAMED]
    ]
    return lines + ([(None, f"and {len(present) - MAX_NAMED} more", "")] if len(present) > MAX_NAMED else [])


def _draw_legend(
    draw: ImageDraw.ImageDraw,
    lines: Sequence[tuple[int | None, str, str]],
    colours: UInt8[np.ndarray, "K 3"],
    left: int,
    top: int,
) -> None:
    for number, (label, name, share) in enumerate(lines):
        middle = top + number * LEGEND_LINE + 9
        if label is not None:
            draw.rounded_rectangle((left, middle - 8, left + 16, middle + 8), 3, tuple(colours[label].tolist()), LINE)
        draw.text((left + 26, middle), fitted(draw, name, LEGEND_WIDTH - 86, 15), INK, font(15), anchor="lm")
        draw.text((left + LEGEND_WIDTH, middle), share, SOFT, font(15), anchor="rm")


def _fitted_size(size: tuple[int, int], longer: int) -> tuple[int, int]:
    scale = longer / max(size)
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def _checked(row: Segments, num_classes: int) -> Segments:
    def fitting(labels: Integer[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
        labels = checked_labels(labels, num_classes)
        if labels.shape != row.picture.size[::-1]:
            raise UserError(
                f"Expected one label for each of the picture's {row.picture.height} x {row.picture.width} pixels, got "
                f"{labels.shape[0]} x {labels.shape[1]}; resize them."
            )
        return labels

    truth = None if row.truth is None else fitting(row.truth)
    return Segments(row.picture.convert("RGB"), fitting(row.labels), truth)
