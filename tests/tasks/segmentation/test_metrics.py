"""Confusion matrices and the metrics computed from them, against plain counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from paca_jax.sharding import make_mesh
from paca_jax.tasks.segmentation.metrics import SegmentationMetrics, confusion_matrix

CLASSES = 7


def random_maps(count, rng):
    """Returns labels without classes 2 and 5, a tenth ignored, and predictions: often correct, sometimes 5, never 2."""
    labels = rng.choice([0, 1, 3, 4, 6], size=(count, 12, 9))
    wrong = rng.choice([0, 1, 3, 4, 5, 6], size=labels.shape)
    predictions = np.where(rng.random(labels.shape) < 0.6, labels, wrong)
    labels[rng.random(labels.shape) < 0.1] = 255
    return labels.astype(np.uint8), predictions.astype(np.uint8)


def plain_count(labels, predictions):
    """Returns mIoU, mean accuracy and pixel accuracy, pixel set by pixel set, and what they leave out."""
    ignored = np.mean(labels == 255)
    keep = labels != 255
    labels, predictions = labels[keep], predictions[keep]
    ious, accuracies = [], []
    for k in range(CLASSES):
        true, given = labels == k, predictions == k
        if (true | given).any():
            ious.append((true & given).sum() / (true | given).sum())
        if true.any():
            accuracies.append((true & given).sum() / true.sum())
    return {
        "miou": np.mean(ious),
        "mean_accuracy": np.mean(accuracies),
        "accuracy": np.mean(labels == predictions),
        "classes_counted": len(ious),
        "ignored_fraction": ignored,
        "nonfinite_fraction": 0,
    }


def made(confusion, ignored):
    """Returns the metrics of pictures for which the output of the model is finite."""
    return SegmentationMetrics.single_from_model_output(confusion=confusion, ignored=ignored, nonfinite=np.zeros(1))


def test_batches_over_eight_devices_with_an_uneven_last_one():
    labels, predictions = random_maps(21, np.random.default_rng(0))
    mesh = make_mesh(8, 1, 1)
    sharding = NamedSharding(mesh, PartitionSpec("data"))

    @jax.jit
    def metrics_of(labels, predictions, mask):
        valid = (mask > 0)[:, None, None]
        confusion = confusion_matrix(labels, predictions, (labels != 255) & valid, CLASSES)
        return made(confusion, jnp.sum((labels == 255) & valid))

    total = None
    for start in range(0, 21, 8):
        rows = slice(start, start + 8)
        padding = 8 - len(labels[rows])
        batch = [np.concatenate([x[rows], np.zeros((padding, *x.shape[1:]), x.dtype)]) for x in (labels, predictions)]
        mask = np.arange(8) < 8 - padding
        part = metrics_of(*(jax.device_put(x, sharding) for x in (*batch, mask.astype(np.float32))))
        total = part if total is None else total.merge(part)
    assert total.compute() == pytest.approx(plain_count(labels, predictions))


def test_one_batch_needs_no_merging():
    labels, predictions = random_maps(3, np.random.default_rng(1))
    confusion = confusion_matrix(labels, predictions, labels != 255, CLASSES)
    assert confusion.sum() == (labels != 255).sum()
    ignored = jnp.sum(labels == 255)
    found = made(confusion, ignored).compute()
    assert found == pytest.approx(plain_count(labels, predictions))


def test_counts_beyond_32_bits():
    confusion = np.array([[2**30 - 1, 0], [1, 2**30 - 2]], np.int32)
    part = made(confusion, np.int32(2**31 - 1))
    total = part.merge(part).merge(part)
    assert total.miou.confusion.sum() == 3 * (2**31 - 2)
    assert total.compute()["ignored_fraction"] == pytest.approx(0.5)
    assert total.compute()["accuracy"] == pytest.approx(1 - 1 / (2**31 - 2), abs=1e-12)


def test_without_a_labeled_pixel_nothing_is_defined():
    none = made(np.zeros((3, 3), np.int32), np.int32(6))
    found = none.compute()
    assert [found.pop(name) for name in ("classes_counted", "ignored_fraction", "nonfinite_fraction")] == [0, 1, 0]
    assert all(np.isnan(value) for value in found.values())
