"""PyTorch's files: what training scripts leave beside the weights is inert, and nothing is executed."""

import argparse
import builtins
import collections
import contextlib
import datetime
import functools
import io
import os
import pathlib
import pickle
import subprocess
import sys
import types
import zipfile

import numpy as np
import pytest
from PIL import Image

from paca_jax import create_model
from paca_jax.checkpoints import load, read_state_dict
from paca_jax.checkpoints.initial import initial_variables
from paca_jax.cli import convert
from paca_jax.cli.pictures import predict
from paca_jax.convert import to_torch
from paca_jax.errors import UserError
from tests import golden

torch = pytest.importorskip("torch")

SIZES = {"embed_dims": (8, 8, 16, 16), "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2), "clusters": (4, 4, 0, 0)}
FORMATS = {"zip": {}, "legacy": {"_use_new_zipfile_serialization": False}}
WEIGHTS = {"head.bias": np.array([0.5, -3.0], np.float32)}


class Calls:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *arguments, state=None):
        self._reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self._reduced


def payloads(marker):
    """Returns objects that make the file `marker` when they are unpickled with their real classes."""
    touch = f"touch {marker}"
    write = f"open({str(marker)!r}, 'w').close()"
    return {
        "os.system": Calls(os.system, touch),
        "eval": Calls(builtins.eval, write),
        "exec": Calls(builtins.exec, write),
        "subprocess": Calls(subprocess.check_call, ["touch", str(marker)]),
        "open": Calls(builtins.open, str(marker), "w"),
        "nested": {"list": [(1, {"deep": Calls(builtins.eval, write)})]},
        "in arguments": Calls(str, Calls(builtins.eval, write)),
        "in a state": Calls(argparse.Namespace, state={"x": Calls(os.system, touch)}),
        "by getattr": Calls(functools.partial(os.system, touch)),
        "method": Calls(pathlib.Path(marker).touch),
    }


def _tensors(state):
    return {key: torch.from_numpy(np.array(value)) for key, value in state.items()}


def _attempt(function):
    """Runs a function that may refuse its input."""
    with contextlib.suppress(UserError):
        function()


@pytest.mark.parametrize("name", payloads("x"))
@pytest.mark.parametrize("kind", FORMATS)
def test_a_malicious_file_executes_nothing(tmp_path, name, kind):
    marker, path = tmp_path / "marker", tmp_path / "w.pth"
    payload = payloads(marker)[name]
    contents = [payload, {"state_dict": _tensors(WEIGHTS), "args": payload}, {**_tensors(WEIGHTS), "extra": payload}, [payload]]
    for content in contents:
        torch.save(content, path, **FORMATS[kind])
        _attempt(lambda: read_state_dict(path))
        assert not marker.exists()
    with contextlib.suppress(TypeError):
        torch.load(path, weights_only=False)
    assert marker.exists()  # so the payload does what it says


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", ["os.system", "eval", "nested", "subprocess"])
def test_no_place_where_a_file_is_given_executes_it(tmp_path, kind, name):
    model = create_model("pacavit_nano", num_classes=2, **SIZES)
    marker, path, picture = tmp_path / "marker", tmp_path / "pacavit_nano.pth", tmp_path / "picture.png"
    Image.new("RGB", (32, 32)).save(picture)
    state = _tensors(to_torch(golden.random_variables(model), model))
    torch.save({"state_dict": state, "args": payloads(marker)[name]}, path, **FORMATS[kind])
    _attempt(lambda: load(path, "pacavit_nano", **SIZES))
    _attempt(lambda: initial_variables(str(path), model, ()))
    with pytest.raises(SystemExit):  # as its widths are those of no named model
        convert.main([str(path), str(tmp_path / "out.safetensors")])
    with pytest.raises(SystemExit):
        predict.main(["--checkpoint", str(path), str(picture), "--out", str(tmp_path / "out")])
    assert not marker.exists()


def _raw(kind, stream):
    """Returns a file whose object is given by the opcodes of a pickle."""
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("archive/data.pkl", stream)
            archive.writestr("archive/version", "3\n")
        return buffer.getvalue()
    torch.save(None, buffer, _use_new_zipfile_serialization=False)
    head = buffer.getvalue()
    return head[: head.index(b"\x80\x02N.")] + stream + pickle.dumps([], 2)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    "stream",
    [
        b"\x80\x02cposix\nsystem\nX\x05\x00\x00\x00touch\x85R.",
        b"\x80\x02c__builtin__\neval\nX\x05\x00\x00\x00touch\x85R.",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x05touch\x85R.",
        b"(S'touch'\nios\nsystem\n.",
        b"\x80\x02(cposix\nsystem\nX\x05\x00\x00\x00touchtQR.",
        b"\x80\x02\x82\x01.",
        b"\x80\x02}X\x01\x00\x00\x00aN]s.",
        b"\x80\x02h\x05.",
        b"\x80\x02cposix\nsystem\nb.",
        b"\x80\x02",
    ],
    ids=["reduce", "python 2 name", "protocol 4", "inst", "persistent id", "extension", "no item", "no memo", "build", "cut"],
)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_any_opcodes_are_refused_in_one_sentence(tmp_path, kind, stream, monkeypatch):
    monkeypatch.setattr(os, "system", lambda command: pytest.fail("it was called"))
    (tmp_path / "w.pth").write_bytes(_raw(kind, stream.replace(b"touch", b"echo ")))
    with pytest.raises(UserError) as caught:
        read_state_dict(tmp_path / "w.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["zip", "head of the legacy format"])
def test_code_in_another_part_of_a_file_is_not_run(tmp_path, part):
    marker, path = tmp_path / "marker", tmp_path / "w.pth"
    code = pickle.dumps(payloads(marker)["os.system"], 2)
    if part == "zip":
        torch.save(_tensors(WEIGHTS), path)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("other/data.pkl", code)
    else:
        path.write_bytes(code + code + code + code)
    _attempt(lambda: read_state_dict(path))
    assert not marker.exists()


class HistoryBuffer:
    def __init__(self):
        self.values, self.scalar = np.arange(3.0), np.float64(2.5)


class Config(dict):
    """As addict's and mmengine's, a dictionary with attributes."""

    def __setstate__(self, state):
        raise AssertionError("the real class was made")


class Items(list):
    pass


class Flag:
    def __new__(cls, value):
        raise AssertionError("the real class was made")


def _flag():
    return object.__new__(Flag)


COMPANIONS = {
    "numpy scalars": {"best": np.float64(81.5), "step": np.int64(3), "array": np.ones((2, 2)), "dtype": np.dtype("float16")},
    "HistoryBuffer": {"message_hub": {"log_scalars": collections.OrderedDict({"train/loss": HistoryBuffer()})}},
    "paths": {"folder": pathlib.PurePosixPath("/a/b"), "dir": pathlib.PosixPath("/c")},
    "Namespace": {"args": argparse.Namespace(lr=0.1, dtype=torch.bfloat16, path=pathlib.PosixPath("/c"))},
    "ConfigDict": {"cfg": Config(model=Config(depths=[1, 2]), names=Items("ab"))},
    "standard containers": {
        "q": collections.deque([1, 2], 5),
        "d": collections.defaultdict(list, a=[1]),
        "s": {1},
        "f": {2: 3},
    },
    "moments": {"at": datetime.datetime(2024, 1, 2), "date": datetime.timedelta(3)},
    "functions": {"fn": os.path.join, "partial": functools.partial(max, 1), "class": Flag},
    "objects of __new__": {"flag": _flag()},
    "optimizer": {"optimizer": torch.optim.SGD([torch.nn.Parameter(torch.ones(2))]).state_dict()},
}


@pytest.mark.parametrize("name", COMPANIONS)
@pytest.mark.parametrize("kind", FORMATS)
def test_what_training_scripts_save_beside_the_weights_is_passed_over(tmp_path, name, kind):
    content = {**COMPANIONS[name], "state_dict": _tensors(WEIGHTS), "after": COMPANIONS[name]}
    torch.save(content, tmp_path / "w.pth", **FORMATS[kind])
    np.testing.assert_array_equal(read_state_dict(tmp_path / "w.pth")["head.bias"], WEIGHTS["head.bias"])


def test_a_class_that_the_process_allowed_is_not_made_either(tmp_path):
    torch.save({"state_dict": _tensors(WEIGHTS), "cfg": _flag(), "d": Config(a=1)}, tmp_path / "w.pth")
    with torch.serialization.safe_globals([Flag, Config]):
        allowed = set(torch.serialization.get_safe_globals())
        np.testing.assert_array_equal(read_state_dict(tmp_path / "w.pth")["head.bias"], WEIGHTS["head.bias"])
        assert set(torch.serialization.get_safe_globals()) == allowed


def test_a_whole_module_beside_the_weights_is_passed_over_or_named(tmp_path):
    content = {"net": torch.nn.Linear(2, 2), "state_dict": _tensors(WEIGHTS)}
    torch.save(content, tmp_path / "w.pth")
    np.testing.assert_array_equal(read_state_dict(tmp_path / "w.pth")["head.bias"], WEIGHTS["head.bias"])
    torch.save(content, tmp_path / "w.pth", **FORMATS["legacy"])
    with pytest.raises(UserError, match=r"not opened for safety \(Only persistent_load of storage is allowed"):
        read_state_dict(tmp_path / "w.pth")


def test_a_class_that_is_not_installed_is_no_hindrance(tmp_path, monkeypatch):
    module = types.ModuleType("mmengine_of_another_machine.logging")
    module.Buffer = type("Buffer", (), {"__module__": module.__name__})
    monkeypatch.setitem(sys.modules, "mmengine_of_another_machine", types.ModuleType("mmengine_of_another_machine"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    torch.save({"state_dict": _tensors(WEIGHTS), "hub": [module.Buffer()]}, tmp_path / "w.pth")
    monkeypatch.undo()
    np.testing.assert_array_equal(read_state_dict(tmp_path / "w.pth")["head.bias"], WEIGHTS["head.bias"])


def test_a_file_that_holds_itself_ends_in_one_sentence(tmp_path):
    content = {"epoch": 3}
    content["model"] = content
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(UserError, match="hold no array"):
        read_state_dict(tmp_path / "w.pth")
    content["head.bias"] = torch.ones(2)
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(UserError, match="hold no array"):
        read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize(
    "make", [lambda t: t.to_sparse(), lambda t: t.to("meta"), lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8)]
)
@pytest.mark.filterwarnings("ignore")
def test_a_tensor_without_plain_values_is_told(tmp_path, make):
    torch.save({"head.bias": make(torch.ones(2))}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"Expected a dense tensor for head\.bias in"):
        read_state_dict(tmp_path / "w.pth")
