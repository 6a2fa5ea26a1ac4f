"""The data of an explorer's page, decoded, against what the models give."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from paca_jax import data, explain, ops
from paca_jax.errors import UserError
from paca_jax.models import Removal, create_model
from tests import golden
from tests.explain import explored
from tests.explain.explored import content, made, maps_of, page, pictures
from tests.shapes import unchecked

pytestmark = pytest.mark.xdist_group("explorer")  # so that one worker makes the pages


def image_of(kind, index=0):
    return jnp.asarray(data.preprocess(pictures()[index], made(kind)[0]))[None]


@functools.cache
def seen(kind, index=0):
    """Returns the attention weights, assignments and outputs of a model for a picture."""
    model, variables = made(kind)

    @jax.jit
    def look(variables, image):
        methods = ("attention", "clusters", "__call__")
        return [model.apply(variables, image, method=method) for method in methods]

    return jax.tree.map(lambda leaf: np.asarray(leaf)[0], look(variables, image_of(kind, index)))


@functools.cache
def removing(kind):
    model, variables = made(kind)
    return jax.jit(lambda image, removals: model.apply(variables, image, removals=removals))


def close(found, expected, axes):
    """Checks weights that were rounded: to half a step of their root, and the sum that this changes."""
    largest = expected.max(axis=axes, keepdims=True)
    step = 1 / 255
    bound = (np.sqrt(expected * largest) * step + largest * (step / 2) ** 2) + 0.03 * expected
    assert np.all(np.abs(found - expected) <= bound)


@pytest.mark.parametrize("kind", ["classifier", "teacher", "gray", "segmentor", "detector"])
def test_maps_are_those_of_the_model(kind):
    found = content(page(kind))
    assert {each["name"] for each in found["blocks"]} == set(seen(kind)[0])
    for index, picture in enumerate(found["pictures"]):
        image = image_of(kind, index)
        assert picture["image"] == list(image.shape[1:3])
        attention, clusters, _ = seen(kind, index)
        for block in found["blocks"]:
            weights, assignment = maps_of(picture, block["name"], block["owner"])
            close(weights, np.asarray(attention[block["name"]], np.float64), 3)
            close(assignment, np.asarray(clusters[block["owner"]], np.float64), (1, 2))
            assert weights.shape[1] == -(-image.shape[1] // block["stride"])


def test_blocks_name_the_assignment_that_they_use():
    owners = {each["name"]: each["owner"] for each in content(page("classifier"))["blocks"]}
    assert owners == {name: name for name in ("stage1/block0", "stage1/block1", "stage2/block0")}
    owners = {each["name"]: each["owner"] for each in content(page("segmentor"))["blocks"]}
    assert owners == {
        "stage1/block0": "stage1/block0",
        "stage1/block1": "stage1/block0",
        "stage2/block0": "stage2/block0",
        "head": "head",
    }


def test_cells_draw_on_cells_as_their_patches_do():
    picture = content(page("large"))["pictures"][0]
    shape = picture["attention"]["stage1/block1"]
    assert (shape["patches"], shape["side"], shape["rows"]) == ([57, 57], 2, 29)
    weights, assignment = maps_of(picture, "stage1/block1", "stage1/block0")
    found = np.einsum("rcm,mst->rcst", weights.mean(0), assignment)

    attention, clusters, _ = seen("large")
    attention = attention["stage1/block1"].astype(np.float64).mean(0)
    clusters = clusters["stage1/block0"].astype(np.float64)
    of_cell = np.zeros((29, 57))
    of_cell[np.arange(57) // 2, np.arange(57)] = 1
    counts = of_cell.sum(1)[:, None] * of_cell.sum(1)
    composed = np.einsum("ijm,mkl->ijkl", attention, clusters)
    expected = np.einsum("ri,cj,ijkl,sk,tl->rcst", of_cell, of_cell, composed, of_cell, of_cell, optimize=True)
    expected /= counts[:, :, None, None]
    np.testing.assert_allclose(found, expected, atol=0.02 * expected.max())
    np.testing.assert_allclose(found.sum((2, 3)), 1)


@pytest.mark.parametrize("kind", ["classifier", "teacher"])
def test_a_classifier_answers_with_probabilities(kind):
    for index, picture in enumerate(content(page(kind))["pictures"]):
        probabilities = np.asarray(jax.nn.softmax(seen(kind, index)[2]))
        order = np.argsort(-probabilities)
        rows = min(6, len(order))
        assert picture["answer"]["labels"] == order[:rows].tolist()
        np.testing.assert_allclose(picture["answer"]["values"], probabilities[order[:rows]], atol=2e-5)
        assert picture["answer"]["other"] == (order[6] if len(order) > 6 else -1)


def test_a_segmentor_answers_with_fractions_of_the_image():
    image = image_of("segmentor")
    logits = ops.resize_bilinear(jnp.asarray(seen("segmentor")[2])[None], image.shape[1:3])
    fractions = np.bincount(np.asarray(logits).argmax(-1).ravel(), minlength=7) / (image.shape[1] * image.shape[2])
    answer = content(page("segmentor"))["pictures"][0]["answer"]
    np.testing.assert_allclose(answer["values"], np.sort(fractions)[::-1][:6], atol=2e-5)
    np.testing.assert_allclose(answer["values"], fractions[answer["labels"]], atol=2e-5)


def test_a_detector_answers_with_objects():
    image = image_of("detector")
    found = seen("detector")[2]
    answer = content(page("detector"))["pictures"][0]["answer"]
    rows = min(6, found["valid"].sum())
    assert len(answer["values"]) == rows > 1
    np.testing.assert_allclose(answer["values"], found["scores"][:rows], atol=2e-5)
    assert answer["labels"] == found["labels"][:rows].tolist()
    height, width = image.shape[1:3]
    np.testing.assert_allclose(np.array(answer["boxes"]) * [width, height, width, height], found["boxes"][:rows], atol=0.02)


def test_answers_without_a_cluster_are_those_of_removals():
    for index, picture in enumerate(content(page("classifier"))["pictures"]):
        assert {owner: len(each) for owner, each in picture["without"].items()} == {
            "stage1/block0": 6,
            "stage1/block1": 6,
            "stage2/block0": 5,
        }
        changes = []
        for owner, answers in picture["without"].items():
            for cluster, answer in enumerate(answers):
                removals = {owner: Removal(jnp.arange(len(answers)) != cluster)}
                logits = removing("classifier")(image_of("classifier", index), removals)
                probabilities = np.asarray(jax.nn.softmax(logits[0]))
                rows = picture["answer"]["labels"]
                np.testing.assert_allclose(answer["values"], probabilities[rows], atol=2e-5)
                others = np.delete(np.arange(9), rows)
                assert answer["other"] == others[probabilities[others].argmax()]
                changes.append(np.abs(np.subtract(answer["values"], picture["answer"]["values"])).max())
        assert max(changes) > 1e-3


def test_an_object_keeps_its_row_without_a_cluster():
    picture = content(page("detector"))["pictures"][0]
    image = image_of("detector")
    removals = {"stage1/block0": Removal(jnp.arange(6) != 2)}
    found = {name: np.asarray(array[0]) for name, array in removing("detector")(image, removals).items()}
    height, width = image.shape[1:3]
    labels, values = picture["answer"]["labels"], picture["without"]["stage1/block0"][2]["values"]
    edges = np.array(picture["answer"]["boxes"]) * [width, height, width, height]
    assert max(values) > 0
    for row, value in enumerate(values):
        overlap = np.asarray(ops.box_iou(jnp.asarray(edges[row])[None], jnp.asarray(found["boxes"])))[0]
        same = found["valid"] & (found["labels"] == labels[row]) & (overlap > 0.49)
        if value:
            assert np.abs(found["scores"][same] - value).min() < 2e-5
        else:  # its only match may belong to a row before it
            assert same.sum() <= labels[:row].count(labels[row])


def test_a_detector_may_find_nothing():
    name, overrides = explored.KINDS["detector"]
    model = create_model(name, **(explored.SMALL | overrides | {"score_threshold": 0.999, "clusters": (2, 0, 0, 0)}))
    (picture,) = content(explain.explorer(model, golden.random_variables(model), pictures(1)).html)["pictures"]
    assert picture["answer"] == {"labels": [], "boxes": [], "values": [], "other": -1, "otherValue": 0}
    assert picture["without"] == {"stage1/block0": [{"values": [], "other": -1, "otherValue": 0}] * 2}
    assert picture["description"] == "picture 1, answer of the model: nothing"


def test_effects_can_be_left_out():
    html = explain.explorer(*made("gray"), pictures(1)[0], effects=False).html
    (picture,) = content(html)["pictures"]
    assert picture["without"] == {}
    assert picture["answer"] == content(page("gray"))["pictures"][0]["answer"]


def test_a_page_loads_nothing_and_has_every_text_escaped(tmp_path):
    name = tmp_path / "<img alt=x>.png"
    pictures(1)[0].save(name)
    names = ["</script><script>alert(1)</script>", "<!-- script -->"]
    html = explain.explorer(*made("gray"), [name], names, effects=False).html
    assert not re.findall(r"https?:|\bsrc=|<link|@import|url\(", html)
    assert html.count("<script") == html.count("</script>") == 2
    assert "<img alt=x>" not in html
    assert content(html)["classNames"] == names
    assert content(html)["pictures"][0]["name"] == "<img alt=x>.png"
    assert "default-src 'none'" in html


def test_the_picture_is_the_part_that_the_model_sees():
    picture = content(page("classifier"))["pictures"][0]
    assert picture["width"] == picture["height"] == 90
    picture = content(page("detector"))["pictures"][0]
    assert (picture["width"], picture["height"]) == (140, 90)


def test_a_notebook_and_a_file_show_the_page(tmp_path):
    explorer = explain.explorer(*made("gray"), pictures(1), effects=False)
    shown = explorer._repr_html_()
    assert shown.startswith("<iframe title=")
    assert shown.count("<") == 2
    assert repr(explorer) == f"Explorer(<{len(explorer.html.encode()):,} bytes of HTML>)"
    explorer.write(tmp_path / "new" / "page.html")
    assert (tmp_path / "new" / "page.html").read_text() == explorer.html


def test_pictures_come_in_every_form(tmp_path):
    picture = pictures(1)[0]
    picture.save(tmp_path / "photo.png")
    forms = [tmp_path / "photo.png", str(tmp_path / "photo.png"), (tmp_path / "photo.png").read_bytes(), picture]
    found = content(explain.explorer(*made("gray"), [*forms, np.asarray(picture)], effects=False).html)["pictures"]
    assert [each["name"] for each in found] == ["photo.png", "photo.png", "picture 3", "picture 4", "picture 5"]
    assert all(each["attention"] == found[0]["attention"] for each in found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": 3}, "Expected a model, got int"),
        ({"variables": 3}, "Expected variables as a dict, got int"),
        ({"variables": {"params": {}}}, "The weights do not fit the model"),
        ({"images": []}, "Expected at least one picture to explore, got none"),
        ({"images": 3}, "Expected images to be a list or a tuple, got int"),
        ({"images": [b"no picture"]}, "image"),
        ({"images": "missing.png"}, "Expected a file at missing.png"),
        ({"class_names": ["a"]}, "Expected the names of the model's 2 classes, got 1"),
        ({"class_names": "ab"}, "Expected class_names to be a list or a tuple, got str"),
        ({"class_names": [1, 2]}, "Expected class_names"),
        ({"effects": 1}, "Expected effects to be True or False, got 1"),
    ],
)
def test_wrong_arguments_are_refused(change, message):
    model, variables = made("gray")
    given = {"model": model, "variables": variables, "images": pictures(1)} | change
    with unchecked(), pytest.raises(UserError, match=re.escape(message)):
        explain.explorer(**given)


def test_a_model_without_clusters_or_classes_is_refused():
    for overrides, message in (({"clusters": (0, 0, 0, 0)}, "with clusters"), ({"num_classes": 0}, "with a classifier")):
        model = create_model("pacavit_nano", **(explored.SMALL | overrides))
        with pytest.raises(UserError, match=f"Expected a model {message}, got one"):
            explain.explorer(model, {"params": {}}, pictures(1))


def test_outputs_that_are_not_finite_name_the_picture(tmp_path):
    model, variables = made("gray")
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan, variables)
    with pytest.raises(UserError, match=r"picture 1: Expected finite outputs of the model"):
        explain.explorer(model, broken, [Image.new("L", (40, 40), 80)])
