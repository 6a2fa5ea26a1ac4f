"""The layout of a sheet of clusters, independent of models."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from paca_jax.errors import one_line
from paca_jax.explain.heat import color_map

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

MARGIN = 36
GAP = 14
TEXT_WIDTH = 190
CAPTION_HEIGHT = 26
ROW_GAP = 18
HEADER_HEIGHT = 92
INK, SOFT, LINE, PAPER = (28, 30, 36), (112, 116, 126), (226, 228, 233), (255, 255, 255)
RIGHT, WRONG, BAR = (22, 128, 74), (196, 43, 43), (72, 84, 120)


class Answer(NamedTuple):
    """The prediction of a model for an image.

    Attributes:
        name: the class with the highest probability.
        probability: that probability, 0 to 1.
        right: whether it is the true class; None if that is unknown.
        true_name: the true class; None if it is unknown.
    """

    name: str
    probability: float
    right: bool | None
    true_name: str | None


class Row(NamedTuple):
    """One image of a sheet.

    Attributes:
        picture: the image, in the cell size of the sheet.
        answer: the prediction for it.
        heat_maps: captions and pictures, in the cell size of the sheet.
    """

    picture: Image.Image
    answer: Answer
    heat_maps: list[tuple[str, Image.Image]]


def draw_sheet(rows: Sequence[Row], cell: tuple[int, int], columns: int) -> Image.Image:
    """Draws the rows below each other under a header.

    Args:
        rows: the rows, at least one.
        cell: the width and height of a picture in pixels.
        columns: the number of heat maps that fit into a row.
    """
    row_height = max(cell[1], 104) + CAPTION_HEIGHT + ROW_GAP
    left_part = 2 * MARGIN + cell[0] + GAP + TEXT_WIDTH
    width = max(left_part + columns * (cell[0] + GAP), 720)
    sheet = Image.new("RGB", (width, HEADER_HEIGHT + len(rows) * row_height + MARGIN - ROW_GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    _draw_header(sheet, draw, rows)
    for index, row in enumerate(rows):
        top = HEADER_HEIGHT + index * row_height
        sheet.paste(row.picture, (MARGIN, top))
        _draw_answer(draw, row.answer, MARGIN + cell[0] + GAP + 6, top)
        left = MARGIN + cell[0] + GAP + TEXT_WIDTH + GAP
        if not row.heat_maps:
            draw.text((left, top + 4), "No cluster singles out a part of this image.", SOFT, font(15))
        for caption, picture in row.heat_maps:
            sheet.paste(picture, (left, top))
            below = (left + cell[0] / 2, top + cell[1] + 6)
            draw.text(below, fitted(draw, caption, cell[0], 13), SOFT, font(13), anchor="ma")
            left += cell[0] + GAP
    return sheet


def _draw_header(sheet: Image.Image, draw: ImageDraw.ImageDraw, rows: Sequence[Row]) -> None:
    draw.text((MARGIN, 22), "What the model looks at", INK, font(27))
    known = [row.answer.right for row in rows if row.answer.right is not None]
    subtitle = "Each image, the model's prediction, and its most selective clusters"
    subtitle += f"  ·  {sum(known)} of {len(known)} right" if known else ""
    draw.text((MARGIN, 57), subtitle, SOFT, font(15))

    length, right = 130, sheet.width - MARGIN
    ramp = color_map(np.tile(np.linspace(0, 1, length), (12, 1)))
    label_width = draw.textlength("more weight", font(13))
    left = int(right - label_width - 8 - length)
    sheet.paste(Image.fromarray(np.round(ramp).astype(np.uint8)), (left, 31))
    draw.text((left + length + 8, 37), "more weight", SOFT, font(13), anchor="lm")
    draw.text((left - 8, 37), "less", SOFT, font(13), anchor="rm")
    draw.line((MARGIN, HEADER_HEIGHT - 9, right, HEADER_HEIGHT - 9), LINE, 1)


def _draw_answer(draw: ImageDraw.ImageDraw, answer: Answer, left: int, top: int) -> None:
    room = TEXT_WIDTH - 22
    draw.text((left, top + 2), fitted(draw, answer.name, room, 21), INK, font(21))
    bar = (left, top + 36, left + room - 46, top + 42)
    draw.rectangle(bar, LINE)
    draw.rectangle((bar[0], bar[1], bar[0] + round(np.nan_to_num(answer.probability) * (bar[2] - bar[0])), bar[3]), BAR)
    draw.text((left + room, top + 39), f"{answer.probability:.0%}", INK, font(15), anchor="rm")
    if answer.right is None:
        return
    color = RIGHT if answer.right else WRONG
    x, y = left, top + 60
    if answer.right:
        draw.line([(x + 1, y + 7), (x + 5, y + 11), (x + 13, y + 2)], color, 3, joint="curve")
        draw.text((x + 22, y - 2), "right", color, font(16))
    else:
        draw.line([(x + 2, y + 2), (x + 11, y + 11)], color, 3)
        draw.line([(x + 2, y + 11), (x + 11, y + 2)], color, 3)
        draw.text((x + 22, y - 2), "wrong, it is", color, font(16))
        draw.text((x + 22, y + 18), fitted(draw, answer.true_name or "", room - 22, 16), color, font(16))


def font(size: int) -> Font:
    """Returns the font of the sheets at a size in pixels."""
    return ImageFont.load_default(size=size)


def fitted(draw: ImageDraw.ImageDraw, text: str, room: float, size: int) -> str:
    """Returns the text on one line, shortened with an ellipsis to at most `room` pixels."""
    text = one_line(text)
    if draw.textlength(text, font(size)) <= room:
        return text
    while text and draw.textlength(text + "…", font(size)) > room:
        text = text[:-1]
    return text.rstrip() + "…"
