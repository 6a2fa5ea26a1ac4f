"""The answers of a model without sets of its clusters, and how much each of them supports the first one."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from paca_jax.explain.checks import AnyModel
from paca_jax.explain.inspection.rows import ROWS, first_answer, later_answer, objects
from paca_jax.models import Detector, PaCaViT, Removal, Segmentor
from paca_jax.models.model import check_finite

Kind = Literal["classifier", "segmentor", "detector"]
# The pixels of the images that are computed at once by default, at most so many images.
_PIXELS, _MOST = 32 * 224 * 224, 32


class Answers(NamedTuple):
    """The answers of a model to each image with S sets of clusters, of which the first has all.

    Attributes:
        kind: the kind of the model.
        labels: the class of each value; -1 where an image has fewer objects.
        values: logits of classes, fractions of the image that classes cover, or scores of the objects of the first answer.
        boxes: the edges of these objects (left, top, right, bottom), as fractions of the image; None for classes.
        support: how much each answer says of the first: the log-probability of its class in nats, the mean over pixels of that
            of their classes, or the mean score of its objects.
    """

    kind: Kind
    labels: Int[np.ndarray, "B R"]
    values: Float[np.ndarray, "B S R"]
    boxes: Float[np.ndarray, "B R 4"] | None
    support: Float[np.ndarray, "B S"]

    @property
    def confidences(self) -> Float[np.ndarray, "B S"]:
        """The support as a probability, or as a score."""
        return self.support if self.kind == "detector" else np.exp(self.support)


def kind_of(model: AnyModel) -> Kind:
    """Returns the kind of a model."""
    return "detector" if isinstance(model, Detector) else "segmentor" if isinstance(model, Segmentor) else "classifier"


def assignments_of(model: AnyModel) -> dict[str, int]:
    """Returns the assignments of a model's backbone, with their numbers of clusters."""
    return dict((model.config if isinstance(model, PaCaViT) else model.config.backbone).assignments)


def suited_batch(height: int, width: int) -> int:
    """Returns the number of images to compute at once: 32, or fewer if they have more than 224x224 pixels."""
    return min(max(_PIXELS // (height * width), 1), _MOST)


def answers_without(
    model: AnyModel,
    variables: dict[str, PyTree],
    images: Float[Array, "B H W C"],
    block: str,
    kept: Bool[np.ndarray, "B S M"],
    by_mean: bool,
    batch_size: int | None,
) -> Answers:
    """Returns the answers of a model without sets of the clusters of one assignment, in batches of one shape.

    Args:
        model: a classifier, segmentor or detector.
        variables: the variables of the model.
        images: the normalized images, not padded.
        block: the block that computes the assignment.
        kept: the clusters of each set; the first set of an image has all.
        by_mean: whether a removed cluster becomes the mean of the others instead of being masked.
        batch_size: the number of answers that are computed at once; None for one that suits the size of the images.

    Raises:
        UserError: if an output is not finite.
    """
    batch_size = batch_size or suited_batch(images.shape[1], images.shape[2])
    images = jnp.asarray(images)

    def run(function: Callable[..., Any], sets: Bool[np.ndarray, "B T M"], *more: Any) -> Any:
        def one(rows: np.ndarray) -> Any:
            # Every assignment has a removal, mostly empty, so that one program serves for all.
            kept_rows = {owner: np.ones((len(rows), count), bool) for owner, count in assignments_of(model).items()}
            kept_rows[block] = flat[rows]
            removals = {owner: Removal(jnp.asarray(each), by_mean) for owner, each in kept_rows.items()}
            image = rows // sets.shape[1]
            return function(model, variables, images[image], removals, *(each[image] for each in more))

        flat = sets.reshape(-1, sets.shape[-1])
        found = in_batches(one, len(flat), batch_size)
        return jax.tree.map(lambda array: array.reshape(*sets.shape[:2], *array.shape[1:]), found)

    if isinstance(model, Detector):
        return _of_objects(run(_objects, kept))
    if isinstance(model, Segmentor):
        values, support = run(_areas, kept, jnp.asarray(run(_segments, kept[:, :1])[:, 0]))
    else:
        values = run(_logits, kept)
        predicted = values[:, 0].argmax(-1)[:, None, None]
        support = np.take_along_axis(np.asarray(jax.nn.log_softmax(values)), predicted, axis=-1)[..., 0]
    check_finite(np.isfinite(values).all() and np.isfinite(support).all())
    labels = np.broadcast_to(np.arange(values.shape[-1]), values[:, 0].shape)
    return Answers(kind_of(model), labels, values, None, support)


def in_batches(one: Callable[[np.ndarray], Any], count: int, size: int) -> Any:
    """Returns the results of a function for the rows below `count`, computed for `size` rows at once."""
    found = [jax.tree.map(np.asarray, one(np.arange(start, start + size) % count)) for start in range(0, count, size)]
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *found)


@functools.partial(jax.jit, static_argnums=0)
def _logits(model: AnyModel, variables: dict[str, PyTree], images: Array, removals: Mapping[str, Removal]) -> Array:
    found: Any = model.apply(variables, images, removals=removals)
    return found.astype(jnp.float32)


@functools.partial(jax.jit, static_argnums=0)
def _segments(model: AnyModel, variables: dict[str, PyTree], images: Array, removals: Mapping[str, Removal]) -> Array:
    """Returns the class of each place of a segmentor's logits (B, H4, W4)."""
    return jnp.argmax(_logits(model, variables, images, removals), axis=-1)


@functools.partial(jax.jit, static_argnums=0)
def _areas(
    model: AnyModel, variables: dict[str, PyTree], images: Array, removals: Mapping[str, Removal], first: Int[Array, "B H4 W4"]
) -> tuple[Float[Array, "B K"], Float[Array, "B"]]:
    """Returns the fractions of the places that classes cover, and the mean log-probability of the classes `first`."""
    logits = _logits(model, variables, images, removals)
    areas = jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1]).mean((1, 2))
    own = jnp.take_along_axis(jax.nn.log_softmax(logits), first[..., None], axis=-1)
    return areas, own.mean((1, 2, 3))


@functools.partial(jax.jit, static_argnums=0)
def _objects(model: AnyModel, variables: dict[str, PyTree], images: Array, removals: Mapping[str, Removal]) -> dict[str, Array]:
    found: Any = model.apply(variables, images, removals=removals)
    return objects(found, images)


def _of_objects(found: dict[str, np.ndarray]) -> Answers:
    """Returns the answers of a detector in the rows of each image's first one."""
    count, sets = found["scores"].shape[:2]
    labels, boxes = np.full((count, ROWS), -1), np.zeros((count, ROWS, 4), np.float32)
    values, support = np.zeros((count, sets, ROWS), np.float32), np.zeros((count, sets), np.float32)
    for image in range(count):
        first = first_answer({name: array[image, 0] for name, array in found.items()})
        own = len(first.labels)
        labels[image, :own], boxes[image, :own] = first.labels, first.boxes
        for index in range(sets):
            values[image, index, :own] = later_answer(first, {name: a[image, index] for name, a in found.items()}).values
        if own:
            support[image] = values[image, :, :own].mean(-1)
    return Answers("detector", labels, values, boxes, support)
