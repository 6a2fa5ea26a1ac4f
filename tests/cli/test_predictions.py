"""The folder of predictions: nothing in it is lost that `paca predict` did not write."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from paca_jax import create_model
from paca_jax.checkpoints import write_state_dict
from paca_jax.cli.pictures.predict import main
from paca_jax.convert import to_torch
from tests import golden

SMALL = {"embed_dims": [16, 16, 32, 32], "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}
SEGMENTOR = {"name": "pacahead_nano", "num_classes": 3, "short_side": 32, "long_side": 64, "head_channels": 8, **SMALL}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    place = tmp_path_factory.mktemp("weights") / "w.safetensors"
    model = create_model(**SEGMENTOR)
    write_state_dict(place, to_torch(golden.random_variables(model), model), SEGMENTOR)
    return place


@pytest.fixture
def folder(tmp_path):
    """A folder with the pictures a.png and b.png."""
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(tmp_path / name)
    return tmp_path


@pytest.fixture
def predict(weights, folder, capsys):
    """Returns a function that predicts for files of the folder, and returns the status and the output on standard error."""

    def run(*names, out=".", flags=()):
        arguments = [*(str(folder / name) for name in names), "--checkpoint", str(weights), "--out", str(folder / out), *flags]
        try:
            main(arguments)
            status = 0
        except SystemExit as ended:
            status = ended.code
        return status, capsys.readouterr().err

    return run


def _files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _refused(result, *names):
    status, error = result
    return status == 2 and error.count("\n") == 1 and all(name in error for name in names)


@pytest.mark.parametrize("name", ["a.mask.png", "b.overlay.png", "b.clusters.png"])
def test_files_of_others_are_replaced_only_when_asked(folder, predict, name):
    (folder / name).write_bytes(b"ground truth")
    before = _files(folder)
    assert _refused(predict("a.png", "b.png"), name, "--overwrite")
    assert _files(folder) == before
    assert predict("a.png", "b.png", flags=["--overwrite"])[0] == 0
    assert (folder / name).read_bytes() != b"ground truth"


@pytest.mark.parametrize("flags", [[], ["--overwrite"]])
@pytest.mark.parametrize("link", [False, True])
def test_a_picture_of_the_command_is_never_replaced(folder, predict, flags, link):
    if link:
        (folder / "a.mask.png").symlink_to("b.png")
        pictures = "a.png", "b.png"
    else:
        shutil.copy(folder / "b.png", folder / "a.mask.png")
        pictures = "a.png", "a.mask.png"
    before = _files(folder)
    assert _refused(predict(*pictures, flags=flags), "a.mask.png")
    assert _files(folder) == before


def test_the_same_command_can_be_repeated_and_a_corrected_mask_stays(folder, predict):
    assert predict("a.png", "b.png", out="out")[0] == 0
    before = _files(folder)
    assert predict("a.png", "b.png", out="out")[0] == 0
    assert _files(folder) == before
    Image.new("P", (50, 40)).save(folder / "out" / "a.mask.png")
    corrected = _files(folder)
    assert _refused(predict("a.png", "b.png", out="out"), "a.mask.png")
    assert _files(folder) == corrected


@pytest.mark.parametrize("again", [("a.png",), ("b.png",), ("a.png", "b.png", "c.png")])
def test_predictions_for_other_pictures_are_not_lost(folder, predict, again):
    shutil.copy(folder / "a.png", folder / "c.png")
    assert predict("a.png", "b.png", out="out")[0] == 0
    before = _files(folder)
    if len(again) < 2:
        assert _refused(predict(*again, out="out"), "predictions.json", "--overwrite")
        assert _files(folder) == before
        assert predict(*again, out="out", flags=["--overwrite"])[0] == 0
    else:
        assert predict(*again, out="out")[0] == 0
    found = json.loads((folder / "out" / "predictions.json").read_text())
    assert list(found) == [*(str(folder / name) for name in again), "files/"]


@pytest.mark.parametrize("broken", ["a.png", "b.png"])
def test_a_failed_command_keeps_earlier_predictions(folder, predict, broken):
    assert predict("a.png", "b.png", out="out")[0] == 0
    before = json.loads((folder / "out" / "predictions.json").read_text())
    (folder / broken).write_bytes(b"no picture")
    assert _refused(predict("a.png", "b.png", out="out"), broken)
    assert json.loads((folder / "out" / "predictions.json").read_text()) == before


@pytest.mark.parametrize("content", ["", "[]", '{"a.png"', '{"a": 3}', '{"images": [1]}', "[" * 100_000])
def test_a_file_of_that_name_with_something_else_is_kept(folder, predict, content):
    (folder / "predictions.json").write_text(content)
    before = _files(folder)
    assert _refused(predict("a.png"), "predictions.json")
    assert _files(folder) == before
    assert predict("a.png", flags=["--overwrite"])[0] == 0


def test_predictions_of_earlier_versions_are_replaced_by_those_for_the_same_pictures(folder, predict):
    earlier = {str(folder / "a.png"): [{"name": "class 0", "share": 1.0}]}
    (folder / "predictions.json").write_text(json.dumps(earlier))
    assert predict("a.png")[0] == 0
    assert [entry["name"] for entry in json.loads((folder / "predictions.json").read_text())["files/"]] == [
        "a.mask.png",
        "a.overlay.png",
        "a.clusters.png",
    ]


@pytest.mark.parametrize("name", ["two\nlines.png", "caf\udce9.png", "虫.png"])
def test_names_of_any_bytes(folder, predict, name):
    shutil.copy(folder / "a.png", folder / name)
    assert predict(name, out="out") == (0, "")
    assert list(json.loads((folder / "out" / "predictions.json").read_text())) == [str(folder / name), "files/"]


def test_a_pipe_is_no_picture(folder, predict):
    os.mkfifo(folder / "pipe.png")
    assert _refused(predict("pipe.png", out="out"), "pipe.png", "a pipe")


@pytest.mark.parametrize("taken", ["out", "out/predictions.json/x"])
def test_a_folder_that_cannot_be_written_is_named(folder, predict, taken):
    (folder / taken).parent.mkdir(parents=True, exist_ok=True)
    (folder / taken).write_text("")
    assert _refused(predict("a.png", out="out"), str(folder / "out"))
