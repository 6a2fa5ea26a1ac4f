"""The overlap of clusters with true segments: counted by hand, and against segments of other images."""

import numpy as np
import pytest

from paca_jax import data, explain
from paca_jax.errors import UserError


def spread(weights):
    """Returns weights as an assignment, whose clusters sum to 1."""
    weights = np.asarray(weights, np.float32)
    return weights / weights.sum((-1, -2), keepdims=True)


def test_overlaps_are_those_of_as_many_of_the_strongest_patches_as_a_class_has():
    labels = np.array([[[0, 0, 0, 1]], [[0, 1, 1, 0]]])
    right, other = [[[1, 2, 3, 9]], [[1, 8, 7, 4]]], [[[8, 1, 2, 7]], [[3, 9, 4, 2.5]]]
    found = explain.segment_overlap(spread(np.stack([right, other], 1)), labels, 3)
    assert found.fractions.tolist() == [5 / 8, 3 / 8, 0]
    # The five strongest patches are of classes 1, 1, 1, 0, 0 for the first cluster, and 1, 0, 1, 1, 0 for the second.
    np.testing.assert_allclose(found.iou, [[2 / 8, 1, np.nan], [2 / 8, 2 / 4, np.nan]])
    assert found.best.tolist() == [0, 0, -1]


def test_a_cluster_that_follows_its_class_loses_it_in_other_images():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (20, 8, 8))
    following = spread(np.where(labels == 1, 3.0, 0.1) + rng.random(labels.shape))
    anywhere = spread(rng.random(labels.shape))
    found = explain.segment_overlap(np.stack([anywhere, following], 1), labels, 2, controls=4)
    assert found.control.shape == (4, 2, 2)
    assert found.iou[1, 1] == 1
    chance = found.fractions[1] / (2 - found.fractions[1])
    np.testing.assert_allclose(found.iou[0, 1], chance, atol=0.05)
    np.testing.assert_allclose(found.control[..., 1], chance, atol=0.05)
    assert found.best[1] == 1
    np.testing.assert_allclose(found.best_control, found.control.max(1).mean(0))
    assert np.abs(found.control[0] - found.control[1]).max() > 1e-4


def test_a_cluster_of_one_place_overlaps_with_what_is_always_there():
    labels = np.zeros((5, 4, 4), int)
    labels[:, 1:3, 1:3] = 1
    found = explain.segment_overlap(spread(labels[:, None] + 0.1), labels, 2)
    assert found.iou[0, 1] == 1
    assert (found.control[:, 0, 1] == 1).all()


def test_patches_have_the_class_of_most_of_their_labeled_pixels():
    labels = np.full((4, 4), data.IGNORED)
    labels[:2, :2] = [[0, 0], [1, data.IGNORED]]
    labels[:2, 2:] = [[1, data.IGNORED], [data.IGNORED, data.IGNORED]]
    weights = np.array([[[1.0, 4.0], [9.0, 9.0]]])  # most weight where nothing is labeled
    found = explain.segment_overlap([spread(weights)] * 2, [labels] * 2, 2)
    assert found.fractions.tolist() == [0.5, 0.5]
    np.testing.assert_allclose(found.iou, [[0, 1]])


def test_weights_count_relative_to_a_uniform_one_in_images_of_different_sizes():
    small, large = np.array([[0, 1]]), np.kron([[1, 0], [0, 1]], np.ones((2, 3), int))
    maps = [spread(np.where(each == 1, 3.0, 1.0)[None]) for each in (small, large)]
    found = explain.segment_overlap(maps, [np.kron(small, np.ones((5, 7), int)), large], 2)
    np.testing.assert_allclose(found.iou, [[0, 1]])


def test_seeds_choose_the_other_images():
    rng = np.random.default_rng(0)
    maps, labels = spread(rng.random((6, 2, 4, 4))), rng.integers(0, 2, (6, 4, 4))
    first, again, other = (explain.segment_overlap(maps, labels, 2, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.control, again.control)
    np.testing.assert_array_equal(first.iou, other.iou)
    assert np.abs(first.control - other.control).max() > 1e-4


def test_tables_have_the_best_cluster_of_each_class_that_occurs():
    labels = np.array([[[0, 1]], [[1, 0]]])
    overlap = explain.segment_overlap(spread(np.where(labels == 1, 3, 1)[:, None]), labels, 3)
    lines = explain.overlap_table({"stage1/block0": overlap}, ["sky", "sea | lake", "moon"]).splitlines()
    assert len(lines) == 4
    assert lines[3] == "| stage1/block0 | sea \\| lake | 50.0% | #0 | 1.000 | 0.000 |"
    with pytest.raises(UserError, match="the names of 3 classes, got 1"):
        explain.overlap_table({"stage1/block0": overlap}, ["sky"])


MAPS, LABELS = np.full((2, 3, 4, 4), 1 / 16, np.float32), np.zeros((2, 8, 8), int)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"assignments": MAPS[:1], "labels": LABELS[:1]}, "at least two images with a label map for each, got 1 assignments"),
        ({"labels": LABELS[:1]}, "got 2 assignments and 1 label maps"),
        ({"assignments": [MAPS[0], MAPS[1, :2]]}, r"the same number of clusters in each image, got \[2, 3\]"),
        ({"assignments": MAPS[:, 0]}, "an assignment to be real numbers of shape"),
        ({"labels": LABELS + 7}, r"labels from 0 to 2, or 255 for none, got \[7\]"),
        ({"labels": LABELS - 1}, r"labels from 0 to 2, or 255 for none, got \[-1\]"),
        ({"labels": LABELS * 1.0}, "a label map to be whole numbers of shape"),
        ({"labels": LABELS[:, :2]}, r"a label map with at least a pixel per patch, got \(2, 8\) for \(4, 4\) patches"),
        ({"labels": "masks"}, "labels to be a list or a tuple, got str"),
        ({"num_classes": 0}, "num_classes to be a whole number from 1 to 255"),
        ({"controls": 0}, "controls to be a whole number from 1"),
        ({"seed": -1}, "seed to be a whole number from 0"),
    ],
)
def test_wrong_arguments_are_refused(change, message):
    given = {"assignments": MAPS, "labels": LABELS, "num_classes": 3, **change}
    with pytest.raises(UserError, match=message):
        explain.segment_overlap(**given)
