"""From logits at stride 4 to a class for every pixel of a picture: whole or in windows, flipped, at several scales.

A view is the output of the model for one version of a batch. Resizing is linear and separable, so a view is a map of logits and
two matrices, one for the rows of the final canvas and one for its columns. Windows have the same form: their maps lie side by
side in a mosaic, and the matrices move each to its place and average them where they overlap.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from paca_jax import ops
from paca_jax.data import IGNORED
from paca_jax.errors import check
from paca_jax.fields import check_types

STRIDE = 4
_ROWS_AT_ONCE = 64

Logits = Callable[[Float[Array, "B H W C"]], Float[Array, "B H4 W4 K"]]


@dataclasses.dataclass(frozen=True)
class Viewing:
    """The views of a picture that a segmentor is given, besides several scales.

    Attributes:
        flip: whether to add the mirrored picture.
        window: the side of the windows in pixels of the resized picture; 0 for whole pictures.
        window_stride: the distance in pixels from one window to the next.

    Raises:
        UserError: if a window has no size, or there are gaps between the windows.
    """

    flip: bool = False
    window: int = 0
    window_stride: int = 341

    def __post_init__(self) -> None:
        check_types(self)
        check(
            self.window >= 0,
            f"Expected test.window to be 0 (whole pictures) or a side in pixels, got {self.window}. Correct it.",
        )
        most = self.window or self.window_stride
        check(
            1 <= self.window_stride <= most,
            f"Expected test.window_stride to be 1 to test.window={most}, got {self.window_stride}. Correct it.",
        )


class View(NamedTuple):
    """Logits of a batch, and the matrices that resize them to the canvas of the original pictures."""

    logits: Float[Array, "B h w K"]
    rows: Float[Array, "B H h"]
    columns: Float[Array, "B W w"]


def predict_labels(
    logits: Logits,
    images: list[Float[Array, "B _Hi _Wi C"]],
    sizes: list[Int[Array, "B 2"]],
    original_sizes: Int[Array, "B 2"],
    canvas: tuple[int, int],
    viewing: Viewing,
) -> Int[Array, "B H W"]:
    """Returns the likeliest class of every pixel of the original pictures (uint8), meaningless beyond their sizes.

    A single view takes the largest logit; several views average their probabilities. If a logit of a picture is not finite,
    its pixels are `data.IGNORED`, which is no class.

    Args:
        logits: the model, from normalized images to logits at stride 4.
        images: the batch at each scale, padded on the right and at the bottom.
        sizes: the height and width of each image at each scale, without its padding.
        original_sizes: the height and width of each original picture.
        canvas: the height and width of the result.
        viewing: flipping and windows.
    """
    views = []
    for image, size in zip(images, sizes, strict=True):
        views.append(_view(logits, image, size, original_sizes, canvas, viewing))
        if viewing.flip:
            mirrored = _view(logits, _mirror(image, size[:, 1]), size, original_sizes, canvas, viewing)
            columns = jax.vmap(_reverse_rows)(mirrored.columns, original_sizes[:, 1])
            views.append(mirrored._replace(columns=columns))
    finite = functools.reduce(jnp.logical_and, [jnp.isfinite(view.logits).all((1, 2, 3)) for view in views])
    return jnp.where(finite[:, None, None], jax.vmap(_likeliest)(views), jnp.uint8(IGNORED))


def _view(
    logits: Logits,
    images: Float[Array, "B _Hi _Wi C"],
    sizes: Int[Array, "B 2"],
    original_sizes: Int[Array, "B 2"],
    canvas: tuple[int, int],
    viewing: Viewing,
) -> View:
    padded = images.shape[1:3]
    window = [min(viewing.window or side, side) for side in padded]
    counts = [1 + max(0, -(-(side - part) // viewing.window_stride)) for side, part in zip(padded, window, strict=True)]
    axes = [
        jax.vmap(
            lambda size, original, axis=axis: _window_axis(
                size, original, canvas[axis], padded[axis], window[axis], counts[axis], viewing.window_stride
            )
        )(sizes[:, axis], original_sizes[:, axis])
        for axis in (0, 1)
    ]
    (rows, tops), (columns, lefts) = axes
    return View(_mosaic(logits, images, tops, lefts, (window[0], window[1])), rows, columns)


def _window_axis(
    size: Int[Array, ""], original: Int[Array, ""], canvas: int, padded: int, window: int, count: int, stride: int
) -> tuple[Float[Array, "H h"], Int[Array, "n"]]:
    """Returns the matrix from the windows' maps to the canvas along one axis, and the starts of the windows.

    The last window ends where the picture does. There are as many windows as the largest picture needs; those that a smaller
    picture has no use for repeat its last window with weight 0.
    """
    wanted = jnp.arange(count) * stride
    starts = jnp.clip(wanted, 0, jnp.maximum(size - window, 0))
    used = (wanted == 0) | (wanted - stride + window < size)
    seen = jnp.minimum(window, size)  # pixels of a window that are not padding
    # Three matrices: window pixels from map cells, picture pixels from window pixels, canvas from picture pixels.
    upsample = ops.resize_matrix(-(-seen // STRIDE), seen, -(-window // STRIDE), window)
    position = jnp.arange(padded)[None, :, None] - starts[:, None, None] == jnp.arange(window)[None, None, :]
    placed = (position & used[:, None, None]).astype(jnp.float32) * (jnp.arange(window) < seen)
    placed = placed / jnp.maximum(jnp.sum(placed, axis=(0, 2)), 1)[None, :, None]
    to_canvas = ops.resize_matrix(size, original, padded, canvas)
    matrix = jnp.einsum("yp,npu,uf->ynf", to_canvas, placed, upsample, precision="highest")
    return matrix.reshape(canvas, -1), starts


def _mosaic(
    logits: Logits, images: Float[Array, "B H W C"], tops: Int[Array, "B n"], lefts: Int[Array, "B m"], window: tuple[int, int]
) -> Float[Array, "B n*h m*w K"]:
    """Returns the logits of every window, side by side."""
    batch, n, m = len(images), tops.shape[1], lefts.shape[1]
    if (n, m) == (1, 1):
        return logits(images)

    def of_window(index: Int[Array, ""]) -> Float[Array, "B h w K"]:
        def cut(image: Array, top: Array, left: Array) -> Array:
            return jax.lax.dynamic_slice(image, (top, left, 0), (*window, image.shape[-1]))

        return logits(jax.vmap(cut)(images, tops[:, index // m], lefts[:, index % m]))

    maps = jax.lax.map(of_window, jnp.arange(n * m))
    height, width, classes = maps.shape[2:]
    maps = maps.reshape(n, m, batch, height, width, classes).transpose(2, 0, 3, 1, 4, 5)
    return maps.reshape(batch, n * height, m * width, classes)


def _mirror(images: Float[Array, "B H W C"], widths: Int[Array, "B"]) -> Float[Array, "B H W C"]:
    """Mirrors each image within its true width."""
    return jax.vmap(lambda image, width: _reverse_rows(image.swapaxes(0, 1), width).swapaxes(0, 1))(images, widths)


def _reverse_rows(x: Float[Array, "N ..."], count: Int[Array, ""]) -> Float[Array, "N ..."]:
    """Reverses the first `count` rows; the others stay."""
    index = jnp.arange(len(x))
    return x[jnp.where(index < count, count - 1 - index, index)]


def _likeliest(views: list[View]) -> Int[Array, "H W"]:
    """Returns the likeliest class of each pixel of one picture, some rows at a time to bound the memory of the scores."""
    along_columns = [jnp.einsum("xw,hwk->hxk", view.columns, view.logits, precision="highest") for view in views]

    def of_rows(rows: list[Float[Array, "r h"]]) -> Int[Array, "r W"]:
        scores = [jnp.einsum("yh,hxk->yxk", r, x, precision="highest") for r, x in zip(rows, along_columns, strict=True)]
        if len(scores) > 1:
            scores = [jax.nn.softmax(score, axis=-1) for score in scores]
        return jnp.argmax(sum(scores[1:], scores[0]), axis=-1).astype(jnp.uint8)

    height = views[0].rows.shape[0]
    chunk = min(_ROWS_AT_ONCE, height)
    parts = [jnp.pad(view.rows, ((0, -height % chunk), (0, 0))).reshape(-1, chunk, view.rows.shape[1]) for view in views]
    labels = jax.lax.map(of_rows, parts)
    return labels.reshape(-1, labels.shape[-1])[:height]
