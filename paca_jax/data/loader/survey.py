"""Which classes the training examples show, found out before training: a class that none shows cannot be learned."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from paca_jax.data.codecs.images import ImageError
from paca_jax.data.codecs.label_maps import IGNORED, decode_mask, to_labels
from paca_jax.data.loader.random_streams import permutation
from paca_jax.data.sources.dataset import READERS, Dataset, counted_names
from paca_jax.data.transforms.segmentation import SegmentationTrainTransform
from paca_jax.errors import UserError

logger = logging.getLogger(__name__)

# Masks that are read at most if they show two classes.
_MASKS = 1000
# Masks between two looks at what they show.
_MASKS_AT_ONCE = 64


def report_unseen_classes(dataset: Dataset, transform: Any) -> None:
    """Logs which classes no training example shows.

    Masks have to be decoded. Up to a thousand from all over the data set are read, fewer if they show every class, and all if
    the first thousand are suspicious: if they show no class, or one class and 255.

    Args:
        dataset: the training set.
        transform: its transform, which knows how masks store classes.

    Raises:
        UserError: the masks show no class, or one class and 255; or a mask does not fit the classes.
    """
    if isinstance(transform, SegmentationTrainTransform):
        _report_masks(dataset, transform)
    elif unseen := dataset.unseen_classes():
        logger.warning("No example of %s shows %s.", _name(dataset), counted_names(unseen, dataset.num_classes))


def likely_cause(unseen: Sequence[str], class_names: Sequence[str], ignore_zero: bool) -> str:
    """Returns why masks with pixels of 255 may never show some classes, and what to do, in two sentences.

    Args:
        unseen: the names of the classes that no mask shows.
        class_names: the names of all classes.
        ignore_zero: whether masks store class c as c + 1, and no class as 0.
    """
    what, number = "one of these classes", "its number"
    if len(unseen) == 1:
        what, number = repr(unseen[0]), str(class_names.index(unseen[0]) + int(ignore_zero))
    return (
        f"Pixels of {IGNORED} occur, which count as no class. If {IGNORED} stands for {what}, as in masks of 0 and {IGNORED}, "
        f"write {number} instead."
    )


def _report_masks(dataset: Dataset, transform: SegmentationTrainTransform) -> None:
    seen = np.zeros(IGNORED + 1, bool)  # of each class; the last one of pixels of 255
    order = permutation(0, 0, len(dataset)).tolist()
    looked, read = 0, 0

    def is_suspicious() -> bool:
        return seen[:IGNORED].sum() < 1 + seen[IGNORED]

    with ThreadPoolExecutor(READERS) as readers:
        while looked < len(order) and (read < _MASKS or is_suspicious()):
            some = order[looked : looked + _MASKS_AT_ONCE]
            shown = [mask for mask in readers.map(lambda index: _shown(dataset, index, transform), some) if mask is not None]
            seen = np.logical_or.reduce([seen, *shown])
            looked, read = looked + len(some), read + len(shown)
            if seen[: transform.num_classes].all():
                return
    names = dataset.class_names
    unseen = [name for name, is_seen in zip(names, seen, strict=False) if not is_seen]
    if not unseen or not read:
        return
    cause = f" {likely_cause(unseen, names, transform.ignore_zero)}" if seen[IGNORED] else ""
    if is_suspicious():
        raise UserError(
            f"Expected masks that show the classes of {_name(dataset)}, none of them shows {counted_names(unseen, len(names))}."
            f"{cause or ' All pixels count as no class: write class numbers, or correct ignore_zero.'}"
        )
    masks = f"{read} masks" if looked == len(order) else f"{read} masks, of {len(order)} that there are,"
    shows = f"None of the {masks} that were read of {_name(dataset)} shows"
    logger.warning("%s %s.%s", shows, counted_names(unseen, len(names)), cause if len(unseen) == 1 else "")


def _shown(dataset: Dataset, index: int, transform: SegmentationTrainTransform) -> np.ndarray | None:
    """Returns which classes a mask shows and, last, whether it has pixels of 255; None if it is not readable, see training."""
    mask = dataset[index][transform.mask_feature]
    try:
        if not isinstance(mask, bytes):
            return None
        values = decode_mask(mask)
        labels = to_labels(values, transform.num_classes, transform.ignore_zero)
    except ImageError:
        return None
    except UserError as error:
        raise UserError(f"{dataset.where(index)} of {_name(dataset)}: {error}") from error
    shown = np.bincount(labels.ravel(), minlength=IGNORED + 1) > 0
    shown[IGNORED] = (values == IGNORED).any()
    return shown


def _name(dataset: Dataset) -> str:
    return f"data set {dataset.name!r}, split {dataset.split!r}"
