"""The answers of classifiers, segmentors and detectors for one image, ready to be drawn, and the assignments behind them."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree
from PIL import Image

from paca_jax import ops
from paca_jax.explain.checks import AnyModel
from paca_jax.explain.cluster_sheets.layout import Answer, Line
from paca_jax.explain.colors import palette
from paca_jax.explain.marking import Marked, class_color, mark
from paca_jax.explain.segments import colored
from paca_jax.models import Detector, PaCaViT, Segmentor

STRIDE = 4  # pixels per logit of a segmentor, and per patch of the first stage and of the head
_BAR = (72, 84, 120)
# The number of a classifier's classes in a sheet, and the smallest probability of those after the first.
_PROBABLE, _LEAST_PROBABLE = 3, 0.01


class Seen(NamedTuple):
    """One image of a sheet.

    Attributes:
        picture: the part of the picture that the model sees, in RGB and in the size to draw.
        image: the normalized image, which may be padded on the right and at the bottom.
        size: its height and width in pixels without the padding.
    """

    picture: Image.Image
    image: Float[Array, "H W C"]
    size: tuple[int, int]


class Outputs(NamedTuple):
    """The outputs of a model for one image.

    Attributes:
        found: class probabilities (K,) of a classifier, logits (H4, W4, K) of a segmentor, or what a detector finds.
        assignments: {block: assignment (M, Hi, Wi)}.
    """

    found: Any
    assignments: Mapping[str, np.ndarray]


def outputs(model: AnyModel, variables: dict[str, PyTree], seen: Seen) -> Outputs:
    """Returns the outputs of a model for an image; compiles once per model and shape."""
    found, assignments = _jitted(model, variables, jnp.asarray(seen.image)[None], jnp.asarray([seen.size], jnp.int32))
    own: Any = jax.tree.map(lambda array: np.asarray(array[0], None if array.dtype.kind in "bi" else np.float32), found)
    return Outputs(own, {block: np.asarray(array[0], np.float32) for block, array in assignments.items()})


@functools.partial(jax.jit, static_argnums=0)
def _jitted(
    model: AnyModel, variables: dict[str, PyTree], images: Float[Array, "B H W C"], sizes: Int[Array, "B 2"]
) -> tuple[Any, dict[str, Float[Array, "B _M _Hi _Wi"]]]:
    found: Any = model.apply(variables, images, sizes) if isinstance(model, Detector) else model.apply(variables, images)
    if isinstance(model, PaCaViT):
        found = jax.nn.softmax(found)
    return found, model.apply(variables, images, method="clusters")


def answer(model: AnyModel, found: Any, seen: Seen, class_names: Sequence[str], label: int | None, score: float) -> Answer:
    """Returns the answer of a model.

    Args:
        model: the model.
        found: what `outputs` found.
        seen: the image.
        class_names: the names of the classes, in order.
        label: the true class of a classifier's image, if it is known.
        score: the score above which the objects of a detector are drawn.
    """
    if isinstance(model, Segmentor):
        return _segments(found, seen, class_names)
    if isinstance(model, Detector):
        return _objects(found, seen, class_names, score)
    best = np.argsort(-found, kind="stable")[:_PROBABLE].tolist()
    lines = [Line(class_names[k], float(found[k]), _BAR) for k in best if k == best[0] or found[k] >= _LEAST_PROBABLE]
    if label is None:
        return Answer("classes by probability", lines)
    return Answer("classes by probability", lines, right=label == best[0], true_name=class_names[label])


def _segments(logits: Float[np.ndarray, "H W K"], seen: Seen, class_names: Sequence[str]) -> Answer:
    """Returns the classes by the part of the drawn picture that they cover."""
    rows, columns = (-(-side // STRIDE) for side in seen.size)
    drawn = (seen.picture.height, seen.picture.width)
    labels = np.asarray(jnp.argmax(ops.resize_bilinear(jnp.asarray(logits[None, :rows, :columns]), drawn)[0], -1), np.uint8)
    fractions, colors = np.bincount(labels.ravel(), minlength=len(class_names)) / labels.size, palette(len(class_names))
    largest = [k for k in np.argsort(-fractions, kind="stable").tolist() if fractions[k]]
    lines = [Line(class_names[k], float(fractions[k]), tuple(colors[k].tolist())) for k in largest]
    return Answer("classes by area", lines, colored(seen.picture, labels))


def _objects(found: Mapping[str, np.ndarray], seen: Seen, class_names: Sequence[str], score: float) -> Answer:
    """Returns the objects by score."""
    kept = found["valid"] & (found["scores"] > score)
    boxes, labels, scores = (found[name][kept] for name in ("boxes", "labels", "scores"))
    drawn = (seen.picture.height, seen.picture.width)
    boxes = boxes * (np.tile(drawn[::-1], 2) / np.tile(seen.size[::-1], 2))
    masks = np.asarray(ops.paste_masks(jnp.asarray(found["masks"][kept]), jnp.asarray(boxes, jnp.float32), drawn)) > 0.5
    lines = [Line(class_names[k], float(value), class_color(k)) for k, value in zip(labels.tolist(), scores, strict=True)]
    heading = "objects by score" if lines else f"no object above {score:g}"
    picture = mark(seen.picture, Marked(boxes, labels, scores, masks), seen.picture.size, class_names)
    return Answer(heading, lines, picture)
