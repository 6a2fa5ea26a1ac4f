"""The layout of sheets: pictures in rows and columns, with a legend of classes. Independent of what the pictures show."""

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw

from paca_jax.explain.checks import rgb
from paca_jax.explain.drawing import CAPTION_HEIGHT, GAP, INK, LINE, MARGIN, PAPER, ROW_GAP, SOFT, fitted, font

# Bounds of a picture's longer side in pixels; pictures outside are resized.
SMALLEST, LARGEST = 320, 640
LEGEND_WIDTH = 230
LEGEND_LINE = 25
MAX_NAMED = 12


class Strip(NamedTuple):
    """One row of a sheet.

    Attributes:
        pictures: RGB pictures of one size.
        caption: the text below the second picture.
    """

    pictures: list[Image.Image]
    caption: str = ""


class LegendLine(NamedTuple):
    """One class of a legend.

    Attributes:
        color: red, green and blue.
        name: the name of the class.
        value: its fraction or count.
    """

    color: tuple[int, ...]
    name: str
    value: str


def shown_pictures(pictures: Sequence[Image.Image]) -> list[Image.Image]:
    """Returns the pictures, at least one, as RGB in the size that a sheet shows.

    That is one longer side for all, from `SMALLEST` to `LARGEST`.

    Raises:
        UserError: if a picture cannot be converted.
    """
    longer = min(max(SMALLEST, *(max(picture.size) for picture in pictures)), LARGEST)
    return [rgb(picture).resize(_fitted_size(picture.size, longer), Image.Resampling.LANCZOS) for picture in pictures]


def draw_columns(
    strips: Sequence[Strip], titles: Sequence[str], legend_title: str, legend: Sequence[LegendLine]
) -> Image.Image:
    """Draws strips below each other, with a legend to their right.

    Args:
        strips: the rows, at least one.
        titles: the titles of the columns; those of columns without pictures are left out.
        legend_title: the title above the legend.
        legend: its lines; the first `MAX_NAMED` are drawn and the others counted.
    """
    columns = max(len(strip.pictures) for strip in strips)
    width = max(strip.pictures[0].width for strip in strips)
    below = CAPTION_HEIGHT if any(strip.caption for strip in strips) else 0
    top, left = MARGIN + CAPTION_HEIGHT, MARGIN + columns * (width + GAP) + GAP
    pictures_height = sum(strip.pictures[0].height + below + ROW_GAP for strip in strips) - ROW_GAP
    legend_height = (min(len(legend), MAX_NAMED) + (len(legend) > MAX_NAMED)) * LEGEND_LINE
    sheet = Image.new("RGB", (left + LEGEND_WIDTH + MARGIN, top + max(pictures_height, legend_height) + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles[:columns]):
        draw.text((MARGIN + column * (width + GAP), MARGIN), title, SOFT, font(15))
    draw.text((left, MARGIN), legend_title, SOFT, font(15))
    _draw_legend(draw, legend, left, top)
    for strip in strips:
        for column, picture in enumerate(strip.pictures):
            sheet.paste(picture, (MARGIN + column * (width + GAP), top))
        top += strip.pictures[0].height
        draw.text((MARGIN + width + GAP, top + 5), strip.caption, SOFT, font(13))
        top += below + ROW_GAP
    return sheet


def _draw_legend(draw: ImageDraw.ImageDraw, lines: Sequence[LegendLine], left: int, top: int) -> None:
    for number, line in enumerate(lines[:MAX_NAMED]):
        middle = top + number * LEGEND_LINE + 9
        draw.rounded_rectangle((left, middle - 8, left + 16, middle + 8), 3, line.color, LINE)
        draw.text((left + 26, middle), fitted(draw, line.name, LEGEND_WIDTH - 86, 15), INK, font(15), anchor="lm")
        draw.text((left + LEGEND_WIDTH, middle), line.value, SOFT, font(15), anchor="rm")
    if len(lines) > MAX_NAMED:
        middle = top + MAX_NAMED * LEGEND_LINE + 9
        draw.text((left + 26, middle), f"and {len(lines) - MAX_NAMED} more", INK, font(15), anchor="lm")


def _fitted_size(size: tuple[int, int], longer: int) -> tuple[int, int]:
    scale = longer / max(size)
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)
