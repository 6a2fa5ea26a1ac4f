"""StableHLO: a folder whose program is the model, run without this library."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import paca_jax
from paca_jax import ops
from paca_jax.errors import UserError
from paca_jax.export.certification import certificate, isolated
from paca_jax.export.program import make_program
from tests import golden
from tests.export.small import NAMES, pixels, small
from tests.runs import ROOT, run_code
from tests.shapes import unchecked

PHOTO = ROOT / "datasets" / "photographs" / "test" / "sunset.jpg"


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """Returns a model, its variables, the folder of its export and the certificate."""
    model, folder = small(), tmp_path_factory.mktemp("export") / "new"
    variables = golden.random_variables(model)
    return model, variables, folder, paca_jax.export.stablehlo(model, variables, folder, NAMES)


def load(folder):
    return jax.export.deserialize(bytearray((folder / "program.stablehlo").read_bytes()))


def test_the_folder_says_what_the_program_takes_and_returns(classifier):
    folder = classifier[2]
    assert sorted(path.name for path in folder.iterdir()) == ["certificate.json", "export.json", "program.stablehlo"]
    described = json.loads((folder / "export.json").read_text())
    assert described["program"] == "program.stablehlo"
    assert described["inputs"] == {"images": {"shape": ["batch", "height", "width", 3], "dtype": "uint8"}}
    assert described["outputs"] == {"logits": {"shape": ["batch", 3], "dtype": "float32"}}
    assert described["class_names"] == list(NAMES)
    assert described["preprocessing"]["center_crop"] == [32, 32]


def test_the_certificate_is_of_this_program(classifier):
    _, _, folder, returned = classifier
    written = json.loads((folder / "certificate.json").read_text())
    assert written["sha256"] == hashlib.sha256((folder / "program.stablehlo").read_bytes()).hexdigest()
    assert written["largest_difference"] == returned.largest_difference <= written["tolerance"] == 1e-4
    assert written["images"] == [[3, 32, 32, 3], [1, 32, 32, 3]]
    assert len(written["pictures"]) == 3
    assert written["packages"]["jax"] == jax.__version__


def test_one_program_is_for_three_platforms_and_holds_no_kernel_and_no_path(classifier):
    program = load(classifier[2])
    assert program.platforms == ("cpu", "cuda", "tpu")
    assert set(re.findall(r"custom_call @(\w+)", program.mlir_module())) == {"shape_assertion"}
    assert str(ROOT).encode() not in (classifier[2] / "program.stablehlo").read_bytes()


def test_it_takes_images_of_any_number_and_size(classifier):
    model, variables, folder, _ = classifier
    images = pixels(2, 40, 57, 3)
    expected = jax.jit(model.apply)(variables, ops.normalize(images))
    np.testing.assert_allclose(load(folder).call(images)["logits"], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "told"),
    [(1.5, r"at most 0\.0001, got {'logits': \d"), (np.nan, "Expected finite outputs of the model, got NaN")],
)
def test_a_program_of_other_weights_is_no_export(classifier, tmp_path, change, told):
    model, variables, folder, _ = classifier
    file = shutil.copy(folder / "program.stablehlo", tmp_path)
    others = jax.tree.map(lambda leaf: leaf * change, variables)
    with pytest.raises(UserError, match=told):
        certificate.certify(make_program(model, others, None), Path(file), model, others)


def test_the_process_that_runs_it_cannot_import_this_library(tmp_path):
    code = f"""
        import runpy, sys
        sys.argv = ["isolated.py", "{tmp_path}/none.stablehlo", "none.npz", "none.npz"]
        try:
            runpy.run_path({isolated.__file__!r}, run_name="__main__")
        except FileNotFoundError:
            pass
        try:
            import paca_jax
        except ModuleNotFoundError:
            print("shut out")
    """
    assert run_code(code) == "shut out\n"


def test_the_guide_runs_it(classifier, tmp_path):
    shutil.copytree(classifier[2], tmp_path / "exported")
    shutil.copy(PHOTO, tmp_path / "photo.jpg")
    text = (ROOT / "docs" / "export.md").read_text()
    code = re.search(r"```python\n(import json.*?)```", text, re.DOTALL)[1]
    assert "paca_jax" not in code
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] in NAMES


@pytest.mark.slow
def test_a_segmentor(tmp_path):
    model = small("pacahead_nano", head_channels=16, short_side=64, long_side=96)
    variables = golden.random_variables(model)
    with unchecked():
        paca_jax.export.stablehlo(model, variables, tmp_path / "new")
    described = json.loads((tmp_path / "new" / "export.json").read_text())
    assert described["preprocessing"]["resize"]["fit_into"] == {"short_side": 64, "long_side": 96}
    assert described["class_names"] is None
    images = pixels(1, 50, 71, 3)
    logits = load(tmp_path / "new").call(images)["logits"]
    assert logits.shape == (1, 13, 18, 3)
    np.testing.assert_allclose(logits, jax.jit(model.apply)(variables, ops.normalize(images)), atol=1e-4)


@pytest.mark.slow
def test_a_detector_with_suppression_inside(tmp_path):
    options = {"head_channels": 16, "box_channels": 16, "candidates": 50, "proposals": 20, "detections": 10}
    model = small("mask_rcnn_nano", short_side=64, long_side=96, **options)
    variables = golden.random_variables(model)
    with unchecked():
        done = paca_jax.export.stablehlo(model, variables, tmp_path / "new")
    assert done.differences.keys() == {"boxes", "scores", "labels", "masks", "valid"}
    images, sizes = jnp.array(pixels(2, 96, 96, 3)), jnp.array([[96, 96], [64, 80]])
    found = load(tmp_path / "new").call(images, sizes)
    assert found["valid"].any()
    expected = jax.jit(model.clone(implementation="xla").apply)(variables, ops.normalize_inside(images, sizes), sizes)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3), found, expected)


def test_wrong_arguments_leave_nothing(classifier, tmp_path):
    model, variables, folder, _ = classifier
    export, new = paca_jax.export.stablehlo, tmp_path / "new"
    with unchecked():
        with pytest.raises(UserError, match="Expected a model of create_model or load, got dict"):
            export({}, variables, new)
        with pytest.raises(UserError, match="Expected a detector with a size, got a classifier"):
            export(model, variables, new, size=(32, 32))
        with pytest.raises(UserError, match="Expected the names of 3 classes, got 2"):
            export(model, variables, new, ["a", "b"])
        with pytest.raises(UserError, match="Expected a new or empty folder"):
            export(model, variables, folder)
        with pytest.raises(UserError, match="collection 'params'"):
            export(model, {}, new)
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_no_part_of_it(classifier, tmp_path, monkeypatch):
    model, variables, _, _ = classifier
    from paca_jax.export import folder as module

    def write(path, content):
        if path.name == "certificate.json":
            raise KeyboardInterrupt
        path.write_bytes(content)

    (tmp_path / "new").mkdir()
    monkeypatch.setattr(module, "write_file", write)
    with pytest.raises(KeyboardInterrupt):
        paca_jax.export.stablehlo(model, variables, tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []
