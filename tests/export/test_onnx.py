"""ONNX: the same program, run by ONNX Runtime. What needs no converter is tested without it."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import paca_jax
from paca_jax import ops
from paca_jax.errors import UserError
from paca_jax.export.flat import flattened
from paca_jax.models import TeacherConfig
from tests import golden
from tests.export.small import NAMES, pixels, small
from tests.shapes import unchecked

MODELS = {
    "classifier": ("pacavit_nano", {}),
    "gray": ("pacavit_nano", {"image_channels": 1}),
    "teacher": ("pacavit_nano", {"clusters": (4, 4, 4, 4), "teacher": TeacherConfig((1, 1, 1, 1))}),
    "PaCa head": ("pacahead_nano", {"head_channels": 16, "short_side": 64, "long_side": 96}),
    "UPerNet": ("upernet_nano", {"head_channels": 16, "short_side": 64, "long_side": 96}),
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), MODELS.values(), ids=MODELS.keys())
def test_onnx_runtime_computes_the_model(name, options, tmp_path):
    for package in ("jax2onnx", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed (extra onnx)")
    import onnxruntime

    model = small(name, **options)
    variables = golden.random_variables(model)
    with unchecked():
        done = paca_jax.export.onnx(model, variables, tmp_path / "new", NAMES)
    assert done.largest_difference <= 1e-4
    assert done.packages.keys() == {"python", "numpy", "onnxruntime"}
    described = json.loads((tmp_path / "new" / "export.json").read_text())
    assert described["program"] == "program.onnx"
    assert described["class_names"] == list(NAMES)
    images = pixels(2, 40, 57, model.config.image_channels)
    session = onnxruntime.InferenceSession(tmp_path / "new" / "program.onnx")
    (logits,) = session.run(["logits"], {"images": images})
    np.testing.assert_allclose(logits, jax.jit(model.apply)(variables, ops.normalize(images)), atol=1e-4)


@pytest.mark.slow
def test_onnx_runtime_finds_what_the_detector_finds(tmp_path):
    pytest.importorskip("jax2onnx", reason="jax2onnx is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra onnx)")
    options = {"head_channels": 16, "box_channels": 16, "candidates": 50, "proposals": 20, "detections": 10}
    model = small("mask_rcnn_nano", short_side=64, long_side=96, **options)
    variables = golden.random_variables(model)
    with unchecked():
        done = paca_jax.export.onnx(model, variables, tmp_path / "new", size=(64, 96))
    assert done.largest_difference <= 1e-4
    assert done.images == ((1, 64, 96, 3),) * 3
    described = json.loads((tmp_path / "new" / "export.json").read_text())
    assert described["inputs"]["images"]["shape"] == [1, 64, 96, 3]
    images, sizes = jnp.array(pixels(1, 64, 96, 3)), jnp.array([[64, 80]], jnp.int32)
    names = list(described["outputs"])
    session = onnxruntime.InferenceSession(tmp_path / "new" / "program.onnx")
    found = dict(zip(names, session.run(names, {"images": np.array(images), "sizes": np.array(sizes)}), strict=True))
    assert found["valid"].any()
    expected = jax.jit(model.clone(implementation="xla").apply)(variables, ops.normalize_inside(images, sizes), sizes)
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-3, err_msg=name)


def test_a_flattened_function_calls_no_other():
    model = small(implementation="xla")
    variables, images = golden.random_variables(model), jax.ShapeDtypeStruct((1, 32, 32, 3), "float32")
    function = flattened(lambda images: {"logits": model.apply(variables, images)}, [images])
    called = {equation.primitive.name for equation in jax.make_jaxpr(function)(images).eqns}
    assert not {name for name in called if "jit" in name or "call" in name or name.startswith(("checkpoint", "remat"))}
    given = np.random.default_rng(0).standard_normal(images.shape, np.float32)
    np.testing.assert_allclose(jax.jit(function)(given)["logits"], jax.jit(model.apply)(variables, given), atol=1e-4)


def test_what_onnx_does_not_take_is_refused(tmp_path):
    export, new = paca_jax.export.onnx, tmp_path / "new"
    with pytest.raises(UserError, match="Expected a model that computes in float32, got one in bfloat16"):
        export(small(dtype="bfloat16"), {}, new)
    assert not new.exists()


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(UserError, match=r"needs the package jax2onnx.* pip install paca-jax\[onnx\]"):
        paca_jax.export.onnx(small(), {}, tmp_path / "new")
    assert not (tmp_path / "new").exists()
