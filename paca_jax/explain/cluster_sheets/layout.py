"""The layout of a sheet of clusters, independent of models: a block per image, in it a row per stage."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from paca_jax.explain.drawing import CAPTION_HEIGHT, GAP, INK, LINE, MARGIN, PAPER, ROW_GAP, SOFT, fitted, font
from paca_jax.explain.heat import overlay

MAX_LINES = 5

_TEXT_WIDTH, _LINE_HEIGHT = 176, 34
_HEADING_HEIGHT = 24
_STAGE_GAP = 8
_HEADER_HEIGHT = 114
_LEAST_WIDTH = 840
_RAMP = (130, 12)
_RIGHT, _WRONG = (22, 128, 74), (196, 43, 43)


class Line(NamedTuple):
    """One class or object of an answer.

    Attributes:
        name: the name of the class.
        value: the length of its bar, 0 to 1.
        color: the color of its bar.
    """

    name: str
    value: float
    color: tuple[int, ...]


class Answer(NamedTuple):
    """The answer of a model for an image.

    Attributes:
        heading: what the lines are, and what orders them.
        lines: the largest first.
        picture: the answer drawn over the image, in the size of the row's picture, if it has places.
        right: whether the first line is the true class; None if that is unknown.
        true_name: the true class; None if it is unknown.
    """

    heading: str
    lines: list[Line]
    picture: Image.Image | None = None
    right: bool | None = None
    true_name: str | None = None


class StageMaps(NamedTuple):
    """The clusters of one stage.

    Attributes:
        heading: the stage, the number of its clusters and of its patches.
        heat_maps: captions and pictures, in the size of the row's picture.
    """

    heading: str
    heat_maps: list[tuple[str, Image.Image]]


class Row(NamedTuple):
    """One image of a sheet: the image, the answer for it, and its clusters by stage."""

    picture: Image.Image
    answer: Answer
    stages: list[StageMaps]


def draw_sheet(rows: Sequence[Row], columns: int, unit: str | None) -> Image.Image:
    """Draws the rows below each other under a header; the stages of each are below each other, too.

    Args:
        rows: the rows, at least one.
        columns: the number of heat maps that fit beside each other.
        unit: in what captions give the effects by which clusters were chosen, if they were.
    """
    cell = max(row.picture.width for row in rows)
    left = MARGIN + cell + GAP + _TEXT_WIDTH + 2 * GAP
    width = max(left + columns * (cell + GAP) - GAP + MARGIN, _LEAST_WIDTH)
    height = _HEADER_HEIGHT + sum(_height(row) + ROW_GAP for row in rows) + MARGIN - ROW_GAP
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    _draw_header(sheet, draw, rows, unit)
    top = _HEADER_HEIGHT
    for index, row in enumerate(rows):
        if index:
            draw.line((MARGIN, top - ROW_GAP // 2, width - MARGIN, top - ROW_GAP // 2), LINE, 1)
        sheet.paste(row.picture, (MARGIN, top + _HEADING_HEIGHT))
        if row.answer.picture is not None:
            sheet.paste(row.answer.picture, (MARGIN, top + _HEADING_HEIGHT + row.picture.height + GAP))
        _draw_answer(draw, row.answer, MARGIN + cell + GAP, top)
        for number, stage in enumerate(row.stages):
            _draw_stage(sheet, draw, stage, left, top + number * _stage_height(row), row.picture.size)
        top += _height(row) + ROW_GAP
    return sheet


def _stage_height(row: Row) -> int:
    return _HEADING_HEIGHT + row.picture.height + CAPTION_HEIGHT + _STAGE_GAP


def _height(row: Row) -> int:
    pictures = _HEADING_HEIGHT + row.picture.height * (1 if row.answer.picture is None else 2) + GAP
    lines = min(len(row.answer.lines), MAX_LINES) + (len(row.answer.lines) > MAX_LINES)
    text = _HEADING_HEIGHT + lines * _LINE_HEIGHT + (0 if row.answer.right is None else 50)
    return max(pictures, text, len(row.stages) * _stage_height(row))


def _draw_header(sheet: Image.Image, draw: ImageDraw.ImageDraw, rows: Sequence[Row], unit: str | None) -> None:
    draw.text((MARGIN, 20), "What each cluster gathers", INK, font(27))
    known = [row.answer.right for row in rows if row.answer.right is not None]
    right, score = sheet.width - MARGIN, f"  ·  {sum(known)} of {len(known)} right" if known else ""
    chosen = "draw from the smallest part of the picture" if unit is None else "do most for the answer"
    draw.text((MARGIN, 54), f"In each stage, the clusters that {chosen}{score}", SOFT, font(15))
    note = "Colors go from the least to the most weight of each map. Below it: its most weight, as a multiple of a uniform one."
    if unit is not None:
        note = (
            f"Below a map: its most weight, as a multiple of a uniform one; the drop of the answer without the cluster, {unit}."
        )
    draw.text((MARGIN, 76), note, SOFT, font(13))

    label_width = draw.textlength("most weight", font(13))
    left = int(right - label_width - 8 - _RAMP[0])
    sheet.paste(overlay(Image.new("L", _RAMP, 128), np.linspace(0, 1, _RAMP[0])[None]), (left, 31))
    draw.text((left + _RAMP[0] + 8, 37), "most weight", SOFT, font(13), anchor="lm")
    draw.text((left - 8, 37), "least", SOFT, font(13), anchor="rm")
    draw.line((MARGIN, _HEADER_HEIGHT - 12, right, _HEADER_HEIGHT - 12), LINE, 1)


def _draw_answer(draw: ImageDraw.ImageDraw, answer: Answer, left: int, top: int) -> None:
    right = left + _TEXT_WIDTH
    draw.text((left, top), fitted(draw, answer.heading, _TEXT_WIDTH, 14), SOFT, font(14))
    top += _HEADING_HEIGHT
    for line in answer.lines[:MAX_LINES]:
        draw.text((right, top), f"{line.value:.0%}", INK, font(15), anchor="ra")
        draw.text((left, top), fitted(draw, line.name, _TEXT_WIDTH - 48, 15), INK, font(15))
        draw.rectangle((left, top + 21, right, top + 25), LINE)
        draw.rectangle((left, top + 21, left + round(np.nan_to_num(line.value) * _TEXT_WIDTH), top + 25), line.color)
        top += _LINE_HEIGHT
    if len(answer.lines) > MAX_LINES:
        draw.text((left, top), f"and {len(answer.lines) - MAX_LINES} more", SOFT, font(14))
    if answer.right is None:
        return
    x, y = left, top + 4
    if answer.right:
        draw.line([(x + 1, y + 7), (x + 5, y + 11), (x + 13, y + 2)], _RIGHT, 3, joint="curve")
        draw.text((x + 22, y - 2), "right", _RIGHT, font(16))
    else:
        draw.line([(x + 2, y + 2), (x + 11, y + 11)], _WRONG, 3)
        draw.line([(x + 2, y + 11), (x + 11, y + 2)], _WRONG, 3)
        draw.text((x + 22, y - 2), "wrong, it is", _WRONG, font(16))
        draw.text((x + 22, y + 18), fitted(draw, answer.true_name or "", _TEXT_WIDTH - 22, 16), _WRONG, font(16))


def _draw_stage(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, stage: StageMaps, left: int, top: int, cell: tuple[int, int]
) -> None:
    draw.text((left, top), fitted(draw, stage.heading, sheet.width - MARGIN - left, 14), SOFT, font(14))
    top += _HEADING_HEIGHT
    if not stage.heat_maps:
        draw.text((left, top + 4), "No cluster singles out a part of this image.", SOFT, font(15))
    for caption, picture in stage.heat_maps:
        sheet.paste(picture, (left, top))
        below = (left + cell[0] / 2, top + cell[1] + 5)
        draw.text(below, fitted(draw, caption, cell[0], 13), INK, font(13), anchor="ma")
        left += cell[0] + GAP
