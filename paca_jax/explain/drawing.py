"""Text and colors of sheets, independent of what they show."""

from PIL import ImageDraw, ImageFont

from paca_jax.errors import one_line

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

MARGIN = 36
GAP = 14
CAPTION_HEIGHT = 26
ROW_GAP = 18
INK, SOFT, LINE, PAPER = (28, 30, 36), (112, 116, 126), (226, 228, 233), (255, 255, 255)


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
