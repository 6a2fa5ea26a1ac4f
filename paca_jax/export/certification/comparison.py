"""How far the outputs of two programs are from each other."""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from paca_jax import ops

Outputs = dict[str, np.ndarray]  # of one call
_SAME_BOX = 0.5  # IoU


@dataclasses.dataclass(frozen=True)
class Rounding:
    """What rounding the weights changes in the answers of a model.

    Attributes:
        agreement: the fraction of the answers that remain: of the classes of pictures or pixels, or of the detections, which
            remain if one of the same class overlaps with an IoU of at least 0.5. None for a model without answers.
        differences: as in a `Certificate`; empty for a detector, whose outputs have no fixed order.
    """

    agreement: float | None
    differences: dict[str, float]


def rounding(own: Sequence[Outputs], rounded: Sequence[Outputs]) -> Rounding:
    """Returns what rounding the weights of a model changes in its outputs for the same calls."""
    detects = "boxes" in own[0]
    same = _remaining if detects else _same_classes
    found = np.concatenate([same(ours, theirs) for ours, theirs in zip(own, rounded, strict=True)])
    return Rounding(float(np.mean(found)) if found.size else None, {} if detects else largest_differences(own, rounded))


def largest_differences(ours: Sequence[Outputs], theirs: Sequence[Outputs]) -> dict[str, float]:
    """Returns the largest difference of each output over all calls, in parts of its largest value if that is above one.

    Infinite if an output has another shape or type, NaN if one has.
    """
    pairs = list(zip(ours, theirs, strict=True))
    return {name: float(np.max([_difference(mine[name], other[name]) for mine, other in pairs])) for name in ours[0]}


def in_same_order(ours: Outputs, theirs: Outputs, tolerance: float) -> Outputs:
    """Returns their outputs with detections in our order, where their scores do not tell which comes first.

    Args:
        ours: the outputs of one program.
        theirs: those of another for the same call.
        tolerance: how far each score may be off; detections whose scores are less than twice as far apart have no order.
    """
    if "boxes" not in ours or any(array.shape != theirs[name].shape for name, array in ours.items()):
        return theirs
    orders = [_order(_row(ours, image), _row(theirs, image), tolerance) for image in range(len(ours["boxes"]))]
    return {name: np.stack([array[image][order] for image, order in enumerate(orders)]) for name, array in theirs.items()}


def _row(outputs: Outputs, image: int) -> Outputs:
    return {name: array[image] for name, array in outputs.items()}


def _order(ours: Outputs, theirs: Outputs, tolerance: float) -> list[int]:
    """Returns which of their detections each of ours is: of those with its label and score, the one with the nearest box."""
    near = np.abs(ours["scores"][:, None] - theirs["scores"]) <= 2 * tolerance
    same = near & (ours["labels"][:, None] == theirs["labels"])
    apart = np.abs(ours["boxes"][:, None] - theirs["boxes"]).max(-1)
    left, order = list(range(len(same))), []
    for mine, distances in zip(same, apart, strict=True):
        alike = [other for other in left if mine[other]]
        order.append(min(alike, key=lambda other: distances[other]) if alike else left[0])
        left.remove(order[-1])
    return order


def _difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return float("inf")
    wide, other = ours.astype(np.float64), theirs.astype(np.float64)
    return float(np.max(np.abs(wide - other), initial=0) / max(1.0, np.max(np.abs(wide), initial=0)))


def _same_classes(ours: Outputs, theirs: Outputs) -> np.ndarray:
    if "logits" not in ours:
        return np.empty(0)
    return np.ravel(ours["logits"].argmax(-1) == theirs["logits"].argmax(-1))


def _remaining(ours: Outputs, theirs: Outputs) -> np.ndarray:
    """Tells for each detection of ours whether theirs have it."""
    remain = []
    for image, valid in enumerate(ours["valid"]):
        overlaps = ops.box_iou(*(jnp.asarray(outputs["boxes"][image]) for outputs in (ours, theirs)))
        same = (
            (np.asarray(overlaps) >= _SAME_BOX)
            & (ours["labels"][image][:, None] == theirs["labels"][image])
            & theirs["valid"][image]
        )
        remain.append(same.any(axis=1)[valid])
    return np.concatenate(remain)
