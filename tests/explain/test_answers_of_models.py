"""What a removed cluster does for segmentors and detectors, against their answers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import paca_jax
from paca_jax import explain, ops
from paca_jax.models import Removal
from tests.explain.kinds import MODELS, WIDTHS, made
from tests.explain.small import smooth

BLOCK, COUNT = "stage1/block0", 6


def images(kind):
    model, _ = made(kind)
    return np.stack([paca_jax.preprocess(picture, model) for picture in smooth(2, (32, 40))])


@functools.cache
def answering(kind):
    model, variables = made(kind)
    return functools.partial(jax.jit(model.apply), variables, images(kind))


def answers(kind, removed):
    """Returns what a model finds without some of the clusters."""
    kept = np.array([cluster not in removed for cluster in range(COUNT)])
    return jax.device_get(answering(kind)(removals={BLOCK: Removal(kept)}))


@pytest.mark.parametrize("kind", ["pacahead", "upernet"])
def test_a_segmentor_supports_the_classes_of_its_places(kind):
    found = explain.cluster_effects(*made(kind), images(kind), BLOCK, batch_size=5)
    before = np.asarray(jax.nn.log_softmax(answers(kind, ())))
    classes = before.argmax(-1)

    def support(log_probabilities):
        return np.take_along_axis(log_probabilities, classes[..., None], -1).mean((1, 2, 3))

    def areas(log_probabilities):
        return (log_probabilities.argmax(-1)[..., None] == np.arange(3)).mean((1, 2))

    assert found.kind == "segmentor"
    assert found.boxes is None
    np.testing.assert_allclose(found.confidences, np.exp(support(before)), atol=1e-5)
    np.testing.assert_allclose(found.values, areas(before), atol=1e-6)
    for cluster in range(COUNT):
        after = np.asarray(jax.nn.log_softmax(answers(kind, (cluster,))))
        np.testing.assert_allclose(found.drops[:, cluster], support(before) - support(after), atol=1e-5)
        np.testing.assert_allclose(found.values + found.changes[:, cluster], areas(after), atol=0.02)
    assert np.abs(found.drops).max() > 1e-4


def test_a_detector_supports_its_objects():
    found = explain.cluster_effects(*made("detector"), images("detector"), BLOCK, batch_size=5)
    before = answers("detector", ())
    assert found.kind == "detector"
    for image in range(2):
        scores, labels, boxes = (before[name][image][:6] for name in ("scores", "labels", "boxes"))
        np.testing.assert_allclose(found.values[image], scores, atol=1e-5)
        np.testing.assert_array_equal(found.labels[image], labels)
        np.testing.assert_allclose(found.boxes[image], boxes / [40, 32, 40, 32], atol=1e-4)
        assert found.confidences[image] == pytest.approx(scores.mean(), abs=1e-5)
        for cluster in range(COUNT):
            after = {name: array[image] for name, array in answers("detector", (cluster,)).items()}
            own = found.values[image] + found.changes[image, cluster]
            assert found.drops[image, cluster] == pytest.approx(scores.mean() - own.mean(), abs=1e-5)
            overlaps = np.asarray(ops.box_iou(jnp.asarray(boxes), jnp.asarray(after["boxes"])))
            for row in range(6):
                same = after["valid"] & (after["labels"] == labels[row]) & (overlaps[row] >= 0.5)
                allowed = [0.0, *after["scores"][same]]
                assert np.abs(np.subtract(allowed, own[row])).min() < 1e-4
    assert np.abs(found.drops).max() > 1e-4


def test_an_image_without_objects_has_nothing_to_lose():
    name, options = MODELS["detector"]
    blind = paca_jax.create_model(name, **WIDTHS, **options | {"score_threshold": 0.999})
    found = explain.cluster_effects(blind, made("detector")[1], images("detector"), BLOCK)
    assert (found.labels == -1).all()
    assert not found.drops.any()
    assert not found.confidences.any()


@pytest.mark.parametrize("kind", ["pacahead", "detector"])
def test_curves_begin_with_all_clusters_and_end_with_none(kind):
    effects = explain.cluster_effects(*made(kind), images(kind), BLOCK)
    curves = explain.removal_curves(*made(kind), images(kind), BLOCK, effects.order, controls=1)
    nothing = explain.removal_curves(*made(kind), images(kind), BLOCK, effects.order[:, ::-1], points=2, controls=1).deletion
    np.testing.assert_allclose(curves.deletion[:, 0], effects.confidences, atol=1e-5)
    np.testing.assert_allclose(curves.insertion[:, -1], effects.confidences, atol=1e-5)
    np.testing.assert_allclose(curves.deletion[:, -1], nothing[:, -1], atol=1e-5)
    np.testing.assert_allclose(curves.random_insertion[0, :, 0], nothing[:, -1], atol=1e-5)
    one = (
        effects.confidences - effects.drops.max(1)
        if kind == "detector"
        else effects.confidences * np.exp(-effects.drops.max(1))
    )
    np.testing.assert_allclose(curves.deletion[:, 1], one, atol=1e-4)
