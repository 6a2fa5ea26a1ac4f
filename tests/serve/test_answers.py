"""Uploads of pictures get the answers of `paca predict`, alone and together with others."""

import io
import json
import logging
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from PIL import Image

from paca_jax.cli.pictures.predict import main as predict
from paca_jax.serve import answering
from tests.explain.explored import content as data_of_page
from tests.serve.conftest import LIMITS, RECIPES
from tests.serve.running import Gate, picture, until

pytestmark = pytest.mark.xdist_group("servers")

SIZES = ((50, 37), (61, 90))
KINDS = list(RECIPES)


@pytest.fixture(scope="module")
def predicted(places, tmp_path_factory):
    """A function that returns the entries of `paca predict`, and the folder that it wrote to."""

    def run(kind):
        root = tmp_path_factory.mktemp(kind)
        paths = [root / f"{number}.png" for number in range(len(SIZES))]
        for path, size in zip(paths, SIZES, strict=True):
            path.write_bytes(picture(size))
        predict(["--checkpoint", str(places[kind]), *map(str, paths), "--out", str(root / "out")])
        found = json.loads((root / "out" / "predictions.json").read_text())
        return [found[str(path)] for path in paths], root / "out"

    return run


def agree(found, expected):
    assert [entry["name"] for entry in found] == [entry["name"] for entry in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for value in one.keys() - {"name"}:
            side = max(map(max, SIZES)) if value == "box" else 1  # boxes are in pixels
            assert one[value] == pytest.approx(other[value], rel=1e-5, abs=1e-5 * side)


@pytest.mark.parametrize("kind", KINDS)
def test_a_prediction_is_that_of_the_command(servers, predicted, kind):
    for size, expected in zip(SIZES, predicted(kind)[0], strict=True):
        assert expected
        reply = servers[kind].post("/predict", picture(size))
        assert reply.status == 200
        agree(reply.json["predictions"], expected)


def test_a_mask_is_that_of_the_command(servers, predicted):
    folder = predicted("segmentor")[1]
    for number, size in enumerate(SIZES):
        reply = servers["segmentor"].post("/mask", picture(size))
        assert (reply.status, reply.headers["content-type"]) == (200, "image/png")
        found = Image.open(io.BytesIO(reply.body))
        assert (found.mode, found.size) == ("P", size[::-1])
        np.testing.assert_array_equal(found, Image.open(folder / f"{number}.mask.png"))


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_that_wait_are_computed_together(servers, kind, monkeypatch):
    server, gate = servers[kind], Gate(servers[kind].answering, monkeypatch)
    uploads = [picture(size, seed) for seed in range(3) for size in SIZES]
    with ThreadPoolExecutor(len(uploads) + 1) as clients:
        first = clients.submit(server.post, "/predict", uploads[0])
        until(lambda: gate.batches)
        others = [clients.submit(server.post, "/predict", upload) for upload in uploads]
        until(lambda: server.application.batcher.waiting == len(uploads))
        gate.open()
        together = [reply.result().json["predictions"] for reply in (first, *others)]
    assert sum(gate.batches) == len(uploads) + 1
    assert max(gate.batches) > 1
    assert max(gate.batches) <= LIMITS.batch_size
    for upload, found in zip((uploads[0], *uploads), together, strict=True):
        agree(found, server.post("/predict", upload).json["predictions"])


@pytest.mark.parametrize("kind", KINDS)
def test_an_explorer_shows_the_picture_and_its_answer(servers, kind):
    reply = servers[kind].post("/explore", picture(), name="<b>secret</b>.png")
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert "secret" not in reply.body.decode()
    data = data_of_page(reply.body.decode())
    assert data["model"] == kind
    assert [each["name"] for each in data["pictures"]] == ["picture 1"]
    expected = servers[kind].post("/predict", picture()).json["predictions"]
    if kind == "classifier":
        names = [data["classNames"][label] for label in data["pictures"][0]["answer"]["labels"]]
        assert names[: len(expected)] == [entry["name"] for entry in expected]


@pytest.mark.parametrize("kind", ["jpeg", "webp", "png"])
def test_pictures_come_in_three_formats(server, kind):
    assert server.post("/predict", picture(kind=kind)).status == 200


def test_the_metadata_have_names_and_limits(servers):
    found = servers["segmentor"].get("/metadata").json
    assert (found["model"], found["task"]) == ("upernet_nano", "segmentation")
    assert found["classes"] == ["class 0", "class 1", "class 2"]
    assert found["limits"]["batch_size"] == 4
    assert found["routes"] == ["/", "/metadata", "/healthz", "/predict", "/mask", "/explore"]
    assert servers["detector"].get("/healthz").json == {"ready": True, "requests": 0, "waiting": 0}


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_has_a_button_for_each_answer(servers, kind):
    reply = servers[kind].get("/")
    assert (reply.status, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
    for path in ("predict", "explore"):
        assert f'formaction="{path}"' in reply.body.decode()
    assert ('formaction="mask"' in reply.body.decode()) == (kind == "segmentor")


def test_pictures_of_ever_new_shapes_do_not_fill_the_memory(servers, monkeypatch):
    cleared, server = [], servers["segmentor"]
    monkeypatch.setattr(answering, "MOST_PROGRAMS", 1)
    monkeypatch.setattr(jax, "clear_caches", lambda: cleared.append(True))
    replies = [server.post("/predict", picture(size)).json for size in (*SIZES, *SIZES)]
    assert len(cleared) >= 3
    assert replies[:2] == replies[2:]


def test_explorers_of_a_classifier_share_their_programs(server, monkeypatch):
    cleared = []
    server.post("/explore", picture())
    monkeypatch.setattr(answering, "MOST_PROGRAMS", 1)
    monkeypatch.setattr(jax, "clear_caches", lambda: cleared.append(True))
    for size in ((50, 37), *SIZES):
        assert server.post("/explore", picture(size)).status == 200
    assert len(cleared) <= 1


def test_after_the_warm_up_a_classifier_compiles_nothing(server, caplog):
    server.answering.warm_up()
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        assert server.post("/predict", picture((70, 41))).status == 200
        assert "Compiling" not in caplog.text
        jax.jit(lambda x: x + 1)(np.zeros(7))
        assert "Compiling" in caplog.text
