"""Clusters of changed pictures and of other models: maps that follow the picture, that stay, and that are shuffled."""

import jax
import numpy as np
import pytest

import paca_jax
from paca_jax import explain
from paca_jax.errors import UserError
from tests.explain.kinds import made
from tests.explain.small import smooth


def images(kind):
    model, _ = made(kind)
    return np.stack([paca_jax.preprocess(picture, model) for picture in smooth(5, (32, 40))[2:]])


def maps(kind, batch):
    model, variables = made(kind)
    return jax.device_get(jax.jit(lambda given: model.apply(variables, given, method="clusters"))(batch))


def correlation(first, second):
    return np.corrcoef(first.ravel(), second.ravel())[0, 1]


@pytest.mark.parametrize("kind", ["classifier", "pacahead"])
def test_maps_of_changed_pictures_are_compared_with_changed_maps(kind):
    batch = images(kind)
    found = explain.cluster_stability(*made(kind), batch)
    own = maps(kind, batch)
    assert found.keys() == own.keys()
    block = "stage1/block0"
    assert tuple(found[block]) == explain.AUGMENTATIONS
    mirrored = maps(kind, batch[:, :, ::-1])[block][..., ::-1]
    darker = maps(kind, 0.7 * batch + 0.3 * (0 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225]))[block]
    for image in range(3):
        for cluster in range(6):
            for change, changed in (("flip", mirrored), ("brightness", darker)):
                same = correlation(own[block][image, cluster], changed[image, cluster])
                other = correlation(own[block][image - 1, cluster], changed[image, cluster])
                np.testing.assert_allclose(found[block][change].similarities[image, cluster], same, atol=1e-3)
                np.testing.assert_allclose(found[block][change].control[image, cluster], other, atol=1e-3)


def test_a_crop_is_compared_with_the_middle_of_the_map(monkeypatch):
    """Clusters whose maps are pictures themselves are as stable as a picture is."""
    model, variables = made("classifier")
    flat = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    flat = np.asarray(jax.image.resize(flat[:, ::8, ::8], (2, 32, 32, 3), "cubic"))
    monkeypatch.setattr(type(model), "clusters", lambda self, given: {"pixels": given.transpose(0, 3, 1, 2)})
    found = explain.cluster_stability(model, variables, flat)["pixels"]
    for change in explain.AUGMENTATIONS:
        assert (found[change].similarities > 0.999).all()
        assert (found[change].control < 0.9).all()


def test_uniform_maps_are_like_nothing(monkeypatch):
    model, variables = made("teacher")
    monkeypatch.setattr(type(model), "clusters", lambda self, given: {"none": given.transpose(0, 3, 1, 2) * 0 + 0.1})
    found = explain.cluster_stability(model, variables, images("teacher"))["none"]
    assert not found["flip"].similarities.any()


def test_clusters_of_another_model_are_found_in_any_order():
    rng = np.random.default_rng(0)
    first = rng.random((4, 5, 6, 6))
    order = np.array([3, 0, 4, 1])
    second = first[:, order] * 2 + 0.05 * rng.random((4, 4, 6, 6))
    found = explain.match_clusters(first, second, controls=2)
    assert dict(found.pairs.tolist()) == {int(cluster): place for place, cluster in enumerate(order)}
    assert (found.similarities > 0.98).all()
    assert found.control.shape == (2, 4)
    assert found.control.max() < 0.6
    again = explain.match_clusters(first, second, controls=2)
    np.testing.assert_array_equal(found.control, again.control)
    assert np.abs(found.control - explain.match_clusters(first, second, controls=2, seed=1).control).max() > 1e-3


def test_similarities_are_mean_correlations():
    rng = np.random.default_rng(0)
    first, second = rng.random((3, 1, 4, 5)), rng.random((3, 1, 4, 5))
    expected = np.mean([correlation(a, b) for a, b in zip(first, second, strict=True)])
    np.testing.assert_allclose(explain.match_clusters(first, second).similarities, [expected], atol=1e-6)


def test_maps_of_one_place_are_like_those_of_other_images():
    same = np.broadcast_to(np.eye(4)[:, None, :].reshape(1, 4, 1, 4), (3, 4, 1, 4))
    found = explain.match_clusters(same, same)
    np.testing.assert_allclose(found.similarities, 1, atol=1e-6)
    np.testing.assert_allclose(found.control, 1, atol=1e-6)


MAPS = np.full((2, 3, 4, 4), 1 / 16, np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"first": MAPS[:1], "second": MAPS[:1]}, "the same two or more images, got shapes"),
        ({"second": MAPS[:, :, :2]}, r"got shapes \(2, 3, 4, 4\) and \(2, 3, 2, 4\)"),
        ({"first": MAPS[0]}, "first to be real numbers of shape"),
        ({"controls": 0}, "controls to be a whole number from 1"),
        ({"seed": 0.5}, "seed to be a whole number from 0"),
    ],
)
def test_wrong_maps_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        explain.match_clusters(**{"first": MAPS, "second": MAPS, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": None}, "Expected a classifier, segmentor or detector, got NoneType"),
        ({"images": np.zeros((1, 32, 32, 3), np.float32)}, "at least two images, for a control compares different ones, got 1"),
        ({"images": np.zeros((2, 32, 32), np.float32)}, "Expected images of shape"),
    ],
)
def test_wrong_images_are_refused(change, message):
    model, variables = made("classifier")
    with pytest.raises(UserError, match=message):
        explain.cluster_stability(**{"model": model, "variables": variables, "images": images("classifier"), **change})
