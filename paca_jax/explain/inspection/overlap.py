"""The overlap of clusters with the true segments of images: an IoU for each cluster and class."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from paca_jax.data import IGNORED
from paca_jax.errors import UserError, check, shorten
from paca_jax.explain.checks import REAL, WHOLE, Controls, Seed, checked_array, checked_items, checked_names
from paca_jax.explain.inspection.markdown import table
from paca_jax.fields import Range, check_value

_Classes = Annotated[int, Range(1, IGNORED)]


class SegmentOverlap(NamedTuple):
    """The overlap of the clusters of one assignment with classes, over all images.

    Attributes:
        iou: the IoU of each cluster with each class; NaN for a class that no patch has.
        control: the same with the segments of other images, R times.
        fractions: the fraction of the labeled patches that each class has.
    """

    iou: Float[np.ndarray, "M K"]
    control: Float[np.ndarray, "R M K"]
    fractions: Float[np.ndarray, "K"]

    @property
    def best(self) -> Int[np.ndarray, "K"]:
        """The cluster with the highest IoU for each class; -1 for a class that no patch has."""
        return np.where(self.fractions > 0, np.nan_to_num(self.iou).argmax(0), -1)

    @property
    def best_control(self) -> Float[np.ndarray, "K"]:
        """The highest IoU that a cluster has with each class in other images, as a mean over the R times."""
        return self.control.max(1).mean(0)


def segment_overlap(
    assignments: Float[Array | np.ndarray, "B M H W"] | Sequence[Float[Array | np.ndarray, "M _H _W"]],
    labels: Int[Array | np.ndarray, "B Hl Wl"] | Sequence[Int[Array | np.ndarray, "_Hl _Wl"]],
    num_classes: int,
    *,
    controls: int = 3,
    seed: int = 0,
) -> SegmentOverlap:
    """Returns the IoU of each cluster with each class over a data set.

    The map of a cluster is made binary for each class: of all patches of all images, those with the most weight, as many as the
    class has. One threshold for all images is the practice of network dissection (Bau et al., CVPR 2017), where it lets through
    0.5 percent of all places. Here it lets through as much as the class covers, so that an IoU of 1 is possible for small and
    large classes, and chance is f / (2 - f) for a class with the fraction f. A patch has the class of most of its labeled
    pixels; those without are left out. Weights count relative to a uniform one, so that images may have different sizes.

    The control pairs each image's clusters with the segments of another image, which are stretched to its size. A cluster that
    gathers the same place in every image, such as the center, overlaps with segments there, too.

    Args:
        assignments: the maps of the clusters of each image, values of `model.apply(variables, images, method="clusters")`.
        labels: the class of each pixel of the same images in any resolution at least that of the maps; 255 for none
            (`paca_jax.data.IGNORED`).
        num_classes: the number of classes.
        controls: how many times the images are paired with others.
        seed: the seed of these pairs, and of the order of patches with equal weights.

    Raises:
        UserError: if there are fewer than two images, not as many assignments as label maps, or an argument is of another type,
            shape or range.
    """
    for name, value, hint in (("num_classes", num_classes, _Classes), ("controls", controls, Controls), ("seed", seed, Seed)):
        check_value(name, value, hint)
    maps = [_checked_assignment(each) for each in _items("assignments", assignments)]
    known = [_checked_labels(each, num_classes) for each in _items("labels", labels)]
    if len(maps) != len(known) or len(maps) < 2:
        raise UserError(
            f"Expected at least two images with a label map for each, got {len(maps)} assignments and {len(known)} label maps. "
            "Pass equally many."
        )
    counts = sorted({len(each) for each in maps})
    check(len(counts) == 1, f"Expected the same number of clusters in each image, got {counts}. Pass those of one block.")
    rng = np.random.default_rng(seed)
    weights = np.concatenate([(each * each[0].size).reshape(len(each), -1) for each in maps], axis=1)
    shuffled = rng.permutation(weights.shape[1])  # so that equal weights come in no order of the images
    ranked = shuffled[np.argsort(-weights[:, shuffled], axis=1, kind="stable")]

    def of_patches(partners: Iterable[int]) -> Int[np.ndarray, "N"]:
        pairs = zip(partners, maps, strict=True)
        return np.concatenate([_patch_labels(known[partner], each.shape[1:], num_classes) for partner, each in pairs])

    own = of_patches(range(len(maps)))
    fractions = np.bincount(own[own >= 0], minlength=num_classes) / max((own >= 0).sum(), 1)
    others = [of_patches(other_images(len(maps), rng)) for _ in range(controls)]
    return SegmentOverlap(
        _iou(own[ranked], num_classes), np.stack([_iou(each[ranked], num_classes) for each in others]), fractions
    )


def overlap_table(overlaps: Mapping[str, SegmentOverlap], class_names: Sequence[str]) -> str:
    """Returns a table in Markdown: for each class the cluster that overlaps most with it, in each of several assignments.

    Args:
        overlaps: the overlaps by the block that computes the assignment.
        class_names: the names of the classes.

    Raises:
        UserError: if the names are not as many as the classes.
    """
    names = checked_names(class_names)
    rows = []
    for block, found in overlaps.items():
        classes = len(found.fractions)
        check(len(names) == classes, f"Expected the names of {classes} classes, got {len(names)}. Pass one for each.")
        rows += [
            (
                block,
                names[k],
                f"{found.fractions[k]:.1%}",
                f"#{found.best[k]}",
                f"{found.iou[found.best[k], k]:.3f}",
                f"{found.best_control[k]:.3f}",
            )
            for k in np.flatnonzero(found.fractions)
        ]
    header = ("assignment", "class", "of the patches", "best cluster", "IoU", "best IoU with other images")
    return "\n".join(table(header, rows)) + "\n"


def _items(name: str, values: Any) -> Any:
    return values if isinstance(values, np.ndarray | Array) else checked_items(name, values)


def _checked_assignment(values: Any) -> Float[np.ndarray, "M H W"]:
    return np.asarray(checked_array("an assignment", values, REAL, ("M", "H", "W")), np.float32)


def _checked_labels(labels: Any, num_classes: int) -> Int[np.ndarray, "Hl Wl"]:
    found = np.asarray(checked_array("a label map", labels, WHOLE, ("H", "W"))).astype(np.int64)
    wrong = sorted(set(np.unique(found).tolist()) - {*range(num_classes), IGNORED})
    if wrong:
        raise UserError(
            f"Expected labels from 0 to {num_classes - 1}, or {IGNORED} for none, got {shorten(str(wrong))}. Correct them."
        )
    return found


def _patch_labels(labels: Int[np.ndarray, "Hl Wl"], size: tuple[int, ...], num_classes: int) -> Int[np.ndarray, "N"]:
    """Returns the class of most labeled pixels of each patch, or -1."""
    if labels.shape[0] < size[0] or labels.shape[1] < size[1]:
        raise UserError(
            f"Expected a label map with at least a pixel per patch, got {labels.shape} for {size} patches. Pass a larger one."
        )
    rows, columns = (np.arange(side) * patches // side for side, patches in zip(labels.shape, size, strict=True))
    patches = rows[:, None] * size[1] + columns
    labeled = labels != IGNORED
    cells = patches[labeled] * num_classes + labels[labeled]
    counts = np.bincount(cells, minlength=size[0] * size[1] * num_classes).reshape(-1, num_classes)
    return np.where(counts.any(1), counts.argmax(1), -1)


def other_images(count: int, rng: np.random.Generator) -> Int[np.ndarray, "B"]:
    """Returns another image for each image, each image once."""
    circle = rng.permutation(count)
    partners = np.empty(count, int)
    partners[circle] = np.roll(circle, 1)
    return partners


def _iou(ranked: Int[np.ndarray, "M N"], num_classes: int) -> Float[np.ndarray, "M K"]:
    """Returns the IoU of the strongest patches of each cluster with those of each class, equally many.

    Args:
        ranked: the classes of the patches in the order of each cluster's weights, the largest first; -1 for none.
        num_classes: the number of classes.
    """
    ranked = ranked[ranked >= 0].reshape(len(ranked), -1)
    found = np.full((len(ranked), num_classes), np.nan)
    for k, count in enumerate(np.bincount(ranked[0], minlength=num_classes)):
        if count:
            hits = (ranked[:, :count] == k).sum(1)
            found[:, k] = hits / (2 * count - hits)
    return found
