"""One scene: garments are cut out, scaled, rotated, tinted and pasted onto a photograph, as a random generator decides."""

import colorsys
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8
from PIL import Image

SIDES = (96, 160)  # height and width of a scene in pixels, both ends included
GARMENTS = (2, 4)
SCALES = (1.75, 3.0)
MAX_DEGREES = 10.0
# The fractions of a photograph's colors and contrast that a scene keeps: garments must stand out from the few photographs.
COLORFULNESS, CONTRAST = (0.2, 0.5), (0.4, 0.7)
INSIDE = 0.8  # the smallest fraction of a garment's height and width inside the scene

# An object with less than this visible is left out of the scene.
MIN_VISIBLE_FRACTION = 0.12
MIN_VISIBLE_PIXELS = 16

# The background of Fashion-MNIST is 0, with noise up to this value along edges; black cloth is often no brighter than 20.
_GROUND = 4
_MIN_SPECK = 8
# Sandals and bags have openings between straps and handles. Anything else that is enclosed is dark cloth, a print or a button.
_WITH_OPENINGS = (5, 8)
_MIN_OPENING = 12
_DARKEST = 0.3
_MARGIN = 2  # pixels that bicubic interpolation reads around a garment


class Garment(NamedTuple):
    """An image of Fashion-MNIST.

    Attributes:
        pixels: gray, on black.
        label: its class, 0 to 9.
    """

    pixels: UInt8[np.ndarray, "h w"]
    label: int


class SceneObject(NamedTuple):
    """A garment in a scene.

    Attributes:
        label: its class, 0 to 9.
        visible: its visible pixels: its own mask without those of the objects painted after it.
        garment: its index in the sequence of garments.
    """

    label: int
    visible: Bool[np.ndarray, "H W"]
    garment: int


class Scene(NamedTuple):
    """A picture and its objects.

    Attributes:
        image: RGB pixels.
        objects: the objects in the order of painting; every pixel belongs to at most one of them.
        photograph: the name of the background.
    """

    image: UInt8[np.ndarray, "H W 3"]
    objects: tuple[SceneObject, ...]
    photograph: str


class Piece(NamedTuple):
    """A garment as it is pasted onto a picture; it may extend beyond the picture.

    Attributes:
        colors: RGB, 0 to 255.
        alpha: opacity, 0 to 1; the garment's mask is alpha >= 0.5.
        top: the picture's row of the piece's first row.
        left: the picture's column of its first column.
        label: the garment's class.
        garment: its index in the sequence of garments.
    """

    colors: Float[np.ndarray, "h w 3"]
    alpha: Float[np.ndarray, "h w"]
    top: int
    left: int
    label: int
    garment: int


def compose(
    rng: np.random.Generator, photographs: Mapping[str, UInt8[np.ndarray, "_ _ 3"]], garments: Sequence[Garment]
) -> Scene:
    """Draws a scene: 2 to 4 garments on a part of a photograph.

    Args:
        rng: decides everything.
        photographs: the backgrounds by name, each at least 160 pixels high and wide.
        garments: the garments to draw from.
    """
    height, width = (int(side) for side in rng.integers(SIDES[0], SIDES[1] + 1, 2))
    photograph = list(photographs)[rng.integers(len(photographs))]
    image = background(rng, photographs[photograph], height, width)
    drawn = []
    for index in rng.integers(len(garments), size=rng.integers(GARMENTS[0], GARMENTS[1] + 1)).tolist():
        drawn.append(_piece(rng, garments[index], index, height, width))
    objects = []
    for piece, visible in settle(drawn, height, width):
        image = paint(image, piece)
        objects.append(SceneObject(piece.label, visible, piece.garment))
    return Scene(np.round(image).astype(np.uint8), tuple(objects), photograph)


def background(
    rng: np.random.Generator, photograph: UInt8[np.ndarray, "_ _ 3"], height: int, width: int
) -> Float[np.ndarray, "H W 3"]:
    """Draws a part of a photograph at a random zoom, mirrored or not, faded and relit; values are 0 to 255."""
    rows, columns = photograph.shape[:2]
    largest = min(rows / height, columns / width)
    scale = math.exp(rng.uniform(math.log(min(0.8, largest)), math.log(largest)))
    top, left = rng.uniform(0, rows - scale * height), rng.uniform(0, columns - scale * width)
    box = (left, top, left + scale * width, top + scale * height)
    part = Image.fromarray(photograph).resize((width, height), Image.Resampling.BICUBIC, box)
    pixels = np.asarray(part, np.float32)
    gray = pixels.mean(-1, keepdims=True)
    pixels = gray + np.float32(rng.uniform(*COLORFULNESS)) * (pixels - gray)
    pixels = pixels.mean() + np.float32(rng.uniform(*CONTRAST)) * (pixels - pixels.mean())
    pixels = pixels * np.float32(rng.uniform(0.8, 1.15))
    return np.clip(pixels[:, ::-1] if rng.random() < 0.5 else pixels, 0, 255)


def cut_out(garment: Garment) -> Bool[np.ndarray, "h w"]:
    """Returns the mask of the garment in its image.

    The mask has the pixels that are brighter than the background, without specks, and with their holes filled, which are dark
    cloth or dark prints. Only sandals and bags keep holes, if these are large enough.
    """
    mask = garment.pixels > _GROUND
    for speck in _regions(mask):
        if speck.sum() < _MIN_SPECK:
            mask = mask & ~speck
    ground, *holes = _regions(np.pad(~mask, 1, constant_values=True))
    openings = [hole for hole in holes if garment.label in _WITH_OPENINGS and hole.sum() >= _MIN_OPENING]
    return ~np.any([ground, *openings], axis=0)[1:-1, 1:-1]


def settle(pieces: Sequence[Piece], height: int, width: int) -> list[tuple[Piece, Bool[np.ndarray, "H W"]]]:
    """Decides which pieces stay in a picture, and which of their pixels are visible.

    A piece stays if at least a fraction `MIN_VISIBLE_FRACTION` of its mask and `MIN_VISIBLE_PIXELS` pixels are visible. The
    last painted piece is decided first, so that a removed piece hides nothing.

    Args:
        pieces: the pieces in the order of painting.
        height: the height of the picture.
        width: the width of the picture.

    Returns:
        The pieces that stay, in the order of painting, each with its visible pixels.
    """
    free = np.ones((height, width), bool)
    staying = []
    for piece in reversed(pieces):
        own = piece.alpha >= 0.5
        visible = np.zeros((height, width), bool)
        there, here = _overlap(piece, height, width)
        visible[there] = own[here]
        visible &= free
        if visible.sum() >= max(MIN_VISIBLE_FRACTION * own.sum(), MIN_VISIBLE_PIXELS):
            staying.append((piece, visible))
            free &= ~visible
    return staying[::-1]


def paint(image: Float[np.ndarray, "H W 3"], piece: Piece) -> Float[np.ndarray, "H W 3"]:
    """Returns a picture with a piece pasted onto it."""
    there, here = _overlap(piece, *image.shape[:2])
    alpha = piece.alpha[here][..., None]
    painted = image.copy()
    painted[there] = image[there] * (1 - alpha) + piece.colors[here] * alpha
    return painted


def _piece(rng: np.random.Generator, garment: Garment, index: int, height: int, width: int) -> Piece:
    scale, angle = rng.uniform(*SCALES), math.radians(rng.uniform(-MAX_DEGREES, MAX_DEGREES))
    shade, alpha = resample(garment.pixels, cut_out(garment), scale, angle, mirrored=bool(rng.random() < 0.5))
    tint = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.5, 0.95), rng.uniform(0.7, 1))
    colors = 255 * np.array(tint, np.float32) * (_DARKEST + (1 - _DARKEST) * shade[..., None] / 255)
    rows, columns = alpha.shape
    top = rng.integers(round((INSIDE - 1) * rows), round(height - INSIDE * rows) + 1)
    left = rng.integers(round((INSIDE - 1) * columns), round(width - INSIDE * columns) + 1)
    return Piece(colors, alpha, int(top), int(left), garment.label, index)


def resample(
    pixels: UInt8[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"], scale: float, angle: float, mirrored: bool
) -> tuple[Float[np.ndarray, "H W"], Float[np.ndarray, "H W"]]:
    """Enlarges and rotates a garment.

    Args:
        pixels: the image of the garment.
        mask: the mask of the garment in its image.
        scale: the factor to enlarge by.
        angle: the angle to rotate by, in radians.
        mirrored: whether to mirror left and right first.

    Returns:
        Its shade, 0 to 255, and its opacity, which falls from 1 to 0 within about a pixel.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    # Beyond its edge, the garment gets its mean shade, so that no black of the background is mixed into it.
    filled = np.where(mask, pixels, pixels[mask].mean())
    shade = _rotated(np.pad(filled[box], _MARGIN, "edge"), scale, angle, mirrored)
    inside = _rotated(np.pad(mask[box], _MARGIN), scale, angle, mirrored)
    return np.clip(shade, 0, 255), np.clip((inside - 0.5) * scale + 0.5, 0, 1)


def _rotated(values: Shaped[np.ndarray, "h w"], scale: float, angle: float, mirrored: bool) -> Float[np.ndarray, "H W"]:
    """Mirrors, rotates and enlarges an array about its center; the result holds all of it but the margin."""
    high, wide = (side - 2 * _MARGIN for side in values.shape)
    cosine, sine = math.cos(angle), math.sin(angle)
    width = math.ceil(scale * (wide * cosine + high * abs(sine))) + 2
    height = math.ceil(scale * (high * cosine + wide * abs(sine))) + 2
    flip = -1 if mirrored else 1
    matrix: list[float] = []  # from coordinates in the result to coordinates in the source
    for x, y, middle in ((flip * cosine, flip * sine, values.shape[1] / 2), (-sine, cosine, values.shape[0] / 2)):
        matrix += [x / scale, y / scale, middle - (x * width + y * height) / 2 / scale]
    source = Image.fromarray(values.astype(np.float32))
    return np.asarray(source.transform((width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC))


def _overlap(piece: Piece, height: int, width: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Returns the overlap of a piece and a picture: rows and columns of the picture, and those of the piece."""
    rows, columns = piece.alpha.shape
    top, left = max(piece.top, 0), max(piece.left, 0)
    bottom, right = min(piece.top + rows, height), min(piece.left + columns, width)
    there = (slice(top, bottom), slice(left, right))
    return there, (slice(top - piece.top, bottom - piece.top), slice(left - piece.left, right - piece.left))


def _regions(mask: Bool[np.ndarray, "h w"]) -> list[Bool[np.ndarray, "h w"]]:
    """Returns the 4-connected regions of a mask, in the order of their first pixels."""
    outside = mask.size
    padded = np.full((mask.shape[0] + 2, mask.shape[1] + 2), outside)
    names = padded[1:-1, 1:-1]  # each pixel takes the smallest name around it until a region has that of its first pixel
    names[mask] = np.flatnonzero(mask)
    neighbors = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    while True:
        least = np.where(mask, np.minimum.reduce([names, *neighbors]), outside)
        if (least == names).all():
            return [names == name for name in np.unique(names[mask])]
        names[:] = least
