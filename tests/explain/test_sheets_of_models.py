"""Sheets of every kind of model: its answer, and the clusters of each of its stages."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import paca_jax
from paca_jax import data, explain
from paca_jax.errors import UserError
from paca_jax.models import Detector
from paca_jax.tasks.detection.prediction import detect_in_picture
from paca_jax.tasks.segmentation.prediction import segment_picture
from paca_jax.tasks.segmentation.views import Viewing
from tests import golden
from tests.explain.kinds import FEW, MODELS, NAMES, SIDES, WIDTHS, made
from tests.explain.small import smooth

STAGES = {
    "classifier": [
        "Stage 1, block 0: 6 clusters, 8x8",
        "Stage 2, block 0: 4 clusters, 4x4",
        "Stage 4, block 0: 3 clusters, 1x1",
    ],
    "teacher": [f"Stage {1 + s}, block 0: {m} clusters, {n}x{n}" for s, (m, n) in enumerate([(6, 8), (4, 4), (5, 2), (3, 1)])],
    "pacahead": [
        "Stage 1, block 0: 6 clusters, 8x10",
        "Stage 2, block 0: 4 clusters, 4x5",
        "PaCa head: the classes are the clusters, 8x10",
    ],
    "upernet": ["Stage 1, block 0: 6 clusters, 8x10", "Stage 3, block 0: 4 clusters, 2x3"],
    "detector": ["Stage 1, block 0: 6 clusters, 8x10", "Stage 2, block 0: 4 clusters, 4x5"],
}


def picture():
    """A picture that segmentors and detectors see at its own size of 40x32 pixels, the latter padded."""
    return smooth(1, (32, 40))[0]


@pytest.mark.parametrize("kind", MODELS)
def test_every_stage_with_clusters_is_drawn(kind, drawn_texts):
    drawn = explain.sheet(*made(kind), picture(), NAMES)
    assert drawn.mode == "RGB"
    headings = [text for text in drawn_texts if re.match("Stage|PaCa head", text)]
    assert headings == [f"{heading} patches" for heading in STAGES[kind]]


@pytest.mark.parametrize("kind", ["classifier", "pacahead", "detector"])
def test_normalized_images_are_drawn_without_their_files(kind, drawn_texts):
    model, variables = made(kind)
    images = np.stack([paca_jax.preprocess(picture(), model)] * 2)
    explain.cluster_sheet(model, variables, [picture()] * 2, images, NAMES)
    headings = [text for text in drawn_texts if re.match("Stage|PaCa head", text)]
    assert headings == [f"{heading} patches" for heading in STAGES[kind]] * 2


@pytest.mark.parametrize("kind", ["classifier", "pacahead", "detector"])
def test_the_clusters_drawn_are_those_that_do_most_for_the_answer(kind, drawn_texts):
    model, variables = made(kind)
    explain.sheet(model, variables, picture(), NAMES, block="stage1/block0", clusters_per_image=3)
    assert "In each stage, the clusters that do most for the answer" in drawn_texts
    found = [re.fullmatch(r"#(\d+) · .*x · drop (.*)", text) for text in drawn_texts]
    drops = {int(each[1]): float(each[2]) for each in found if each}
    image = paca_jax.preprocess(picture(), model)[None]
    expected = explain.cluster_effects(model, variables, image, "stage1/block0").drops[0]
    assert list(drops.values()) == sorted(drops.values(), reverse=True)
    assert next(iter(drops)) == expected.argmax()
    for cluster, drop in drops.items():
        assert drop == pytest.approx(expected[cluster], rel=0.06, abs=1e-6)
    drawn_texts.clear()
    explain.sheet(model, variables, picture(), NAMES, block="stage1/block0", order="sharpness")
    assert not [text for text in drawn_texts if "drop" in text]


def test_the_classes_of_a_head_are_drawn_by_area(drawn_texts):
    model, variables = made("pacahead")
    explain.sheet(model, variables, picture(), NAMES, block="head", clusters_per_image=1)
    image = paca_jax.preprocess(picture(), model)[None]
    largest = NAMES[explain.cluster_effects(model, variables, image, "stage1/block0").values[0].argmax()]
    assert [text.partition(" · ")[0] for text in drawn_texts if text.endswith("x")] == [largest]


def test_of_several_assignments_of_a_stage_the_first_is_drawn_or_the_one_that_is_named(drawn_texts):
    model = golden.nano(depths=(3, 1, 1, 1), clusters=(4, 0, 3, 0), clustering_periods=(1, 0, 0, 0), num_classes=3)
    variables = golden.random_variables(model)
    explain.sheet(model, variables, picture(), NAMES)
    assert [text.partition(":")[0] for text in drawn_texts if text.startswith("Stage")] == [
        "Stage 1, block 0",
        "Stage 3, block 0",
    ]
    drawn_texts.clear()
    explain.sheet(model, variables, picture(), NAMES, block="stage1/block2")
    assert [text.partition(":")[0] for text in drawn_texts if text.startswith("Stage")] == ["Stage 1, block 2"]


def test_a_classifier_answers_with_its_likeliest_classes(drawn_texts):
    model, variables = made("classifier")
    explain.sheet(model, variables, picture(), NAMES)
    logits = np.asarray(jax.jit(model.apply)(variables, paca_jax.preprocess(picture(), model)[None]))[0]
    shares = np.exp(logits) / np.exp(logits).sum()
    place = drawn_texts.index("classes by probability")
    expected = [text for k in np.argsort(-logits) for text in (f"{shares[k]:.0%}", NAMES[k])]
    assert drawn_texts[place + 1 : place + 7] == expected


def test_unlikely_classes_are_left_out(drawn_texts):
    model, variables = made("classifier")
    head = {**variables["params"]["head"], "bias": jnp.array([0.0, 50.0, 0.0])}
    explain.sheet(model, {**variables, "params": {**variables["params"], "head": head}}, picture(), NAMES)
    assert [name for name in NAMES if name in drawn_texts] == ["bee"]


@pytest.mark.parametrize("kind", ["pacahead", "upernet"])
def test_a_segmentor_answers_with_its_largest_classes(kind, drawn_texts):
    model, variables = made(kind)
    explain.sheet(model, variables, picture(), NAMES)
    labels = segment_picture(model, variables, picture(), data.eval_transform(model.config), Viewing())
    fractions = np.bincount(labels.ravel(), minlength=3) / labels.size
    found = dict(zip(drawn_texts[1:], drawn_texts, strict=False))  # {text: the one before it, the value of a name}
    shares = {name: int(found[name].rstrip("%")) for name in NAMES if name in found and found[name].endswith("%")}
    assert shares
    for name, fraction in zip(NAMES, fractions, strict=True):
        assert shares.get(name, 0) == pytest.approx(100 * fraction, abs=2)
    assert list(shares.values()) == [shares[name] for name in shares]


def test_clusters_of_a_paca_head_have_the_names_of_classes(drawn_texts):
    explain.sheet(*made("pacahead"), picture(), NAMES, block="head")
    captions = [text.partition(" · ")[0] for text in drawn_texts if re.search(r" · [\d.]+x$", text)]
    assert captions
    assert set(captions) <= set(NAMES)


def test_a_detector_answers_with_its_objects_by_score(drawn_texts):
    model, variables = made("detector")
    found = detect_in_picture(model, variables, picture(), data.eval_transform(model.config))
    assert len(found.scores) > 6
    score = float(found.scores[6]) - 1e-6
    few = explain.sheet(model, variables, picture(), NAMES, score=score)
    place = drawn_texts.index("objects by score")
    best = zip(found.scores[:5], found.labels[:5].tolist(), strict=True)
    expected = [text for value, label in best for text in (f"{value:.0%}", NAMES[label])]
    assert drawn_texts[place + 1 : place + 11] == expected
    assert f"and {(found.scores > score).sum() - 5} more" in drawn_texts
    drawn_texts.clear()
    assert few != explain.sheet(model, variables, picture(), NAMES, score=1)
    assert "no object above 1" in drawn_texts


def test_a_heat_map_lies_where_the_patches_do_and_padding_draws_nothing(monkeypatch, drawn_texts):
    def clusters(self, images):
        rows, columns = images.shape[1] // 8, images.shape[2] // 8
        assert (rows, columns) != (4, 5)  # the image is padded
        assignment = jnp.zeros((1, 3, rows, columns))
        assignment = assignment.at[0, 0, -1, -1].set(1)  # in the padding
        assignment = assignment.at[0, 1, 3, 4].set(0.2).at[0, 1, -1, -1].set(0.8)  # most of it there
        return {"stage2/block0": assignment.at[0, 2, 3, 1].set(0.75).at[0, 2, -1, -1].set(0.25)}

    monkeypatch.setattr(Detector, "clusters", clusters)
    model, _ = made("detector")
    other = paca_jax.create_model("mask_rcnn_nano", **WIDTHS, **MODELS["detector"][1] | {"detections": 8})
    black = Image.new("RGB", (40, 32))
    variables = golden.random_variables(model)
    drawn = np.asarray(explain.sheet(other, variables, black, NAMES, score=1, order="sharpness"), np.int32)
    assert [text for text in drawn_texts if re.search(r" · [\d.]+x$", text)] == ["cluster 2 · 20x"]
    bright = np.argwhere((drawn[114:, 380:, 0] > 220) & (drawn[114:, 380:, 2] < 180))
    top, left = bright.min(0)
    height, width = bright.max(0) - bright.min(0) + 1
    assert max(height, width) < 2 * 208 / 5  # about a patch, of 5 in the 208 pixels of a picture
    row, column = (top + height / 2 - 24) / 41.6, (left + width / 2 - (36 + 208 + 14 + 176 + 28 - 380)) / 41.6
    assert (row, column) == (pytest.approx(3.5, abs=0.2), pytest.approx(1.5, abs=0.2))


def test_names_are_those_of_the_data_set_with_as_many_classes(drawn_texts, caplog):
    for name, count, published in (("pacahead_nano", 150, "ADE20K"), ("mask_rcnn_nano", 80, "COCO")):
        few = {} if name == "pacahead_nano" else FEW
        model = paca_jax.create_model(name, **WIDTHS | {"num_classes": count}, clusters=(6, 4, 0, 0), **SIDES, **few)
        explain.sheet(model, golden.random_variables(model), picture(), order="sharpness")
        assert f"takes the names of {published}" in caplog.text
    explain.sheet(*made("pacahead"), picture(), order="sharpness")
    assert any(re.fullmatch("class [012]", text) for text in drawn_texts)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("classifier", {"score": 0.5}, "Expected a detector with a score, got a PaCaViT, which finds no objects"),
        ("pacahead", {"score": 0.5}, "Expected a detector with a score, got a Segmentor"),
        ("detector", {"score": 1.5}, "Expected score to be a number from 0 to 1 or None, got 1.5"),
        ("detector", {"block": "head"}, r"Expected a block with an assignment, got 'head'.*stage1/block0"),
        ("pacahead", {"block": "stage3/block0"}, r"got 'stage3/block0'.*stage2/block0"),
        ("pacahead", {"order": "size"}, "Expected order to be one of effect, sharpness, got 'size'"),
        ("pacahead", {"clusters_per_image": 0}, "Expected clusters_per_image to be a whole number from 1 to 100"),
        ("detector", {"class_names": NAMES[:2]}, "Expected the names of the model's 3 classes, got 2"),
        ("pacahead", {"class_names": "abc"}, "Expected class_names to be a list or a tuple, got str"),
    ],
)
def test_wrong_options_are_rejected(kind, options, message):
    with pytest.raises(UserError, match=message):
        explain.sheet(*made(kind), picture(), **{"class_names": NAMES, **options})


@pytest.mark.parametrize("kind", ["pacahead", "detector"])
def test_only_a_classifier_has_labels(kind):
    model, variables = made(kind)
    images = paca_jax.preprocess(picture(), model)[None]
    with pytest.raises(UserError, match=r"labels for a classifier alone, got some for a (Segmentor|Detector)"):
        explain.cluster_sheet(model, variables, [picture()], images, NAMES, labels=[0])


def test_models_without_clusters_are_rejected():
    model = paca_jax.create_model("upernet_nano", **WIDTHS, **SIDES, clusters=(0, 0, 0, 0))
    with pytest.raises(UserError, match="Expected a model with clusters"):
        explain.sheet(model, golden.random_variables(model), picture(), NAMES)
