"""The effect of a model's clusters on its answer: each one removed alone, and more and more of them in an order."""

from typing import Annotated, Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from paca_jax.errors import UserError, check, nearest
from paca_jax.explain.checks import WHOLE, AnyModel, Controls, Seed, check_model, checked_array
from paca_jax.explain.inspection.answering import Kind, answers_without, assignments_of
from paca_jax.fields import Range, check_value
from paca_jax.models.model import check_images

_BatchSize = Annotated[int, Range(1, 65_536)]
_Points = Annotated[int, Range(2, 10_000)]


class ClusterEffects(NamedTuple):
    """The change of a model's answer when each cluster is removed alone.

    An answer has R values, which depend on the kind of the model: the logits of the classes; the fractions of the image that
    the classes cover; or the scores of the detector's objects, up to six with the highest scores. An object is found again if
    one of its class has a box with an IoU of at least 0.5; otherwise its score is 0.

    Attributes:
        kind: "classifier", "segmentor" or "detector".
        labels: the class of each value; -1 where a detector finds fewer objects.
        values: the values with all clusters.
        changes: the values without each cluster, minus those with all.
        boxes: the left, top, right and bottom edges of a detector's objects, as fractions of the image; otherwise None.
        confidences: how sure the model is of its answer, from 0 to 1: the probability of the predicted class; for a segmentor
            the same for the class of each place of its logits, as a geometric mean; for a detector the mean score of its
            objects, 0 if there are none.
        drops: how much less the model supports this answer without each cluster; negative for a rise. It is the drop of the
            logarithm of `confidences` in nats, or for a detector of the mean score itself.
    """

    kind: Kind
    labels: Int[np.ndarray, "B R"]
    values: Float[np.ndarray, "B R"]
    changes: Float[np.ndarray, "B M R"]
    boxes: Float[np.ndarray, "B R 4"] | None
    confidences: Float[np.ndarray, "B"]
    drops: Float[np.ndarray, "B M"]

    @property
    def order(self) -> Int[np.ndarray, "B M"]:
        """The clusters of each image by their drop, the largest first."""
        return np.argsort(-self.drops, axis=-1, kind="stable")

    @property
    def order_elsewhere(self) -> Int[np.ndarray, "B M"]:
        """The clusters of each image by their mean drop in all other images, the largest first.

        It shows whether a cluster has a purpose that holds in all images: `order` is chosen after the fact.

        Raises:
            UserError: if there is only one image.
        """
        check(len(self.drops) > 1, "Expected the effects in several images, got those in one. Pass more images.")
        return np.argsort(self.drops - self.drops.sum(0), axis=-1, kind="stable")


class RemovalCurves(NamedTuple):
    """How sure a model is of the answer that it gives with all clusters, while clusters are removed or put back.

    The values are those of `ClusterEffects.confidences`: for a classifier the probability of the predicted class.

    Attributes:
        counts: the numbers of clusters at the S points, from 0 to M.
        deletion: the confidence without the first `counts` clusters of the order.
        insertion: that with these clusters only.
        random_deletion: the deletion in R random orders, the control.
        random_insertion: the insertion in these orders.
    """

    counts: Int[np.ndarray, "S"]
    deletion: Float[np.ndarray, "B S"]
    insertion: Float[np.ndarray, "B S"]
    random_deletion: Float[np.ndarray, "R B S"]
    random_insertion: Float[np.ndarray, "R B S"]

    def area(self, curve: Float[np.ndarray, "*A S"]) -> Float[np.ndarray, "*A"]:
        """Returns the mean of a curve over the fraction of clusters, from 0 to 1."""
        return np.trapezoid(curve, self.counts / self.counts[-1], axis=-1)


def cluster_effects(
    model: AnyModel,
    variables: dict[str, PyTree],
    images: Float[Array, "B H W C"],
    block: str,
    *,
    by_mean: bool = False,
    batch_size: int | None = None,
) -> ClusterEffects:
    """Returns the change of a model's answer to images when each cluster of an assignment is removed alone.

    The cluster is taken from every block that uses the assignment; see `paca_jax.models.Removal`.

    Args:
        model: a classifier, segmentor or detector with clusters.
        variables: the variables of the model.
        images: the normalized images, not padded.
        block: the block of the backbone that computes the assignment, a key of
            `model.apply(variables, images, method="clusters")`; the clusters of a PaCa head are its classes.
        by_mean: whether a removed cluster becomes the mean of the others instead of being masked.
        batch_size: the number of images, each without one cluster, that are computed at once; None for 32, or fewer if they
            are larger than 224x224 pixels.

    Raises:
        UserError: if the model has no classes, other variables, no such assignment or an output that is not finite, or an
            argument is of another type or out of range.
    """
    check_value("by_mean", by_mean, bool)
    count = _checked_count(model, variables, images, block, batch_size)
    kept = np.concatenate([np.ones((1, count), bool), ~np.eye(count, dtype=bool)])
    kept = np.broadcast_to(kept, (len(images), *kept.shape))
    found = answers_without(model, variables, images, block, kept, by_mean, batch_size)
    values, drops = found.values, found.support[:, :1] - found.support[:, 1:]
    changes, confidences = values[:, 1:] - values[:, :1], found.confidences[:, 0]
    return ClusterEffects(found.kind, found.labels, values[:, 0], changes, found.boxes, confidences, drops)


def removal_curves(
    model: AnyModel,
    variables: dict[str, PyTree],
    images: Float[Array, "B H W C"],
    block: str,
    order: Int[Array | np.ndarray, "B M"],
    *,
    points: int = 11,
    controls: int = 3,
    seed: int = 0,
    batch_size: int | None = None,
) -> RemovalCurves:
    """Returns deletion and insertion curves over the clusters of an assignment, with random orders as a control.

    An order that knows what clusters do has a deletion curve below that of random orders, and an insertion curve above.

    Args:
        model: a classifier, segmentor or detector with clusters.
        variables: the variables of the model.
        images: the normalized images, not padded.
        block: the block that computes the assignment.
        order: the clusters of each image, the most important first, as of `ClusterEffects.order`.
        points: the points of a curve; fewer if there are fewer clusters.
        controls: the number of random orders.
        seed: the seed of random orders.
        batch_size: as for `cluster_effects`.

    Raises:
        UserError: as for `cluster_effects`, or if `order` is no order of the clusters.
    """
    for name, value, hint in (("points", points, _Points), ("controls", controls, Controls), ("seed", seed, Seed)):
        check_value(name, value, hint)
    count = _checked_count(model, variables, images, block, batch_size)
    order = np.asarray(checked_array("order", order, WHOLE, (len(images), count)))
    if not (np.sort(order, axis=-1) == np.arange(count)).all():
        raise UserError(f"Expected each row of order to be the clusters 0 to {count - 1} in some order. Correct it.")
    rng = np.random.default_rng(seed)
    random_orders = rng.permuted(np.broadcast_to(np.arange(count), (controls, *order.shape)), axis=-1)
    counts = np.unique(np.linspace(0, count, points).round().astype(int))
    places = np.argsort(np.stack([order, *random_orders]), axis=-1)  # of each cluster in its order
    first = places[..., None, :] < counts[:, None]
    kept = np.concatenate([np.ones_like(first[:, :, :1]), ~first, first], axis=2)  # (1 + R, B, 1 + 2 S, M)
    flat = np.moveaxis(kept, 0, 1).reshape(len(images), -1, count)
    answers = answers_without(model, variables, images, block, flat, False, batch_size)
    found = answers.confidences.reshape(len(images), 1 + controls, -1)
    deletion, insertion = np.split(np.moveaxis(found[..., 1:], 1, 0), 2, axis=-1)
    return RemovalCurves(counts, deletion[0], insertion[0], deletion[1:], insertion[1:])


def _checked_count(model: Any, variables: Any, images: Any, block: Any, batch_size: Any) -> int:
    """Returns the number of clusters of a block, after checks of the arguments."""
    check_model(model, variables)
    known = assignments_of(model)
    check_images(images, model.config.image_channels)
    check_value("batch_size", batch_size, _BatchSize | None)
    check_value("block", block, str)
    if block not in known:
        clause = nearest(block, list(known)) if known else "the model has none"
        raise UserError(f"Expected a block that computes an assignment, got {block!r}; {clause}. Choose one of them.")
    return known[block]
