"""Answers of models as rows of a table: classes with probabilities or areas, or objects with scores."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from paca_jax import ops
from paca_jax.explain.checks import AnyModel
from paca_jax.models import Detector, Removal, Segmentor
from paca_jax.models.model import check_finite

# The number of classes or objects with a row of their own.
ROWS = 6
_LEAST_OVERLAP = 0.5  # an object with at least this IoU with one of the same class is the same object


class Answer(NamedTuple):
    """The answer of a model to one image.

    Attributes:
        labels: the classes of the rows, the highest value first.
        values: probabilities, fractions of the pixels, or scores, from 0 to 1.
        boxes: the left, top, right and bottom edges of objects, as fractions of the image; None for classes.
        other: the class with the highest value among all others, or -1.
        other_value: that value.
    """

    labels: Int[np.ndarray, "R"]
    values: Float[np.ndarray, "R"]
    boxes: Float[np.ndarray, "R 4"] | None
    other: int
    other_value: float


@functools.partial(jax.jit, static_argnums=0)
def outputs(
    model: AnyModel,
    variables: dict[str, PyTree],
    images: Float[Array, "1 H W C"],
    removals: Mapping[str, Removal] | None = None,
) -> dict[str, Array]:
    """Returns the value of each class, or of a detector the objects, for one image; compiled once per shape.

    Args:
        model: the model.
        variables: the variables of the model.
        images: the normalized image.
        removals: clusters to answer without, as in a call of the model.
    """
    found: Any = model.apply(variables, images, removals=removals)
    if isinstance(model, Detector):
        return {name: array[0] for name, array in objects(found, images).items()}
    if isinstance(model, Segmentor):
        logits = ops.resize_bilinear(found, (images.shape[1], images.shape[2]))
        classes = jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1])
        # A logit that is not finite would be hidden by the largest one.
        return {"values": jnp.where(jnp.isfinite(found).all(), classes.mean((0, 1, 2)), jnp.nan)}
    return {"values": jax.nn.softmax(found)[0]}


def objects(found: Mapping[str, Array], images: Float[Array, "B H W C"]) -> dict[str, Array]:
    """Returns what a detector finds, with edges as fractions of the image, and score 0 where it found nothing."""
    height, width = images.shape[1:3]
    boxes = found["boxes"] / jnp.array([width, height, width, height])
    return {"boxes": boxes, "scores": jnp.where(found["valid"], found["scores"], 0), "labels": found["labels"]}


def first_answer(found: dict[str, Array]) -> Answer:
    """Returns the answer of the whole model, whose rows those of `later_answer` keep.

    Raises:
        UserError: if an output is not finite.
    """
    arrays = _checked(found)
    if "values" in arrays:
        labels = np.argsort(-arrays["values"], kind="stable")[:ROWS]
        return _class_answer(arrays["values"], labels)
    order = np.argsort(-arrays["scores"], kind="stable")
    order = order[arrays["scores"][order] > 0]
    rest, order = order[ROWS:], order[:ROWS]
    other, value = (int(arrays["labels"][rest[0]]), float(arrays["scores"][rest[0]])) if len(rest) else (-1, 0.0)
    return Answer(arrays["labels"][order], arrays["scores"][order], arrays["boxes"][order], other, value)


def later_answer(first: Answer, found: dict[str, Array]) -> Answer:
    """Returns the answer of a changed model, in the rows of the first one.

    An object is that of a row if it has the row's class and their boxes overlap with an IoU of at least 0.5.

    Raises:
        UserError: if an output is not finite.
    """
    arrays = _checked(found)
    if "values" in arrays:
        return _class_answer(arrays["values"], first.labels)
    assert first.boxes is not None
    overlaps = np.asarray(ops.box_iou(jnp.asarray(first.boxes), jnp.asarray(arrays["boxes"])))
    left, values = arrays["scores"] > 0, np.zeros(len(first.labels), np.float32)
    for row, label in enumerate(first.labels):
        same = left & (arrays["labels"] == label) & (overlaps[row] >= _LEAST_OVERLAP)
        if same.any():
            match = int(np.argmax(np.where(same, arrays["scores"], -1)))
            values[row], left[match] = arrays["scores"][match], False
    scores = np.where(left, arrays["scores"], 0)
    best = int(np.argmax(scores))
    return Answer(first.labels, values, first.boxes, int(arrays["labels"][best]) if left[best] else -1, float(scores[best]))


def _class_answer(values: Float[np.ndarray, "K"], labels: Int[np.ndarray, "R"]) -> Answer:
    rest = values.copy()
    rest[labels] = -1
    other = int(np.argmax(rest)) if len(labels) < len(values) else -1
    return Answer(labels, values[labels], None, other, float(values[other]) if other >= 0 else 0.0)


def _checked(found: dict[str, Array]) -> dict[str, np.ndarray]:
    arrays = {name: np.asarray(array) for name, array in found.items()}
    check_finite(all(np.isfinite(array).all() for array in arrays.values()))
    return arrays
