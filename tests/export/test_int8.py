"""Kernels as 8-bit integers: in the file, and of the model that the program is compared with."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import paca_jax
from paca_jax import ops
from paca_jax.errors import UserError
from paca_jax.export.certification.comparison import rounding
from paca_jax.export.weights import Rounded, restored, rounded
from tests import golden
from tests.export.small import NAMES, pixels, small
from tests.shapes import unchecked


def is_rounded(leaf):
    return isinstance(leaf, Rounded)


def leaves(tree):
    return jax.tree.leaves(tree, is_leaf=is_rounded)


def by_hand(variables):
    """Returns the variables with rounded kernels, by a formula of its own."""
    flat, tree = jax.tree_util.tree_flatten_with_path(variables)
    leaves = []
    for path, leaf in flat:
        columns = np.asarray(leaf, np.float64).reshape(-1, leaf.shape[-1]) if leaf.ndim > 1 else np.zeros((0, 1))
        if "kernel" in str(path[-1]) and len(columns) >= 64:
            steps = abs(columns).max(0) / 127
            leaf = (np.rint(columns / steps) * steps).reshape(leaf.shape).astype(np.float32)
        leaves.append(leaf)
    return jax.tree.unflatten(tree, leaves)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """Returns a model, its variables, the folder of its export and the certificate."""
    model, folder = small(), tmp_path_factory.mktemp("int8") / "new"
    variables = golden.random_variables(model)
    return model, variables, folder, paca_jax.export.stablehlo(model, variables, folder, NAMES, weight_dtype="int8")


def test_the_file_holds_the_integers(classifier):
    _, variables, folder, _ = classifier
    program = jax.export.deserialize(bytearray((folder / "program.stablehlo").read_bytes()))
    stored = re.findall(r"stablehlo\.constant dense<.*?> : tensor<([\dx]+)xi8>", program.mlir_module())
    assert set(stored) == {"x".join(map(str, leaf.integers.shape)) for leaf in leaves(rounded(variables)) if is_rounded(leaf)}
    assert json.loads((folder / "export.json").read_text())["weight_dtype"] == "int8"


def test_the_program_is_the_model_with_rounded_kernels(classifier):
    model, variables, folder, done = classifier
    program = jax.export.deserialize(bytearray((folder / "program.stablehlo").read_bytes()))
    images = pixels(2, 40, 57, 3)
    run = jax.jit(model.apply)
    expected = run(by_hand(variables), ops.normalize(images))
    np.testing.assert_allclose(program.call(images)["logits"], expected, atol=1e-4)
    assert np.max(np.abs(expected - run(variables, ops.normalize(images)))) > 1e-3
    written = json.loads((folder / "certificate.json").read_text())
    assert written["weight_dtype"] == "int8"
    assert written["largest_difference"] <= written["tolerance"] == 1e-4
    assert written["rounding"] == {"agreement": done.rounding.agreement, "differences": done.rounding.differences}
    assert done.rounding.differences["logits"] > 1e-3


def test_kernels_are_rounded_to_the_nearest_of_255_values_and_nothing_else_is():
    variables = golden.random_variables(small())
    seen = set()
    for ours, (path, own) in zip(leaves(rounded(variables)), jax.tree_util.tree_flatten_with_path(variables)[0], strict=True):
        seen.add(type(ours))
        if is_rounded(ours):
            assert ours.integers.dtype == jnp.int8
            assert int(jnp.max(jnp.abs(ours.integers))) == 127
            assert np.all(np.abs(restored(ours) - own) <= ours.scale * 0.5001)
        else:
            assert ours is own
            assert path[-1].key != "kernel" or own[..., 0].size < 64
    assert len(seen) == 2


def test_a_channel_of_zeros_stays_one_and_one_that_is_not_finite_is_spoiled():
    kernel = np.ones((64, 3), np.float32)
    kernel[:, 1], kernel[5, 2] = 0, np.inf
    back = np.asarray(restored(rounded({"params": {"kernel": kernel}}))["params"]["kernel"])
    assert (back[:, 0] == 1).all()
    assert (back[:, 1] == 0).all()
    assert not np.isfinite(back[:, 2]).any()


def test_agreement_counts_classes_and_detections():
    def found(boxes, labels, valid):
        return {"boxes": np.array([boxes], np.float32), "labels": np.array([labels]), "valid": np.array([valid])}

    own = [{"logits": np.array([[1.0, 2.0], [4.0, 3.0]])}]
    other = [{"logits": np.array([[2.0, 1.0], [4.0, 3.5]])}]
    assert rounding(own, other).agreement == 0.5
    assert rounding(own, other).differences == {"logits": 0.25}
    assert rounding([{"features": np.ones((1, 2))}], [{"features": np.ones((1, 2))}]).agreement is None
    boxes = [[0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50], [60, 60, 70, 70]]
    moved = [[20, 20, 30, 34], [0, 0, 10, 10], [40, 40, 50, 50], [60, 60, 70, 70]]
    own, other = [found(boxes, [1, 2, 3, 4], [1, 1, 1, 0])], [found(moved, [2, 7, 3, 4], [1, 1, 0, 1])]
    own[0]["valid"], other[0]["valid"] = own[0]["valid"] > 0, other[0]["valid"] > 0
    done = rounding(own, other)  # the first has another class, the second moved, the third is not valid, the fourth was none
    assert done.agreement == pytest.approx(1 / 3)
    assert done.differences == {}
    own[0]["valid"][:] = False
    assert rounding(own, other).agreement is None


@pytest.mark.slow
def test_a_detector(tmp_path):
    options = {"head_channels": 16, "box_channels": 16, "candidates": 50, "proposals": 20, "detections": 10}
    model = small("mask_rcnn_nano", short_side=64, long_side=96, **options)
    with unchecked():
        done = paca_jax.export.stablehlo(model, golden.random_variables(model), tmp_path / "new", weight_dtype="int8")
    assert done.largest_difference <= 1e-4
    assert 0 < done.rounding.agreement <= 1


@pytest.mark.slow
def test_onnx_keeps_the_integers(classifier, tmp_path):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed (extra onnx)")
    pytest.importorskip("jax2onnx", reason="jax2onnx is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra onnx)")
    model, variables, _, stablehlo = classifier
    with unchecked():
        done = paca_jax.export.onnx(model, variables, tmp_path / "new", weight_dtype="int8")
    assert done.rounding == stablehlo.rounding
    file = tmp_path / "new" / "program.onnx"
    integers = [tensor for tensor in onnx.load(file).graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    expected = sum(leaf.integers.size for leaf in leaves(rounded(variables)) if is_rounded(leaf))
    assert sum(int(np.prod(tensor.dims)) for tensor in integers) == expected
    images = pixels(2, 40, 57, 3)
    (logits,) = onnxruntime.InferenceSession(file).run(["logits"], {"images": images})
    np.testing.assert_allclose(logits, jax.jit(model.apply)(by_hand(variables), ops.normalize(images)), atol=1e-4)


def test_bad_input_leaves_nothing(tmp_path):
    model, new = small(), tmp_path / "new"
    variables = golden.random_variables(model)
    with unchecked(), pytest.raises(UserError, match="Expected weight_dtype to be one of float32, int8, got 'int4'"):
        paca_jax.export.stablehlo(model, variables, new, weight_dtype="int4")
    broken = jax.tree.map(np.array, variables)
    broken["params"]["stage1"]["block0"]["mlp"]["fc2"]["kernel"][0, 0] = np.nan
    with pytest.raises(UserError, match="Expected finite outputs of the model, got NaN or infinity"):
        paca_jax.export.stablehlo(model, broken, new, weight_dtype="int8")
    assert not new.exists()
