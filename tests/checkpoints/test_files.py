"""State dicts in files."""

import argparse
import builtins
import hashlib
import json

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from paca_jax.checkpoints.description import Description
from paca_jax.checkpoints.files import read_state_dict, read_weights, write_state_dict
from paca_jax.errors import UserError
from tests.shapes import unchecked

STATE = {
    "head.weight": np.arange(12, dtype=np.float32).reshape(3, 4) / 7,
    "head.bias": np.array([1, 2, 3], np.float32),
    "decode_head.proj.bn.num_batches_tracked": np.array(5, np.int64),
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
    assert loaded["decode_head.proj.bn.num_batches_tracked"].dtype == torch.int64
    torch.nn.Linear(4, 3).load_state_dict({key[5:]: value for key, value in loaded.items() if key.startswith("head")})


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_description_of_the_model_is_kept(tmp_path, suffix):
    if suffix != ".safetensors":
        pytest.importorskip("torch")
    recipe = {"name": "pacavit_nano", "num_classes": 3, "clusters": [1, 2, 3, 0], "layer_scale": None}
    names = ("Käfer", "虫", "cat")
    write_state_dict(tmp_path / f"with{suffix}", STATE, recipe, names)
    write_state_dict(tmp_path / f"recipe{suffix}", STATE, recipe)
    write_state_dict(tmp_path / f"without{suffix}", STATE)
    assert read_weights(tmp_path / f"with{suffix}").description == Description(recipe, names)
    assert read_weights(tmp_path / f"recipe{suffix}").description == Description(recipe)
    assert read_weights(tmp_path / f"without{suffix}").description == Description()
    _assert_equal(read_state_dict(tmp_path / f"with{suffix}"), STATE)


def test_a_description_of_another_file_is_not_used_and_said(tmp_path):
    pytest.importorskip("torch")
    write_state_dict(tmp_path / "a.pth", STATE, {"name": "pacavit_nano"})
    write_state_dict(tmp_path / "b.pth", {"head.bias": STATE["head.bias"]})
    (tmp_path / "b.pth").replace(tmp_path / "a.pth")
    read = read_weights(tmp_path / "a.pth")
    assert read.description == Description()
    assert any("a.pth.json describes another content of a.pth" in note for note in read.notes)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"sha256": 5, "paca_jax": []}'])
def test_a_damaged_description_is_told(tmp_path, content):
    pytest.importorskip("torch")
    write_state_dict(tmp_path / "a.pth", STATE)
    (tmp_path / "a.pth.json").write_bytes(content)
    if b"sha256" in content:
        checksum = hashlib.sha256((tmp_path / "a.pth").read_bytes()).hexdigest()
        (tmp_path / "a.pth.json").write_bytes(content.replace(b"5", f'"{checksum}"'.encode()))
    with pytest.raises(UserError, match=r"(description of a model|JSON object) in .*a\.pth\.json"):
        read_state_dict(tmp_path / "a.pth")


@pytest.mark.parametrize("header", ["[1]", '{"nome": "x"}', "{", '{"name": 3}'])
def test_a_damaged_header_is_told(tmp_path, header):
    (tmp_path / "a.safetensors").write_bytes(safetensors.numpy.save(STATE, {"paca_jax": header}))
    with pytest.raises(UserError, match=r"(description of a model|JSON object) in .*a\.safetensors"):
        read_state_dict(tmp_path / "a.safetensors")


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
        state = {"module.backbone.head.bias": torch.tensor([0.5, -3.0], dtype=dtype)}
        checkpoint = {"epoch": 3, "args": argparse.Namespace(lr=0.1), "optimizer": {"state": {}}, key: state}
        torch.save(checkpoint, tmp_path / "w.pth")
        _assert_equal(read_state_dict(tmp_path / "w.pth"), {"head.bias": np.array([0.5, -3.0], np.float32)})


def test_a_prefix_that_not_all_names_have_stays(tmp_path):
    state = {"backbone.norm1.bias": STATE["head.bias"], "decode_head.conv_seg.bias": STATE["head.bias"]}
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


def test_what_holds_no_state_dict_is_told(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pth")
    with pytest.raises(UserError, match="no state dict but a Linear"):
        read_state_dict(tmp_path / "whole.pth")
    torch.save({"state_dict": torch.nn.Linear(2, 2)}, tmp_path / "inner.pth")
    with pytest.raises(UserError, match="'state_dict' hold no array"):
        read_state_dict(tmp_path / "inner.pth")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(UserError, match="no state dict but a list"):
        read_state_dict(tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "epoch.pth")
    with pytest.raises(UserError, match="'epoch' hold no array"):
        read_state_dict(tmp_path / "epoch.pth")


def test_missing_files_and_other_endings_are_told(tmp_path):
    with pytest.raises(UserError, match="Expected a file at"):
        read_state_dict(tmp_path / "none.safetensors")
    np.savez(tmp_path / "weights.npz", **STATE)
    with pytest.raises(UserError, match=r"no PyTorch file, or a damaged one \(an archive without data\.pkl\)"):
        read_state_dict(tmp_path / "weights.npz")
    with pytest.raises(UserError, match=r"ends in \.safetensors, \.pth, \.pt"):
        write_state_dict(tmp_path / "weights", STATE)
    (tmp_path / "eight.safetensors").write_bytes(safetensors.numpy.save({"a": np.zeros(2, np.uint16)}))
    with pytest.raises(UserError, match="U16"):
        read_state_dict(tmp_path / "eight.safetensors")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("state", "told"),
    [
        (None, "Expected a state dict, got NoneType"),
        ({}, "it is empty"),
        ({1: np.zeros(3)}, "1 hold no array"),
        ({"a": "text"}, "'a' hold no array"),
        ({"a": np.array([object()])}, "'a' hold no array of numbers"),
        ({"a": np.array(["text"])}, "'a' hold no array of numbers"),
        ({"a\nb": np.zeros(3)}, "Expected printable names"),
    ],
)
def test_only_state_dicts_are_written(tmp_path, suffix, state, told):
    path = tmp_path / f"w{suffix}"
    with unchecked(), pytest.raises(UserError, match=told):
        write_state_dict(path, state)
    assert not path.exists()


@pytest.mark.parametrize("path", [None, 7, b"w.safetensors", "", "gs://bucket/w.safetensors"])
def test_weights_are_written_to_paths_on_this_machine(path):
    with unchecked(), pytest.raises(UserError, match="Expected a path"):
        write_state_dict(path, STATE)


def test_without_torch_the_extra_is_named(tmp_path, monkeypatch):
    true_import = builtins.__import__

    def no_torch(name, *args, **kwargs):
        if name == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return true_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_torch)
    (tmp_path / "w.pth").write_bytes(b"\x80\x02}.")
    with pytest.raises(UserError, match=r"pip install paca-jax\[torch\]"):
        read_state_dict(tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"pip install paca-jax\[torch\]"):
        write_state_dict(tmp_path / "new.pth", STATE)
    assert not (tmp_path / "new.pth").exists()


@pytest.mark.parametrize("name", ["model_best.pth.tar", "last.CKPT", "pytorch_model.bin", "weights", "W.PTH", "x.safetensors"])
@pytest.mark.parametrize("written", SUFFIXES)
def test_the_kind_of_a_file_is_known_by_its_content(tmp_path, name, written):
    if written != ".safetensors":
        pytest.importorskip("torch")
    write_state_dict(tmp_path / f"a{written}", STATE)
    (tmp_path / f"a{written}").rename(tmp_path / name)
    _assert_equal(read_state_dict(tmp_path / name), STATE)


def _split(folder, files=("model-1.safetensors", "model-2.safetensors")):
    parts = [{key: STATE[key]} for key in list(STATE)[:2]]
    for file, part in zip(files, parts, strict=True):
        (folder / file).write_bytes(safetensors.numpy.save(part))
    places = {key: file for file, part in zip(files, parts, strict=True) for key in part}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return index, {key: STATE[key] for key in places}


def test_a_split_state_dict_is_read_by_its_index(tmp_path):
    index, state = _split(tmp_path)
    _assert_equal(read_state_dict(index), state)
    _assert_equal(read_state_dict(tmp_path), state)


@pytest.mark.parametrize("file", ["../a.safetensors", "/etc/passwd", "", 3, "..\\a"])
def test_an_index_names_only_files_beside_it(tmp_path, file):
    index, _ = _split(tmp_path)
    index.write_text(json.dumps({"weight_map": {"head.bias": file}}))
    with pytest.raises(UserError, match="names of files beside"):
        read_state_dict(index)


def test_an_index_that_its_files_do_not_fit_is_told(tmp_path):
    index, _ = _split(tmp_path)
    (tmp_path / "model-2.safetensors").write_bytes(safetensors.numpy.save({"other": STATE["head.bias"]}))
    with pytest.raises(UserError, match=r"got 1 \(first difference: head\.bias\)"):
        read_state_dict(index)
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(UserError, match="Expected a file at"):
        read_state_dict(index)
    for wrong in ("{}", '{"weight_map": []}', '{"weight_map": {"a": "model.safetensors.index.json"}}', '{"weight_map'):
        index.write_text(wrong)
        with pytest.raises(UserError, match=r"an index of weights|JSON object in|no safetensors or PyTorch file"):
            read_state_dict(index)


@pytest.mark.parametrize("first", [ord("{"), ord(" "), 0x80, ord("P")])
def test_a_header_of_any_length_is_one_of_safetensors(tmp_path, first):
    data = safetensors.numpy.save(STATE)
    end = 8 + int.from_bytes(data[:8], "little")
    header = data[8:end].rstrip()
    header += b" " * ((first - len(header)) % 256)
    data = len(header).to_bytes(8, "little") + header + data[end:]
    (tmp_path / "w.safetensors").write_bytes(data)
    _assert_equal(read_state_dict(tmp_path / "w.safetensors"), STATE)


@pytest.mark.parametrize("names", ["abc", b"abc", 3, [1, 2, 3], {"a": 1}])
def test_names_of_classes_are_texts(tmp_path, names):
    with unchecked(), pytest.raises(UserError, match="Expected class_names to be"):
        write_state_dict(tmp_path / "w.safetensors", STATE, class_names=names)
    assert not list(tmp_path.iterdir())
