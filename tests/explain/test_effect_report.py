"""Effects as values for JSON and as tables, of every kind of model and images of several shapes."""

import json

import numpy as np
import pytest

import paca_jax
from paca_jax import explain
from paca_jax.errors import UserError
from tests.explain.kinds import NAMES, made
from tests.explain.small import smooth

SHAPES = [(32, 40), (40, 32), (32, 40)]


def images(kind):
    model, _ = made(kind)
    return [paca_jax.preprocess(picture, model) for shape in SHAPES for picture in smooth(1, shape)]


@pytest.fixture(scope="module", params=["classifier", "pacahead", "detector"])
def effects(request):
    kind = request.param
    model, variables = made(kind)
    return kind, explain.block_effects(model, variables, images(kind))


def test_images_of_several_shapes_are_those_of_each_shape(effects):
    kind, blocks = effects
    model, variables = made(kind)
    assert list(blocks)[:2] == ["stage1/block0", "stage2/block0"]
    assert "head" not in blocks
    block = "stage2/block0"
    for rows in ([0, 2], [1]):
        alone = explain.cluster_effects(model, variables, np.stack([images(kind)[row] for row in rows]), block)
        np.testing.assert_allclose(blocks[block].effects.drops[rows], alone.drops, atol=1e-5)
        np.testing.assert_allclose(blocks[block].effects.changes[rows], alone.changes, atol=1e-5)
        np.testing.assert_allclose(blocks[block].curves.deletion[rows, 0], alone.confidences, atol=1e-5)
    assert np.abs(blocks[block].effects.drops).max() > 1e-5


def test_reports_speak_of_their_kind(effects):
    kind, blocks = effects
    report = json.loads(json.dumps(explain.effect_report(blocks, ["a.png", "b.png", "c.png"], NAMES), allow_nan=False))
    found, block = blocks["stage2/block0"].effects, report["blocks"]["stage2/block0"]
    assert report["model"] == {"pacahead": "segmentor"}.get(kind, kind)
    assert block["clusters"] == 4
    np.testing.assert_allclose(block["drops"]["strongest"], found.drops.max(1).mean(), rtol=1e-5)
    np.testing.assert_allclose(block["drops"]["random"], found.drops.mean(), rtol=1e-5)
    elsewhere = [found.drops[image, order[0]] for image, order in enumerate(found.order_elsewhere)]
    np.testing.assert_allclose(block["drops"]["strongest_elsewhere"], np.mean(elsewhere), rtol=1e-5)
    np.testing.assert_allclose(block["confidences"]["with_all"], found.confidences.mean(), rtol=1e-5)
    key = {"classifier": "logits", "pacahead": "classes", "detector": "objects"}[kind]
    sure = "score" if kind == "detector" else "probability"
    answer = report["pictures"]["b.png"]
    entry = answer["blocks"]["stage2/block0"]["clusters"][0]
    assert list(entry) == ["cluster", "drop", sure, key]
    assert entry["drop"] == pytest.approx(found.drops[1].max())
    assert [abs(each["change"]) for each in entry[key]] == sorted((abs(each["change"]) for each in entry[key]), reverse=True)
    assert answer[sure] == pytest.approx(found.confidences[1])
    if kind == "classifier":
        assert answer["name"] == NAMES[found.values[1].argmax()]
    else:
        values = [each["score" if kind == "detector" else "fraction"] for each in answer[key]]
        np.testing.assert_allclose(values, -np.sort(-found.values[1][found.values[1] > 0]), rtol=1e-5)
    text = explain.effect_tables(report)
    assert f"| stage2/block0 | 4 | {block['areas']['deletion']:.3f} |" in text
    assert f"| stage2/block0 #{entry['cluster']} | {entry['drop']:+.3f} | {entry[sure]:.1%} |" in text


def test_a_report_of_one_picture_has_no_drop_elsewhere():
    blocks = explain.block_effects(*made("classifier"), images("classifier")[:1])
    report = explain.effect_report(blocks, ["a.png"], NAMES)
    assert report["blocks"]["stage1/block0"]["drops"]["strongest_elsewhere"] is None
    assert "| stage1/block0 |" in explain.effect_tables(report)


def test_reports_need_names():
    blocks = explain.block_effects(*made("classifier"), images("classifier")[:1])
    with pytest.raises(UserError, match="got those of 1 pictures and 3 classes with 2 and 3 names"):
        explain.effect_report(blocks, ["a.png", "b.png"], NAMES)
    with pytest.raises(UserError, match="got those of 1 pictures and 3 classes with 1 and 2 names"):
        explain.effect_report(blocks, ["a.png"], NAMES[:2])
    with pytest.raises(UserError, match="different names of pictures"):
        explain.effect_report(blocks, ["a.png", "a.png"], NAMES)
    with pytest.raises(UserError, match="effects of at least one block"):
        explain.effect_report({}, ["a.png"], NAMES)


def test_a_picture_with_a_name_that_breaks_lines_stays_in_its_heading():
    blocks = explain.block_effects(*made("classifier"), images("classifier")[:1])
    report = explain.effect_report(blocks, ["a\n## b | c.png"], NAMES)
    assert "\n## a\\n## b \\| c.png\n" in explain.effect_tables(report)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("photo.jpg", "images to be a list or a tuple, got str"),
        ([], "at least one image, got none"),
        ([np.zeros((32, 32), np.float32)], "Expected images of shape"),
        ([np.zeros((32, 32, 3), np.uint8)], "normalized images of a floating-point type"),
        (["photo.jpg"], "images as an array"),
    ],
)
def test_wrong_images_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        explain.block_effects(*made("classifier"), given)
