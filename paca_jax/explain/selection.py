"""The selection of the clusters to draw."""

from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from paca_jax.explain.checks import REAL, checked_array
from paca_jax.fields import Range, check_value

# An assignment with fewer nats is uniform except for rounding.
LEAST_STRENGTH = 1e-4

_Count = Annotated[int, Range(0, 1_000_000)]
_Similarity = Annotated[float, Range(-1, 2)]
_Strength = Annotated[float, Range(-1000, 1000)]


def cluster_strengths(assignments: Float[Array, "B M H W"]) -> Float[Array, "B M"]:
    """Returns how strongly each cluster singles out a part of its image: log(H W) minus the assignment's entropy.

    A cluster is the mean of the patches, weighted by its assignment. If the assignment is uniform, this is the mean patch of
    the whole image, which says nothing about any part of it: strength 0. If one patch has all the weight, the strength is
    log(H W). This is the Kullback-Leibler divergence of the assignment from the uniform one, in nats; exp(-strength) is roughly
    the fraction of the image that the cluster covers.

    Args:
        assignments: the weights of the patches, not negative; those of a cluster sum to 1 over the image
            (`model.apply(variables, images, method="clusters")` returns them by block).

    Raises:
        UserError: if `assignments` have another shape, are empty, or are no real numbers.
    """
    weights = jnp.asarray(checked_array("assignments", assignments, REAL, ("B", "M", "H", "W")), jnp.float32)
    weights = weights.reshape(*weights.shape[:2], -1)
    return jnp.log(weights.shape[-1]) - jnp.sum(jax.scipy.special.entr(weights), axis=-1)


_strengths = jax.jit(cluster_strengths)


def strongest_clusters(
    assignment: Float[Array, "M H W"], count: int, similarity: float = 0.8, least_strength: float = LEAST_STRENGTH
) -> list[int]:
    """Returns the indices of the strongest clusters that differ from each other, the strongest first.

    The selection is greedy: clusters are taken in descending order of strength (see `cluster_strengths`), except those
    whose map is similar to one already taken.

    Args:
        assignment: the maps of the clusters for one image.
        count: how many to return at most; fewer are returned if not as many differ.
        similarity: the correlation over patches (cosine of the centered maps) at which two maps count as the same; above 1 for
            never.
        least_strength: the strength in nats below which clusters are left out; a uniform one singles out nothing, and one with
            numbers that are not finite is left out too.

    Raises:
        UserError: if `assignment` has another shape, is empty or is no real numbers, or another argument is out of range.
    """
    assignment = checked_array("assignment", assignment, REAL, ("M", "H", "W"))
    check_value("count", count, _Count)
    check_value("similarity", similarity, _Similarity)
    check_value("least_strength", least_strength, _Strength)
    strengths = np.asarray(_strengths(assignment[None]))[0]
    strengths = np.where(np.isfinite(strengths) & (strengths >= least_strength), strengths, np.nan)
    return _distinct(np.asarray(assignment, np.float32), strengths, count, similarity)


def most_effective_clusters(assignment: Float[Array, "M H W"], effects: Float[np.ndarray, "M"], count: int) -> list[int]:
    """Returns the indices of the clusters with the largest effects that differ from each other, the largest first.

    The selection is that of `strongest_clusters`, with the effects of the clusters instead of their strengths.

    Args:
        assignment: the maps of the clusters for one image; those that are not finite are left out.
        effects: the effects of the clusters, such as their drops in `cluster_effects`.
        count: how many to return at most.
    """
    maps = np.asarray(assignment, np.float32)
    return _distinct(maps, np.where(np.isfinite(maps).all((1, 2)), effects, np.nan), count, 0.8)


def _distinct(
    assignment: Float[np.ndarray, "M H W"], values: Float[np.ndarray, "M"], count: int, similarity: float
) -> list[int]:
    """Returns the clusters with the largest values, without those that are similar to one before or have no value (NaN)."""
    maps = assignment.reshape(len(values), -1)
    centered = maps - maps.mean(axis=1, keepdims=True)
    directions = centered / np.maximum(np.linalg.norm(centered, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    taken: list[int] = []
    for index in np.argsort(-values, kind="stable"):
        if len(taken) == count or np.isnan(values[index]):
            break
        if all(directions[index] @ directions[other] < similarity for other in taken):
            taken.append(int(index))
    return taken
