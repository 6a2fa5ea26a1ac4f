"""Which clusters are worth a look."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Below this many nats an assignment is uniform but for rounding.
LEAST_STRENGTH = 1e-4


def cluster_strengths(assignments: Float[Array, "B M H W"]) -> Float[Array, "B M"]:
    """Returns how strongly each cluster singles out a part of its image: log(H W) minus the assignment's entropy.

    A cluster is the mean of the patches, weighted by its assignment. Where the assignment is uniform, that is the mean patch of
    the whole image, which tells nothing of any part of it: strength 0. Where one patch has all the weight, the strength is
    log(H W). This is the Kullback-Leibler divergence of the assignment from the uniform one, in nats; exp(-strength) is about
    the share of the image that the cluster covers.

    Args:
        assignments: weights of the patches, not negative; each cluster's sum to one over the image
            (`model.apply(variables, images, method="clusters")` gives them by block).
    """
    weights = jnp.asarray(assignments, jnp.float32)
    weights = weights.reshape(*weights.shape[:2], -1)
    return jnp.log(weights.shape[-1]) - jnp.sum(jax.scipy.special.entr(weights), axis=-1)


_strengths = jax.jit(cluster_strengths)


def strongest_clusters(
    assignment: Float[Array, "M H W"], count: int, similarity: float = 0.8, least_strength: float = LEAST_STRENGTH
) -> list[int]:
    """Returns the indices of the strongest clusters that differ from each other, the strongest first.

    Greedy: clusters are taken by falling strength (see `cluster_strengths`), leaving out each whose map is nearly that of one
    already taken.

    Args:
        assignment: the clusters' maps for one image.
        count: how many to return; fewer come back where there are not as many that differ.
        similarity: from which correlation over patches (cosine of the maps less their means, at most 1) two maps are the same.
        least_strength: weaker clusters, in nats, are left out: a uniform one has no part to show.
    """
    strengths = np.asarray(_strengths(assignment[None]))[0]
    maps = np.asarray(assignment, np.float32).reshape(len(strengths), -1)
    centered = maps - maps.mean(axis=1, keepdims=True)
    directions = centered / np.maximum(np.linalg.norm(centered, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    taken: list[int] = []
    for index in np.argsort(-strengths, kind="stable"):
        if len(taken) == count or strengths[index] < least_strength:
            break
        if all(directions[index] @ directions[other] < similarity for other in taken):
            taken.append(int(index))
    return taken
