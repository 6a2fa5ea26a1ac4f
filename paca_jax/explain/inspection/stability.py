"""The stability of clusters: the same picture changed, and the clusters of two models matched with each other."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from paca_jax import ops
from paca_jax.errors import UserError, check
from paca_jax.explain.checks import REAL, AnyModel, Controls, Seed, check_model, checked_array
from paca_jax.explain.inspection.answering import in_batches, suited_batch
from paca_jax.explain.inspection.overlap import other_images
from paca_jax.fields import check_value
from paca_jax.models.model import check_images

# Changes of a picture: mirrored; the middle of its sides, enlarged to its size; darker.
AUGMENTATIONS = ("flip", "crop", "brightness")
_CROP, _BRIGHTNESS = 0.75, 0.7
_ROUNDING = 1e-5  # the spread of a map's weights, relative to the largest, up to which it counts as uniform


class Stability(NamedTuple):
    """How alike the maps of a cluster are in a picture and in the same picture changed: correlations over patches, -1 to 1.

    Attributes:
        similarities: of the map of the changed picture and the map of the picture, changed in the same way.
        control: the same with the map of another picture.
    """

    similarities: Float[np.ndarray, "B M"]
    control: Float[np.ndarray, "B M"]


class ClusterMatch(NamedTuple):
    """The clusters of two models in pairs: the smaller number of them, P.

    Attributes:
        pairs: a cluster of the first model and one of the second.
        similarities: the correlation over patches of their maps, as a mean over images, -1 to 1.
        control: the same with the second model's maps of other images, which are matched, too; R times.
    """

    pairs: Int[np.ndarray, "P 2"]
    similarities: Float[np.ndarray, "P"]
    control: Float[np.ndarray, "R P"]


def cluster_stability(
    model: AnyModel, variables: dict[str, PyTree], images: Float[Array | np.ndarray, "B H W C"]
) -> dict[str, dict[str, Stability]]:
    """Returns how alike the clusters' maps of pictures and of the same pictures changed are, by assignment and change.

    The changes are "flip" (mirrored), "crop" (the middle three quarters of both sides, enlarged to the size of the image) and
    "brightness" (0.7 of it). The map of the picture is changed in the same way before it is compared. A uniform map correlates
    with nothing, 0. The control takes the map of the image before, and for the first that of the last.

    Args:
        model: a classifier, segmentor or detector with clusters; a PaCa head's assignment counts, too.
        variables: the variables of the model.
        images: at least two normalized images.

    Raises:
        UserError: if the model has no classes or other variables, there are fewer than two images, or they are no images.
    """
    check_model(model, variables)
    check_images(images, model.config.image_channels)
    check(len(images) > 1, "Expected at least two images, for a control compares different ones, got 1. Pass more.")
    images = jnp.asarray(images)
    size = min(suited_batch(images.shape[1], images.shape[2]), len(images))
    wanted, found = in_batches(lambda rows: _changed_maps(model, variables, images[rows]), len(images), size)
    return {
        block: {
            change: Stability(_correlations(of_image, maps), _correlations(np.roll(of_image, 1, axis=0), maps))
            for change, of_image, maps in zip(AUGMENTATIONS, wanted[block], found[block], strict=True)
        }
        for block in wanted
    }


def match_clusters(
    first: Float[Array | np.ndarray, "B M1 H W"],
    second: Float[Array | np.ndarray, "B M2 H W"],
    *,
    controls: int = 3,
    seed: int = 0,
) -> ClusterMatch:
    """Returns the clusters of two models in the pairs that are most alike, as of two runs with different seeds.

    Each cluster is in one pair at most; the sum of similarities is the largest that there is (the Hungarian method).

    Args:
        first: the maps of the first model's clusters, a value of `model.apply(variables, images, method="clusters")`.
        second: those of the second model's clusters for the same images.
        controls: how many times the images are paired with others.
        seed: the seed of these pairs.

    Raises:
        UserError: if the maps are not of the same images and size, there are fewer than two images, or an argument is of
            another type or range.
    """
    check_value("controls", controls, Controls)
    check_value("seed", seed, Seed)
    ours, theirs = (
        np.asarray(checked_array(name, maps, REAL, ("B", "M", "H", "W")), np.float32)
        for name, maps in (("first", first), ("second", second))
    )
    if ours.shape[0] < 2 or (ours.shape[0], *ours.shape[2:]) != (theirs.shape[0], *theirs.shape[2:]):
        raise UserError(
            f"Expected the maps of two models for the same two or more images, got shapes {ours.shape} and {theirs.shape}. "
            "Pass assignments of one size."
        )
    rng, directions = np.random.default_rng(seed), _directions(ours)
    pairs, similarities = _matched(directions, _directions(theirs))
    others = [_matched(directions, _directions(theirs[other_images(len(ours), rng)]))[1] for _ in range(controls)]
    return ClusterMatch(pairs, similarities, np.stack(others))


@functools.partial(jax.jit, static_argnums=0)
def _changed_maps(model: AnyModel, variables: dict[str, PyTree], images: Float[Array, "B H W C"]) -> Any:
    """Returns the maps of images, changed, and the maps of the changed images: {block: [(B, M, Hi, Wi) for each change]}."""

    def clusters(batch: Array) -> dict[str, Array]:
        found: Any = model.apply(variables, batch, method="clusters")
        return {block: maps.astype(jnp.float32) for block, maps in found.items()}

    black = jnp.asarray(ops.normalize(np.zeros(images.shape[-1], np.uint8)))
    darker = _BRIGHTNESS * images + (1 - _BRIGHTNESS) * black
    changed = [clusters(batch) for batch in (images[:, :, ::-1], _middle(images, (1, 2)), darker)]
    wanted = {block: [maps[..., ::-1], _middle(maps, (2, 3)), maps] for block, maps in clusters(images).items()}
    return wanted, {block: [each[block] for each in changed] for block in wanted}


def _middle(arrays: Array, axes: tuple[int, int]) -> Array:
    """Returns the middle of both axes, enlarged to their lengths."""
    lengths = jnp.array([arrays.shape[axis] for axis in axes], jnp.float32)
    shift = -lengths * (1 / _CROP - 1) / 2
    return jax.image.scale_and_translate(arrays, arrays.shape, axes, jnp.full(2, 1 / _CROP), shift, "linear")


def _directions(maps: Float[np.ndarray, "B M H W"]) -> Float[np.ndarray, "B M N"]:
    """Returns maps without their mean and with length 1, whose products are correlations; a uniform one is 0."""
    flat = maps.reshape(*maps.shape[:2], -1).astype(np.float64)
    centered = flat - flat.mean(-1, keepdims=True)
    spread = centered.std(-1, keepdims=True)
    uniform = spread <= _ROUNDING * np.abs(flat).max(-1, keepdims=True)
    lengths = np.where(uniform, 1, spread) * np.sqrt(flat.shape[-1])
    return np.where(uniform, 0, centered / lengths)


def _correlations(first: Float[np.ndarray, "B M H W"], second: Float[np.ndarray, "B M H W"]) -> Float[np.ndarray, "B M"]:
    return (_directions(first) * _directions(second)).sum(-1)


def _matched(
    first: Float[np.ndarray, "B M1 N"], second: Float[np.ndarray, "B M2 N"]
) -> tuple[Int[np.ndarray, "P 2"], Float[np.ndarray, "P"]]:
    from scipy.optimize import linear_sum_assignment

    similarities = np.einsum("bmn,bkn->mk", first, second) / len(first)
    rows, columns = linear_sum_assignment(similarities, maximize=True)
    return np.stack([rows, columns], axis=1), similarities[rows, columns]
