"""One scene: garments cut out, scaled, turned, tinted and laid over a photograph. All of it follows from a generator."""

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
# How much of a photograph's colors and of its contrast a scene keeps: with few photographs, clothes must stand out from any.
COLORFULNESS, CONTRAST = (0.2, 0.5), (0.4, 0.7)
INSIDE = 0.8  # how much of a garment's height and of its width lies inside the scene at least

# An object of which less is visible is left out of the scene.
MIN_VISIBLE_SHARE = 0.12
MIN_VISIBLE_PIXELS = 16

# The empty ground of Fashion-MNIST is 0, with noise of up to this much along edges; black cloth is often not brighter than 20.
_GROUND = 4
_MIN_SPECK = 8
# Sandals and bags have openings between their straps and handles; whatever else is enclosed is dark cloth, a print or a button.
_WITH_OPENINGS = (5, 8)
_MIN_OPENING = 12
_DARKEST = 0.3
_MARGIN = 2  # what bicubic interpolation reads around a garment


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
      visible: where it is seen: its own mask less those of the objects painted after it.
      garment: its place in the sequence of garments.
    """

    label: int
    visible: Bool[np.ndarray, "H W"]
    garment: int


class Scene(NamedTuple):
    """A picture, and what is in it.

    Attributes:
      image: red, green and blue.
      objects: in the order in which they were painted; every pixel belongs to at most one of them.
      photograph: the name of the background.
    """

    image: UInt8[np.ndarray, "H W 3"]
    objects: tuple[SceneObject, ...]
    photograph: str


class Piece(NamedTuple):
    """A garment as it is laid over a picture, which it may leave.

    Attributes:
      colors: red, green and blue, 0 to 255.
      alpha: opacity, 0 to 1; the garment's mask is where it is at least a half.
      top: the row of the piece's first row in the picture.
      left: the column of its first column.
      label: the garment's class.
      garment: its place in the sequence of garments.
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
    """Draws a scene: 2 to 4 garments over a part of a photograph.

    Args:
      rng: decides everything.
      photographs: the backgrounds by name, each at least 160 pixels high and wide.
      garments: what to draw garments from.
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
    """Draws a part of a photograph at some zoom, mirrored or not, faded and in other light; values are 0 to 255."""
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
    """Returns where a garment's image shows the garment.

    That is what is not ground: pixels that are brighter, without specks, and with the holes in them, which are dark cloth or
    dark prints. Only sandals and bags keep holes that are large enough to look through.
    """
    mask = garment.pixels > _GROUND
    for speck in _regions(mask):
        if speck.sum() < _MIN_SPECK:
            mask = mask & ~speck
    ground, *holes = _regions(np.pad(~mask, 1, constant_values=True))
    openings = [hole for hole in holes if garment.label in _WITH_OPENINGS and hole.sum() >= _MIN_OPENING]
    return ~np.any([ground, *openings], axis=0)[1:-1, 1:-1]


def settle(pieces: Sequence[Piece], height: int, width: int) -> list[tuple[Piece, Bool[np.ndarray, "H W"]]]:
    """Decides which pieces stay in a picture, and where each of them is visible.

    A piece stays if at least `MIN_VISIBLE_SHARE` of its mask and `MIN_VISIBLE_PIXELS` are visible. The last painted ones come
    first, so that a piece that goes hides nothing.

    Args:
      pieces: in the order of painting.
      height: the picture's.
      width: the picture's.

    Returns:
      Those that stay, in the order of painting.
    """
    free = np.ones((height, width), bool)
    staying = []
    for piece in reversed(pieces):
        own = piece.alpha >= 0.5
        visible = np.zeros((height, width), bool)
        there, here = _overlap(piece, height, width)
        visible[there] = own[here]
        visible &= free
        if visible.sum() >= max(MIN_VISIBLE_SHARE * own.sum(), MIN_VISIBLE_PIXELS):
            staying.append((piece, visible))
            free &= ~visible
    return staying[::-1]


def paint(image: Float[np.ndarray, "H W 3"], piece: Piece) -> Float[np.ndarray, "H W 3"]:
    """Returns a picture with a piece over it."""
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
    """Enlarges and turns a garment.

    Args:
      pixels: its image.
      mask: where it is.
      scale: how much larger it becomes.
      angle: by how much it is turned, in radians.
      mirrored: whether left and right change places first.

    Returns:
      Its shade, 0 to 255, and its opacity, 0 to 1, which falls from one to the other within about a pixel.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    # Beyond the edge the shade goes on as the garment's mean, so that no black of the ground is mixed into it.
    filled = np.where(mask, pixels, pixels[mask].mean())
    shade = _turned(np.pad(filled[box], _MARGIN, "edge"), scale, angle, mirrored)
    inside = _turned(np.pad(mask[box], _MARGIN), scale, angle, mirrored)
    return np.clip(shade, 0, 255), np.clip((inside - 0.5) * scale + 0.5, 0, 1)


def _turned(values: Shaped[np.ndarray, "h w"], scale: float, angle: float, mirrored: bool) -> Float[np.ndarray, "H W"]:
    """Mirrors, turns and enlarges an array about its center; the result holds all of it but the margin."""
    high, wide = (side - 2 * _MARGIN for side in values.shape)
    cosine, sine = math.cos(angle), math.sin(angle)
    width = math.ceil(scale * (wide * cosine + high * abs(sine))) + 2
    height = math.ceil(scale * (high * cosine + wide * abs(sine))) + 2
    flip = -1 if mirrored else 1
    matrix: list[float] = []  # from a place in the result to a place in the source
    for x, y, middle in ((flip * cosine, flip * sine, values.shape[1] / 2), (-sine, cosine, values.shape[0] / 2)):
        matrix += [x / scale, y / scale, middle - (x * width + y * height) / 2 / scale]
    source = Image.fromarray(values.astype(np.float32))
    return np.asarray(source.transform((width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC))


def _overlap(piece: Piece, height: int, width: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The rows and columns that a piece and a picture share: those of the picture, and those of the piece."""
    rows, columns = piece.alpha.shape
    top, left = max(piece.top, 0), max(piece.left, 0)
    bottom, right = min(piece.top + rows, height), min(piece.left + columns, width)
    there = (slice(top, bottom), slice(left, right))
    return there, (slice(top - piece.top, bottom - piece.top), slice(left - piece.left, right - piece.left))


def _regions(mask: Bool[np.ndarray, "h w"]) -> list[Bool[np.ndarray, "h w"]]:
    """The parts of a mask that hang together along edges, in the order of their first pixels."""
    outside = mask.size
    padded = np.full((mask.shape[0] + 2, mask.shape[1] + 2), outside)
    names = padded[1:-1, 1:-1]  # each pixel takes the least name around it until all of a region have that of its first pixel
    names[mask] = np.flatnonzero(mask)
    neighbors = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    while True:
        least = np.where(mask, np.minimum.reduce([names, *neighbors]), outside)
        if (least == names).all():
            return [names == name for name in np.unique(names[mask])]
        names[:] = least
