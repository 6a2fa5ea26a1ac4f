"""State dicts in files."""

import argparse
import builtins

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from paca_jax.checkpoints.files import read_recipe, read_state_dict, write_state_dict
from paca_jax.errors import UserError

STATE = {
    "head.weight": np.arange(12, dtype=np.float32).reshape(3, 4) / 7,
    "head.bias": np.array([1, 2, 3], np.float32),
    "norm.num_batches_tracked": np.array(5, np.int64),
}
SUFFIXES = [".safetensors", ".pth", ".pt"]


def _assert_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    for key in ours:
        assert ours[key].dtype == theirs[key].dtype
        np.testing.assert_array_equal(ours[key], theirs[key])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_state_dict_comes_back_and_leaves_no_other_file(tmp_path, suffix):
    if suffix != ".safetensors":
        pytest.importorskip("torch")
    path = tmp_path / "folder" / f"weights{suffix}"
    write_state_dict(path, STATE)
    _assert_equal(read_state_dict(path), STATE)
    assert list(path.parent.iterdir()) == [path]


def test_pth_is_a_plain_state_dict_for_torch(tmp_path):
    torch = pytest.importorskip("torch")
    write_state_dict(tmp_path / "weights.pth", STATE)
    loaded = torch.load(tmp_path / "weights.pth", weights_only=True)
    assert list(loaded) == list(STATE)
    assert loaded["norm.num_batches_tracked"].dtype == torch.int64
    torch.nn.Linear(4, 3).load_state_dict({key[5:]: value for key, value in loaded.items() if key.startswith("head")})


def test_the_recipe_is_kept_in_safetensors(tmp_path):
    recipe = {"name": "pacavit_nano", "num_classes": 10, "clusters": [1, 2, 3, 0], "layer_scale": None}
    write_state_dict(tmp_path / "with.safetensors", STATE, recipe)
    write_state_dict(tmp_path / "without.safetensors", STATE)
    assert read_recipe(tmp_path / "with.safetensors") == recipe
    assert read_recipe(tmp_path / "without.safetensors") is None
    _assert_equal(safetensors.numpy.load_file(tmp_path / "with.safetensors"), STATE)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, jnp.bfloat16])
def test_safetensors_floats_are_widened(tmp_path, dtype):
    array = np.array([0.5, -3.0], dtype)
    (tmp_path / "w.safetensors").write_bytes(safetensors.numpy.save({"a": array}))
    read = read_state_dict(tmp_path / "w.safetensors")["a"]
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, [0.5, -3.0])


def test_torch_floats_are_widened_and_checkpoints_unwrapped(tmp_path):
    torch = pytest.importorskip("torch")
    for key, dtype in {"state_dict": torch.bfloat16, "model": torch.float16, "state_dict_ema": torch.float64}.items():
        state = {"module.backbone.a": torch.tensor([0.5, -3.0], dtype=dtype)}
        checkpoint = {"epoch": 3, "args": argparse.Namespace(lr=0.1), "optimizer": {"state": {}}, key: state}
        torch.save(checkpoint, tmp_path / "w.pth")
        _assert_equal(read_state_dict(tmp_path / "w.pth"), {"a": np.array([0.5, -3.0], np.float32)})


def test_a_prefix_that_not_all_names_have_stays(tmp_path):
    state = {"backbone.a": STATE["head.bias"], "decode_head.b": STATE["head.bias"]}
    write_state_dict(tmp_path / "w.safetensors", state)
    _assert_equal(read_state_dict(tmp_path / "w.safetensors"), state)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_a_cut_file_is_told(tmp_path, suffix, kept):
    if suffix != ".safetensors":
        pytest.importorskip("torch")
    path = tmp_path / f"weights{suffix}"
    write_state_dict(path, STATE)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"weights\.\w+ is no .* file") as caught:
        read_state_dict(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", [b"<!DOCTYPE html><html>Not Found</html>", b"\x80\x02}q\x00.", bytes(1000), b"\x80\x05N."])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_file_of_another_kind_is_told(tmp_path, suffix, content):
    if suffix != ".safetensors":
        pytest.importorskip("torch")
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_state_dict(path)
    assert "\n" not in str(caught.value)


def test_objects_in_a_pth_are_not_opened(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"state_dict": {"a": torch.zeros(1)}, "model": torch.nn.Linear(2, 2)}, tmp_path / "whole.pth")
    with pytest.raises(UserError, match="other Python objects"):
        read_state_dict(tmp_path / "whole.pth")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(UserError, match="no state dict but a list"):
        read_state_dict(tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "epoch.pth")
    with pytest.raises(UserError, match="'epoch' hold no array"):
        read_state_dict(tmp_path / "epoch.pth")


def test_missing_files_and_other_endings_are_told(tmp_path):
    with pytest.raises(UserError, match="There is no file"):
        read_state_dict(tmp_path / "none.safetensors")
    with pytest.raises(UserError, match=r"ends in \.safetensors, \.pth, \.pt"):
        read_state_dict(tmp_path / "weights.npz")
    with pytest.raises(UserError, match=r"ends in \.safetensors, \.pth, \.pt"):
        write_state_dict(tmp_path / "weights", STATE)
    (tmp_path / "eight.safetensors").write_bytes(safetensors.numpy.save({"a": np.zeros(2, np.uint16)}))
    with pytest.raises(UserError, match="U16"):
        read_state_dict(tmp_path / "eight.safetensors")


def test_without_torch_the_extra_is_named(tmp_path, monkeypatch):
    true_import = builtins.__import__

    def no_torch(name, *args, **kwargs):
        if name == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return true_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_torch)
    (tmp_path / "w.pth").write_bytes(b"")
    with pytest.raises(UserError, match=r"pip install paca-jax\[torch\]"):
        read_state_dict(tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"pip install paca-jax\[torch\]"):
        write_state_dict(tmp_path / "new.pth", STATE)
    assert not (tmp_path / "new.pth").exists()
