"""The comparison of a program's outputs with those of its model."""

import numpy as np
import pytest

from paca_jax.export.certification.comparison import in_same_order, largest_differences

TOLERANCE = 1e-4
SCORES = np.array([0.9, 0.5 + 9e-8, 0.5, 0.5 - 9e-8, 0.2], np.float32)


def detections(order=(0, 1, 2, 3, 4), scores=SCORES, labels=(1, 2, 2, 2, 1)):
    """Two images with five detections each, those of the second in another order; scores stay in descending order."""
    rng = np.random.default_rng(0)
    boxes, masks = rng.uniform(0, 50, (2, 5, 4)).astype(np.float32), rng.uniform(0, 1, (2, 5, 28, 28)).astype(np.float32)
    moved = [boxes, np.broadcast_to(labels, (2, 5)), masks, np.ones((2, 5), bool)]
    boxes, labels, masks, valid = (np.stack([array[0], array[1, list(order)]]) for array in moved)
    return {"boxes": boxes, "scores": np.stack([SCORES, scores]), "labels": labels, "masks": masks, "valid": valid}


def difference(ours, theirs):
    return np.max(list(largest_differences([ours], [in_same_order(ours, theirs, TOLERANCE)]).values()))


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (0, 2, 1, 3, 4), (0, 3, 1, 2, 4)])
def test_detections_with_about_the_same_score_come_in_any_order(order):
    noise = np.array([0, 2e-6, -2e-6, 1e-6, 0], np.float32)
    assert difference(detections(), detections(order, SCORES + noise)) < 1e-5


def test_other_detections_are_not_the_same():
    ours = detections()
    apart = np.array([0.9, 0.5, 0.4, 0.3, 0.2], np.float32)
    assert difference(ours, detections((0, 2, 1, 3, 4), apart)) > 0.01
    assert difference(ours, detections(labels=(1, 2, 2, 3, 1))) > 0.01
    for name in ("boxes", "masks", "scores"):
        theirs = {key: array.copy() for key, array in detections((0, 2, 1, 3, 4)).items()}
        theirs[name][1, 2] += 0.1
        assert difference(ours, theirs) > 0.001


def test_outputs_of_other_shapes_or_with_nan_differ():
    ours = detections()
    fewer = {name: array[:, :4] for name, array in ours.items()}
    assert difference(ours, fewer) == np.inf
    with_nan = ours | {"scores": np.full_like(ours["scores"], np.nan)}
    assert np.isnan(difference(ours, with_nan))
    logits = {"logits": np.arange(6.0).reshape(2, 3)}
    assert in_same_order(logits, logits, TOLERANCE) is logits
