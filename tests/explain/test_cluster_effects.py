"""Effects of removed clusters and curves over them, against answers of the model without these clusters."""

import jax
import numpy as np
import pytest

from paca_jax import explain
from paca_jax.errors import UserError
from paca_jax.models import Removal, create_model
from tests.explain.small import nano, normalized, smooth

IMAGES = normalized(smooth(3))
BLOCK = "stage2/block0"


def without(removed, by_mean=False):
    """Returns the logits for each image without some clusters of its own."""
    model, variables = nano()
    kept = np.array([[cluster not in each for cluster in range(8)] for each in removed])
    return np.asarray(jax.jit(model.apply)(variables, IMAGES, removals={BLOCK: Removal(kept, by_mean)}))


def probability(logits, classes):
    return np.asarray(jax.nn.softmax(logits))[np.arange(3), classes]


@pytest.mark.parametrize("by_mean", [False, True])
def test_effects_are_the_answers_without_each_cluster(by_mean):
    found = explain.cluster_effects(*nano(), IMAGES, BLOCK, by_mean=by_mean, batch_size=7)
    before = without([()] * 3)
    assert found.changes.shape == (3, 8, 4)
    classes = before.argmax(-1)
    np.testing.assert_allclose(found.values, before, atol=1e-5)
    np.testing.assert_allclose(found.confidences, probability(before, classes), atol=1e-5)
    for cluster in range(8):
        after = without([(cluster,)] * 3, by_mean)
        np.testing.assert_allclose(found.changes[:, cluster], after - before, atol=1e-5)
        drops = np.log(probability(before, classes)) - np.log(probability(after, classes))
        np.testing.assert_allclose(found.drops[:, cluster], drops, atol=1e-5)
    assert np.abs(found.changes).max() > 1e-3
    np.testing.assert_array_equal(np.take_along_axis(found.drops, found.order, 1), -np.sort(-found.drops, axis=1))


def test_an_order_from_elsewhere_leaves_its_own_image_out():
    found = explain.cluster_effects(*nano(), IMAGES, BLOCK)
    for image, order in enumerate(found.order_elsewhere):
        others = np.delete(found.drops, image, axis=0).mean(0)
        np.testing.assert_allclose(others[order], -np.sort(-others), atol=1e-6)
    with pytest.raises(UserError, match="the effects in several images, got those in one"):
        explain.cluster_effects(*nano(), IMAGES[:1], BLOCK).order_elsewhere  # noqa: B018


def test_batches_do_not_change_the_effects():
    expected = explain.cluster_effects(*nano(), IMAGES, BLOCK)
    for size in (1, 5, 1000):
        found = explain.cluster_effects(*nano(), IMAGES, BLOCK, batch_size=size)
        np.testing.assert_allclose(found.changes, expected.changes, atol=1e-5)


def test_curves_remove_clusters_in_order_and_put_them_back():
    order = np.random.default_rng(1).permuted(np.tile(np.arange(8), (3, 1)), axis=1)
    found = explain.removal_curves(*nano(), IMAGES, BLOCK, order, points=5, controls=2, batch_size=10)
    classes = without([()] * 3).argmax(-1)
    assert found.counts.tolist() == [0, 2, 4, 6, 8]
    for point, count in enumerate(found.counts):
        deleted, inserted = without(order[:, :count]), without(order[:, count:])
        np.testing.assert_allclose(found.deletion[:, point], probability(deleted, classes), atol=1e-5)
        np.testing.assert_allclose(found.insertion[:, point], probability(inserted, classes), atol=1e-5)
    assert found.random_deletion.shape == found.random_insertion.shape == (2, 3, 5)
    everything, nothing = found.deletion[:, 0], found.deletion[:, -1]
    for deletion, insertion in zip(found.random_deletion, found.random_insertion, strict=True):
        np.testing.assert_allclose((deletion[:, 0], insertion[:, -1]), (everything, everything), atol=1e-5)
        np.testing.assert_allclose((deletion[:, -1], insertion[:, 0]), (nothing, nothing), atol=1e-5)
    assert np.abs(found.random_deletion[0] - found.random_deletion[1]).max() > 1e-4


def test_random_orders_follow_their_seed():
    order = np.tile(np.arange(8), (3, 1))
    first, again, other = (
        explain.removal_curves(*nano(), IMAGES, BLOCK, order, points=4, controls=1, seed=seed) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.random_deletion, again.random_deletion)
    assert np.abs(first.random_deletion - other.random_deletion).max() > 1e-5


def test_the_area_is_the_mean_over_the_fraction_of_clusters():
    curves = explain.RemovalCurves(np.array([0, 2, 8]), *[np.zeros((1, 3))] * 2, *[np.zeros((1, 1, 3))] * 2)
    np.testing.assert_allclose(curves.area(np.array([[1.0, 1.0, 1.0], [1.0, 0.5, 0.5]])), [1, 0.25 * 0.75 + 0.75 * 0.5])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block": "stage3/block0"}, r"a block that computes an assignment, got 'stage3/block0'; the nearest are stage"),
        ({"block": 1}, "block to be a string, got 1"),
        ({"model": None}, "Expected a classifier, segmentor or detector, got NoneType"),
        ({"model": create_model("pacavit_nano", num_classes=0)}, "Expected a model with a classifier, got one without"),
        ({"variables": {"params": {}}}, "The weights do not fit the model"),
        ({"images": IMAGES[0]}, "Expected images of shape"),
        ({"batch_size": 0}, "batch_size to be a whole number from 1"),
        ({"by_mean": 1}, "by_mean to be True or False"),
    ],
)
def test_wrong_arguments_are_refused(change, message):
    model, variables = nano()
    given = {"model": model, "variables": variables, "images": IMAGES, "block": BLOCK, **change}
    with pytest.raises(UserError, match=message):
        explain.cluster_effects(**given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"order": np.zeros((3, 8), int)}, "each row of order to be the clusters 0 to 7 in some order"),
        ({"order": np.tile(np.arange(8), (2, 1))}, r"order to be whole numbers of shape \(3, 8\), got int64 of shape \(2, 8\)"),
        ({"points": 1}, "points to be a whole number from 2"),
        ({"controls": 0}, "controls to be a whole number from 1"),
        ({"seed": -1}, "seed to be a whole number from 0"),
    ],
)
def test_wrong_curves_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        explain.removal_curves(*nano(), IMAGES, BLOCK, **{"order": np.tile(np.arange(8), (3, 1)), **change})


def test_outputs_that_are_not_finite_are_refused():
    model, variables = nano()
    head = {**variables["params"]["head"], "bias": np.full(4, np.nan, np.float32)}
    broken = {**variables, "params": {**variables["params"], "head": head}}
    with pytest.raises(UserError, match="finite outputs of the model"):
        explain.cluster_effects(model, broken, IMAGES, BLOCK)
