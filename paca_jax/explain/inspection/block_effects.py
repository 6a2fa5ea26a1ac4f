"""The effects of all clusters of a model, in images of any shapes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from paca_jax.errors import check
from paca_jax.explain.checks import AnyModel, check_model, checked_images
from paca_jax.explain.inspection.answering import assignments_of
from paca_jax.explain.inspection.cluster_effects import ClusterEffects, RemovalCurves, cluster_effects, removal_curves


class BlockEffects(NamedTuple):
    """The effects of the clusters of one assignment, and the curves in the order of these effects."""

    effects: ClusterEffects
    curves: RemovalCurves


def block_effects(
    model: AnyModel,
    variables: dict[str, PyTree],
    images: Float[Array, "B H W C"] | Sequence[Float[Array | np.ndarray, "_H _W C"]],
    *,
    by_mean: bool = False,
) -> dict[str, BlockEffects]:
    """Returns the effects and curves of every assignment of a model's backbone, by the block that computes it.

    The arguments are those of `cluster_effects`, but the images may have different shapes; the curves mask clusters with
    `by_mean`, too.

    Raises:
        UserError: as for `cluster_effects`, or if the model has no clusters.
    """
    check_model(model, variables)
    assignments = assignments_of(model)
    check(bool(assignments), "Expected a model with clusters, got one that attends to patches in every stage. Choose another.")
    listed = checked_images(images, model.config.image_channels)
    shapes = [image.shape for image in listed]
    groups = [np.flatnonzero([shape == each for shape in shapes]) for each in dict.fromkeys(shapes)]
    found: dict[str, list[BlockEffects]] = {block: [] for block in assignments}
    for seed, rows in enumerate(groups):
        batch = jnp.stack([listed[row] for row in rows])
        for block, parts in found.items():
            effects = cluster_effects(model, variables, batch, block, by_mean=by_mean)
            parts.append(BlockEffects(effects, removal_curves(model, variables, batch, block, effects.order, seed=seed)))
    places = np.argsort(np.concatenate(groups))
    return {block: _joined(parts, places) for block, parts in found.items()}


def _joined(parts: Sequence[BlockEffects], places: np.ndarray) -> BlockEffects:
    """Returns the effects of several groups of images as one, with image i from place `places[i]` of all groups."""

    def join(arrays: Sequence[Any], axis: int = 0) -> Any:
        return np.concatenate(arrays, axis).take(places, axis)

    effects, curves = zip(*parts, strict=True)
    first = effects[0]
    joined: dict[str, Any] = {
        name: None if getattr(first, name) is None else join([getattr(each, name) for each in effects])
        for name in ClusterEffects._fields
        if name != "kind"
    }
    lines = {
        name: join([getattr(each, name) for each in curves], 1 if name.startswith("random") else 0)
        for name in RemovalCurves._fields
        if name != "counts"
    }
    return BlockEffects(ClusterEffects(first.kind, **joined), RemovalCurves(curves[0].counts, **lines))
