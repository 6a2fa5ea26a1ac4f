"""The effect of a classifier's clusters on its answer: each one removed alone, and more and more of them in an order."""

import functools
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from paca_jax.errors import UserError, check, nearest
from paca_jax.explain.checks import WHOLE, check_classifier, checked_array
from paca_jax.fields import Range, check_value
from paca_jax.models import PaCaViT, Removal
from paca_jax.models.model import check_images

_BatchSize = Annotated[int, Range(1, 65_536)]
_Points = Annotated[int, Range(2, 10_000)]
_Controls = Annotated[int, Range(1, 1000)]
_Seed = Annotated[int, Range(0, 2**32 - 1)]


class ClusterEffects(NamedTuple):
    """The change of a classifier's answer when each cluster is removed alone.

    Attributes:
        logits: the logits with all clusters.
        changes: the logits without each cluster, minus those with all.
    """

    logits: Float[np.ndarray, "B K"]
    changes: Float[np.ndarray, "B M K"]

    @property
    def predicted(self) -> Int[np.ndarray, "B"]:
        """The most likely class of each image, with all clusters."""
        return self.logits.argmax(-1)

    @property
    def drops(self) -> Float[np.ndarray, "B M"]:
        """The drop of the predicted class's log-probability in nats without each cluster; negative for a rise."""
        without = self.logits[:, None] + self.changes
        return _log_probability(self.logits[:, None], self.predicted) - _log_probability(without, self.predicted)

    @property
    def order(self) -> Int[np.ndarray, "B M"]:
        """The clusters of each image by their drop, the largest first."""
        return np.argsort(-self.drops, axis=-1, kind="stable")


class RemovalCurves(NamedTuple):
    """The probability of the class that is predicted with all clusters, while clusters are removed or put back.

    Attributes:
        counts: the numbers of clusters at the S points, from 0 to M.
        deletion: the probability without the first `counts` clusters of the order.
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


class BlockEffects(NamedTuple):
    """The effects of the clusters of one assignment, and the curves in the order of these effects."""

    effects: ClusterEffects
    curves: RemovalCurves


def block_effects(
    model: PaCaViT, variables: dict[str, PyTree], images: Float[Array, "B H W C"], *, by_mean: bool = False
) -> dict[str, BlockEffects]:
    """Returns the effects and curves of every assignment of a classifier, by the block that computes it.

    The arguments are those of `cluster_effects`; the curves mask clusters with `by_mean`, too.

    Raises:
        UserError: as for `cluster_effects`, or if the model has no clusters.
    """
    found = {}
    check_classifier(model, variables)
    for block in model.config.assignments:
        effects = cluster_effects(model, variables, images, block, by_mean=by_mean)
        found[block] = BlockEffects(effects, removal_curves(model, variables, images, block, effects.order))
    check(bool(found), "Expected a model with clusters, got one that attends to patches in every stage. Choose another.")
    return found


def cluster_effects(
    model: PaCaViT,
    variables: dict[str, PyTree],
    images: Float[Array, "B H W C"],
    block: str,
    *,
    by_mean: bool = False,
    batch_size: int = 32,
) -> ClusterEffects:
    """Returns the change of every class's logit when each cluster of an assignment is removed alone.

    The cluster is taken from every block that uses the assignment; see `paca_jax.models.Removal`.

    Args:
        model: a classifier with clusters.
        variables: the variables of the model.
        images: the normalized images.
        block: the block that computes the assignment, a key of `model.apply(variables, images, method="clusters")`.
        by_mean: whether a removed cluster becomes the mean of the others instead of being masked.
        batch_size: the number of images, each without one cluster, that are computed at once.

    Raises:
        UserError: if the model is no classifier or has other variables or no such assignment, or an argument is of another
            type or out of range.
    """
    check_value("by_mean", by_mean, bool)
    count = _checked_count(model, variables, images, block, batch_size)
    kept = np.concatenate([np.ones((1, count), bool), ~np.eye(count, dtype=bool)])
    kept = np.broadcast_to(kept, (len(images), *kept.shape))
    answers = _answers(model, variables, images, block, kept, by_mean, batch_size)
    return ClusterEffects(answers[:, 0], answers[:, 1:] - answers[:, :1])


def removal_curves(
    model: PaCaViT,
    variables: dict[str, PyTree],
    images: Float[Array, "B H W C"],
    block: str,
    order: Int[Array | np.ndarray, "B M"],
    *,
    points: int = 11,
    controls: int = 3,
    seed: int = 0,
    batch_size: int = 32,
) -> RemovalCurves:
    """Returns deletion and insertion curves over the clusters of an assignment, with random orders as a control.

    An order that knows what clusters do has a deletion curve below that of random orders, and an insertion curve above.

    Args:
        model: a classifier with clusters.
        variables: the variables of the model.
        images: the normalized images.
        block: the block that computes the assignment.
        order: the clusters of each image, the most important first, as of `ClusterEffects.order`.
        points: the points of a curve; fewer if there are fewer clusters.
        controls: the number of random orders.
        seed: the seed of random orders.
        batch_size: the number of images, each without some clusters, that are computed at once.

    Raises:
        UserError: as for `cluster_effects`, or if `order` is no order of the clusters.
    """
    for name, value, hint in (("points", points, _Points), ("controls", controls, _Controls), ("seed", seed, _Seed)):
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
    answers = _answers(model, variables, images, block, flat, False, batch_size)
    found = np.exp(_log_probability(answers, answers[:, 0].argmax(-1))).reshape(len(images), 1 + controls, -1)
    deletion, insertion = np.split(np.moveaxis(found[..., 1:], 1, 0), 2, axis=-1)
    return RemovalCurves(counts, deletion[0], insertion[0], deletion[1:], insertion[1:])


def _checked_count(model: Any, variables: Any, images: Any, block: Any, batch_size: Any) -> int:
    """Returns the number of clusters of a block, after checks of the arguments."""
    check_classifier(model, variables)
    check_images(images, model.config.image_channels)
    check_value("batch_size", batch_size, _BatchSize)
    check_value("block", block, str)
    known: dict[str, int] = model.config.assignments
    if block not in known:
        clause = nearest(block, list(known)) if known else "the model has none"
        raise UserError(f"Expected a block that computes an assignment, got {block!r}; {clause}. Choose one of them.")
    return known[block]


def _answers(
    model: PaCaViT,
    variables: dict[str, PyTree],
    images: Float[Array, "B H W C"],
    block: str,
    kept: Bool[np.ndarray, "B S M"],
    by_mean: bool,
    batch_size: int,
) -> Float[np.ndarray, "B S K"]:
    """Returns the logits of each image with each of its sets of clusters, in batches of one shape."""
    sets = kept.reshape(-1, kept.shape[-1])
    images, size = jnp.asarray(images), min(batch_size, len(sets))
    found = []
    for start in range(0, len(sets), size):
        rows = np.arange(start, start + size) % len(sets)
        removal = Removal(jnp.asarray(sets[rows]), by_mean)
        found.append(np.asarray(_logits(model, variables, images[rows // kept.shape[1]], {block: removal}), np.float32))
    return np.concatenate(found)[: len(sets)].reshape(*kept.shape[:2], -1)


@functools.partial(jax.jit, static_argnums=0)
def _logits(model: PaCaViT, variables: dict[str, PyTree], images: Array, removals: dict[str, Removal]) -> Array:
    return jnp.asarray(model.apply(variables, images, removals=removals))


def _log_probability(logits: Float[np.ndarray, "B S K"], classes: Sequence[int] | Int[np.ndarray, "B"]) -> np.ndarray:
    """Returns the log-probability of one class for each image."""
    shifted = logits - logits.max(-1, keepdims=True)
    own = np.take_along_axis(shifted, np.asarray(classes)[:, None, None], axis=-1)[..., 0]
    return own - np.log(np.exp(shifted).sum(-1))
