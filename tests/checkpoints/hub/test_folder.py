"""The folder of a repository: a model that loads again bit for bit, and a card that claims only what was measured."""

import json
import re

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import safetensors.numpy
from etils import epath
from PIL import Image

import paca_jax
from paca_jax.checkpoints import load, read_state_dict, write_hub_folder
from paca_jax.checkpoints.hub import run as run_record
from paca_jax.checkpoints.loading import read_model
from paca_jax.checkpoints.workdir import open_manager
from paca_jax.errors import UserError
from tests.checkpoints.hub.conftest import NAMES, RECIPES
from tests.runs import ROOT

PICTURE = b"\x89PNG picture"


def assert_equal(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def front_matter(text):
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load(text.split("---\n")[1])


@pytest.mark.parametrize("kind", RECIPES)
def test_a_model_loads_again_bit_for_bit(written, tmp_path, kind):
    file, model, variables = written[kind]
    loaded = write_hub_folder(file, tmp_path / "out", "me/net")
    assert (loaded.model, loaded.class_names) == (model, NAMES)
    again = read_model(tmp_path / "out")
    assert (again.model, again.class_names, again.notes) == (model, NAMES, [])
    assert again.recipe == json.loads(json.dumps(RECIPES[kind]))
    assert_equal(again.variables, variables)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["README.md", "config.json", "model.safetensors"]


@pytest.mark.parametrize("kind", RECIPES)
def test_the_config_alone_describes_classes_and_size(written, tmp_path, kind):
    file, model, variables = written[kind]
    write_hub_folder(file, tmp_path, "me/net")
    safetensors.numpy.save_file(safetensors.numpy.load_file(tmp_path / "model.safetensors"), tmp_path / "model.safetensors")
    given = {key: value for key, value in RECIPES[kind].items() if key not in ("name", "image_size", "short_side", "long_side")}
    again = read_model(tmp_path, RECIPES[kind]["name"], **given)
    assert again.class_names == NAMES
    assert not any("normalizes" in note or "does not say the size" in note for note in again.notes)
    side = "image_size" if kind == "classifier" else "short_side"
    assert getattr(again.model.config, side) == getattr(model.config, side)
    assert_equal(again.variables, variables)


def test_the_config(written, tmp_path):
    write_hub_folder(written["classifier"][0], tmp_path / "a", "me/net")
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config["paca_jax"] == json.loads(json.dumps(RECIPES["classifier"]))
    assert config["architectures"] == ["PaCaViT"]
    assert config["num_classes"] == 3
    assert config["id2label"] == {"0": "cat", "1": "dog | wolf", "2": "Käfer"}
    assert config["label2id"] == {"cat": 0, "dog | wolf": 1, "Käfer": 2}
    assert config["image_size"] == 48
    assert config["pretrained_cfg"]["input_size"] == [3, 48, 48]
    assert config["pretrained_cfg"]["mean"] == [0.485, 0.456, 0.406]
    write_hub_folder(written["classifier"][0], tmp_path / "b", "me/net", class_names=["crane", "crane", "\udcff"])
    config = json.loads((tmp_path / "b" / "config.json").read_bytes())
    assert config["id2label"] == {"0": "crane", "1": "crane", "2": "\udcff"}
    assert "label2id" not in config


@pytest.mark.parametrize(
    ("kind", "pipeline"),
    [("classifier", "image-classification"), ("segmentor", "image-segmentation"), ("detector", "object-detection")],
)
def test_the_card(written, tmp_path, kind, pipeline):
    loaded = write_hub_folder(written[kind][0], tmp_path, "me/net", license="cc-by-nc-4.0")
    text = (tmp_path / "README.md").read_text()
    assert front_matter(text) == {
        "library_name": "paca-jax",
        "pipeline_tag": pipeline,
        "license": "cc-by-nc-4.0",
        "tags": ["paca-jax", "jax", "flax", "vision-transformer", RECIPES[kind]["name"]],
    }
    assert f"| parameters | {sum(leaf.size for leaf in jax.tree.leaves(loaded.variables['params'])):,} |" in text
    assert "| classes | 3: cat, dog \\| wolf, Käfer |" in text
    assert "No evaluation of these weights is recorded." in text
    assert "paca predict --checkpoint=hf://me/net photo.jpg --out=seen" in text
    assert "grainger2023paca" in text
    assert "The license of these weights is not stated" not in text
    assert ".png" not in text


def test_without_a_license_the_card_says_so(written, tmp_path):
    write_hub_folder(written["classifier"][0], tmp_path, "me/net")
    text = (tmp_path / "README.md").read_text()
    assert "license" not in front_matter(text)
    assert "The license of these weights is not stated." in text


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow]) for kind in RECIPES])
def test_the_code_of_the_card_runs(written, tmp_path, monkeypatch, kind):
    write_hub_folder(written[kind][0], tmp_path / "me", "me/net")
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "me" / "README.md").read_text(), re.DOTALL)
    Image.new("RGB", (60, 80), "red").save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paca_jax, "load", lambda address: load({"hf://me/net": "me"}[address]))
    names = {}
    exec(code, names)
    if kind == "detector":
        assert names["found"]["boxes"].shape == (1, 5, 4)
        assert {"boxes", "scores", "labels", "masks", "valid"} <= names["found"].keys()
    else:
        assert names["logits"].shape == {"classifier": (1, 3), "segmentor": (1, 22, 16, 3)}[kind]


def test_pytorch_reads_the_weights(written, tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    write_hub_folder(written["classifier"][0], tmp_path, "me/net")
    state, expected = load_file(tmp_path / "model.safetensors"), read_state_dict(written["classifier"][0])
    assert state.keys() == expected.keys()
    for name, tensor in state.items():
        torch.testing.assert_close(tensor, torch.from_numpy(np.array(expected[name])), rtol=0, atol=0)


@pytest.fixture(scope="module")
def workdir(written, tmp_path_factory):
    """The workdir of a finished run of 8 steps with averaged weights, whose best evaluation came after step 4."""
    place = tmp_path_factory.mktemp("run")
    _, _, variables = written["classifier"]
    dataset = {"name": "my_photos", "data_dir": "/home/me/secret", "train_split": "train", "eval_split": "test[:72]"}
    recipe = json.loads(json.dumps(RECIPES["classifier"]))
    with open_manager(place) as manager:
        for step in (2, 4, 8):
            metadata = {"model": recipe, "class_names": list(NAMES), "step": step, "config": {"dataset": dataset}}
            raw, averaged = (jax.tree.map(lambda leaf: leaf + factor * step, variables) for factor in (1, 2))  # noqa: B023
            items = {"variables": ocp.args.StandardSave(raw), "ema": ocp.args.StandardSave(averaged)}
            manager.save(step, args=ocp.args.Composite(**items, metadata=ocp.args.JsonSave(metadata)))
    (place / "clusters.png").write_bytes(PICTURE)
    write_report(place)
    return place


def write_report(place, **changes):
    content = {
        "model": json.loads(json.dumps(RECIPES["classifier"])),
        "steps": 8,
        "last": {"step": 8, "eval/loss": 1.25, "eval/accuracy": 0.625, "eval/other": None},
        "best": {"step": 4, "eval/accuracy": 0.75},
    }
    (place / "report.json").write_text(json.dumps(content | changes))


def card_of(source, folder, **options):
    write_hub_folder(source, folder, "me/net", **options)
    return (folder / "README.md").read_text()


def test_the_card_of_a_finished_run(workdir, written, tmp_path):
    text = card_of(workdir, tmp_path)
    assert "| accuracy | 0.625 |" in text
    assert "| loss | 1.25 |" in text
    assert "other" not in text
    assert "after step 8, on my\\_photos, split test\\[:72\\]:" in text
    assert "8 steps, weights averaged over them" in text
    assert "](clusters.png)" in text
    assert (tmp_path / "clusters.png").read_bytes() == PICTURE
    assert "secret" not in text + (tmp_path / "config.json").read_text()
    _, variables = load(tmp_path)
    assert_equal(variables, jax.tree.map(lambda leaf: leaf + 16, written["classifier"][2]))


def test_the_picture_can_be_left_out(workdir, tmp_path):
    assert ".png" not in card_of(workdir, tmp_path, picture=False)
    assert not (tmp_path / "clusters.png").exists()


def test_only_what_was_measured_is_claimed(workdir, tmp_path):
    raw = card_of(workdir, tmp_path / "raw", weights="raw")
    assert "No evaluation of these weights is recorded." in raw
    assert "averaged" not in raw
    assert ".png" not in raw
    best = card_of(workdir / "checkpoints" / "4", tmp_path / "best")
    assert "| accuracy | 0.75 |" in best
    assert "0.625" not in best
    assert ".png" not in best
    early = card_of(workdir / "checkpoints" / "2", tmp_path / "early")
    assert "No evaluation of these weights is recorded." in early
    file = card_of(tmp_path / "raw" / "model.safetensors", tmp_path / "file")
    assert "No evaluation of these weights is recorded." in file


@pytest.mark.parametrize(
    "changes", [{"model": {"name": "pacavit_nano"}}, {"last": None, "best": 3, "steps": 7}, {"last": {"step": 7}}]
)
def test_a_report_on_something_else_is_not_used(workdir, tmp_path, changes):
    try:
        write_report(workdir, **changes)
        assert "No evaluation of these weights is recorded." in card_of(workdir, tmp_path)
    finally:
        write_report(workdir)


def test_a_damaged_report_is_told(workdir, tmp_path):
    try:
        (workdir / "report.json").write_text("{")
        with pytest.raises(UserError, match=r"Expected a JSON object in .*report\.json"):
            write_hub_folder(workdir, tmp_path / "out", "me/net")
        assert not (tmp_path / "out").exists()
    finally:
        write_report(workdir)


def test_the_report_is_the_one_that_runs_write():
    # Importing it would load TensorFlow.
    assert f'REPORT_FILE = "{run_record.REPORT_FILE}"' in (ROOT / "paca_jax/train/report.py").read_text()


def test_what_cannot_be_written_is_told(written, tmp_path, monkeypatch):
    file = written["classifier"][0]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    for place in (tmp_path / "full", tmp_path / "full" / "mine.txt"):
        with pytest.raises(UserError, match="Expected a new or empty folder"):
            write_hub_folder(file, place, "me/net")
    with pytest.raises(UserError, match="Expected a folder on this machine"):
        write_hub_folder(file, "gs://bucket/net", "me/net")
    for repository in ("net", "me/net/x", "me/", "hf://me/net", None):
        with pytest.raises(UserError, match="Expected a repository of the Hugging Face Hub, OWNER/NAME"):
            write_hub_folder(file, tmp_path / "new", repository)
    for license in ("", "MIT License", "mit\ntags: [x]", 3):
        with pytest.raises(UserError, match="Expected a license in the words of the Hub"):
            write_hub_folder(file, tmp_path / "new", "me/net", license=license)
    for source, told in (
        (tmp_path / "none", "There is nothing to load"),
        ("a" * 5000, "There is nothing to load|Expected a file or folder"),
        (3, "Expected a path or a name to load from"),
    ):
        with pytest.raises(UserError, match=told):
            write_hub_folder(source, tmp_path / "new", "me/net")
    assert not (tmp_path / "new").exists()


def test_a_failure_leaves_nothing(written, tmp_path, monkeypatch):
    def fail(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("paca_jax.checkpoints.hub.folder.write_state_dict", fail)
    with pytest.raises(KeyboardInterrupt):
        write_hub_folder(written["classifier"][0], epath.Path(tmp_path / "new"), "me/net")
    assert not list((tmp_path / "new").iterdir())
