"""PyTorch's zip files are read as PyTorch reads them, without it."""

import argparse
import collections
import datetime
import io
import pickle
import sys
import zipfile

import numpy as np
import pytest

from paca_jax.checkpoints import read_state_dict
from paca_jax.errors import UserError
from tests.shapes import unchecked

torch = pytest.importorskip("torch")

FLOATS = ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"]
INTEGERS = ["int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64", "bool"]
DTYPES = [*FLOATS, "float8_e8m0fnu", *INTEGERS, "complex64", "complex128"]
WEIGHTS = {"head.bias": torch.tensor([0.5, -3.0])}


def _as_numpy(tensor):
    return (tensor.float() if tensor.is_floating_point() else tensor).detach().resolve_conj().numpy()


def _assert_as_torch_reads_it(path):
    expected = torch.load(path, weights_only=True)
    found = read_state_dict(path)
    assert list(found) == list(expected)
    for name, array in found.items():
        assert array.dtype == _as_numpy(expected[name]).dtype
        np.testing.assert_array_equal(array, _as_numpy(expected[name]))


def _rewrite(path, changes, compression=zipfile.ZIP_STORED):
    """Writes an archive again, with members changed: {end of the name: function of its bytes}; None leaves a member out."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            change = next((change for end, change in changes.items() if name.endswith(end)), lambda content: content)
            if change is not None:
                archive.writestr(name, change(content))


def _write_pickle(path, stream, **others):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", stream)
        archive.writestr("archive/data/0", bytes(16))
        for name, content in others.items():
            archive.writestr(f"archive/{name}", content)


class Rebuilt:
    """Is pickled as a call of one of PyTorch's functions."""

    def __init__(self, function, *arguments):
        self._reduced = (function, arguments)

    def __reduce__(self):
        return self._reduced


def _view(storage, offset, size, stride):
    rebuild = torch._utils._rebuild_tensor_v2
    return Rebuilt(rebuild, storage, offset, size, stride, False, collections.OrderedDict())


def _numbers(dtype):
    numbers = torch.arange(1.0, 13).reshape(3, 4)
    return (
        torch.complex(numbers, -numbers).to(getattr(torch, dtype)) if "complex" in dtype else numbers.to(getattr(torch, dtype))
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_of_number_is_read(tmp_path, dtype):
    torch.save({"head.weight": _numbers(dtype)}, tmp_path / "w.pth")
    _assert_as_torch_reads_it(tmp_path / "w.pth")


def _views():
    base = torch.arange(120.0).reshape(2, 3, 4, 5)
    return {
        "transposed": base.transpose(0, 3),
        "permuted": base.permute(3, 1, 0, 2),
        "channels last": base.contiguous(memory_format=torch.channels_last),
        "sliced": base[1, 1:, ::2, 3],
        "one of many": base[1, 2, 3, 4],
        "expanded": base[0, 0, 0].expand(7, 5),
        "windows": base.flatten().unfold(0, 10, 3),
        "empty": base[:0],
        "empty of other shape": torch.empty(3, 0, 2),
        "no dimensions": torch.tensor(3.5),
        "a number of steps": torch.tensor(7),
        "parameter": torch.nn.Parameter(base[0]),
        "bytes as floats": torch.arange(16, dtype=torch.uint8).view(torch.float32),
    }


@pytest.mark.parametrize("name", _views())
def test_every_view_is_read(tmp_path, name):
    torch.save({"head.weight": _views()[name], "head.bias": torch.ones(2)}, tmp_path / "w.pth")
    _assert_as_torch_reads_it(tmp_path / "w.pth")


def test_views_of_one_storage_are_read_and_do_not_share_what_is_returned(tmp_path):
    base = torch.arange(24.0).reshape(4, 6)
    torch.save({"a": base, "b": base.t(), "c": base[1:3, 2:], "d": base, "e": torch.nn.Parameter(base)}, tmp_path / "w.pth")
    _assert_as_torch_reads_it(tmp_path / "w.pth")
    found = read_state_dict(tmp_path / "w.pth")
    found["a"][:] = 0
    np.testing.assert_array_equal(found["d"], base.numpy())


def test_tensors_with_attributes_and_parameters_with_a_state_are_read(tmp_path):
    marked, parameter = torch.arange(3.0), torch.nn.Parameter(torch.arange(4.0))
    marked.note, parameter.note = "a", {"b": 1}
    torch.save({"a": marked, "b": parameter}, tmp_path / "w.pth")
    _assert_as_torch_reads_it(tmp_path / "w.pth")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_the_state_dict_of_a_module_is_read(tmp_path, protocol):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.PReLU()).double()
    state = module.state_dict()
    assert state._metadata  # of the OrderedDict, as its state in the pickle
    torch.save(state, tmp_path / "w.pth", pickle_protocol=protocol)
    found = read_state_dict(tmp_path / "w.pth")
    assert list(found) == list(state)
    assert all(np.array_equal(found[name], _as_numpy(tensor)) for name, tensor in state.items())


class Average:
    def __init__(self):
        self.values = collections.deque([1.0, 2.0], maxlen=20)


def test_a_training_checkpoint_is_read_without_torch(tmp_path, monkeypatch):
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    checkpoint = {
        "epoch": np.int64(3),
        "best": np.float64(81.5),
        "args": argparse.Namespace(lr=0.1, dtype=torch.bfloat16, device=torch.device("cpu"), since=datetime.datetime.now()),
        "optimizer": optimizer.state_dict(),
        "meters": collections.defaultdict(Average, loss=Average()),
        "rng": [torch.get_rng_state(), np.random.default_rng(0).bit_generator.state, {1, 2}, frozenset("a"), b"x", 1j],
        "by pair": {(1, "a"): 2, None: 3, 2**70: 4},
        "model": collections.OrderedDict((f"module.head.{name}", tensor) for name, tensor in module.state_dict().items()),
    }
    torch.save(checkpoint, tmp_path / "w.pth")
    torch.save(checkpoint, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    expected = {f"head.{name}": _as_numpy(tensor) for name, tensor in module.state_dict().items()}
    monkeypatch.setitem(sys.modules, "torch", None)
    found = read_state_dict(tmp_path / "w.pth")
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], array) for name, array in expected.items())
    with pytest.raises(UserError, match=r"old\.pth.* needs PyTorch.*pip install paca-jax\[torch\]"):
        read_state_dict(tmp_path / "old.pth")


class State(dict):
    pass


def test_a_mapping_of_an_unknown_class_is_one(tmp_path):
    torch.save(State(state_dict=State(WEIGHTS)), tmp_path / "w.pth")
    np.testing.assert_array_equal(read_state_dict(tmp_path / "w.pth")["head.bias"], [0.5, -3])


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if not dtype.startswith("uint")])
def test_an_archive_of_another_byte_order_is_read(tmp_path, dtype):
    path, numbers = tmp_path / "w.pth", _numbers(dtype)
    torch.save({"head.weight": numbers.t(), "head.bias": numbers[1]}, path)
    width = numbers.element_size() // (2 if numbers.is_complex() else 1)
    expected = read_state_dict(path)
    _rewrite(
        path,
        {"byteorder": lambda _: b"big", "data/0": lambda data: np.frombuffer(data, f"u{width}").byteswap().tobytes()},
    )
    _assert_as_torch_reads_it(path)
    assert all(np.array_equal(array, expected[name], equal_nan=True) for name, array in read_state_dict(path).items())
    _rewrite(path, {"byteorder": lambda _: b"middle"})
    with pytest.raises(UserError, match="a byte order of 'middle'"):
        read_state_dict(path)


def test_files_of_earlier_versions_have_no_byte_order(tmp_path):
    torch.save(WEIGHTS, tmp_path / "w.pth")
    _rewrite(tmp_path / "w.pth", dict.fromkeys(("byteorder", ".format_version", ".storage_alignment", "serialization_id")))
    np.testing.assert_array_equal(read_state_dict(tmp_path / "w.pth")["head.bias"], [0.5, -3])


def test_an_archive_that_was_packed_again_is_read(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"head.weight": torch.arange(5000.0)}, path)
    _rewrite(path, {}, zipfile.ZIP_DEFLATED)
    np.testing.assert_array_equal(read_state_dict(path)["head.weight"], np.arange(5000, dtype=np.float32))
    for compression in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        _rewrite(path, {}, compression)
        with pytest.raises(UserError, match=r"w\.pth .* compressed in another way"):
            read_state_dict(path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_member_is_not_read_beyond_its_size(tmp_path, compression):
    path = tmp_path / "w.pth"
    torch.save({"head.weight": torch.zeros(1 << 20)}, path)
    _rewrite(path, {}, compression)
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02", 0, data.rindex(b"/data/0"))
    data[entry + 24 : entry + 28] = (16).to_bytes(4, "little")  # of 4 MiB
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"Bad CRC-32 .*data/0"):
        read_state_dict(path)


@pytest.mark.parametrize("length", [0, 1, 7, 9, 1000])
def test_a_storage_has_the_size_that_the_pickle_says(tmp_path, length):
    torch.save(WEIGHTS, tmp_path / "w.pth")
    _rewrite(tmp_path / "w.pth", {"data/0": lambda data: bytes(length)})
    if length == 9:  # as PyTorch writes a float that begins in a storage of odd bytes
        assert read_state_dict(tmp_path / "w.pth")["head.bias"].shape == (2,)
        return
    with pytest.raises(UserError, match=rf"w\.pth .*a storage of {length} bytes for 2 elements of float32"):
        read_state_dict(tmp_path / "w.pth")


def test_a_missing_storage_is_told(tmp_path):
    torch.save(WEIGHTS, tmp_path / "w.pth")
    _rewrite(tmp_path / "w.pth", {"data/0": None})
    with pytest.raises(UserError, match=r"w\.pth .*data/0"):
        read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (5,), (1,)),
        (1, (4,), (1,)),
        (4, (), ()),
        (-1, (2,), (1,)),
        (3, (2,), (-1,)),
        (0, (-1,), (1,)),
        (0, (2, 2), (2,)),
        (0, (2,), (1, 1)),
        (0, (3,), (1 << 62,)),
        (0, (1 << 62,), (4,)),
        (0, (5, 1 << 61), (1 << 61, 0)),
        (1 << 63, (1,), (1,)),
        (0, (1,) * 70, (1,) * 70),
        (0, (1 << 40, 1 << 40), (0, 0)),
        (0, (1 << 62, 0, 1 << 62), (1, 1, 1)),
        (0.5, (2,), (1,)),
        (0, 2, 1),
        (None, (2,), (1,)),
    ],
)
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_a_tensor_beyond_its_storage_is_refused(tmp_path, offset, size, stride):
    view = _view(torch.ones(4).storage(), offset, size, stride)
    torch.save({"head.weight": view}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w\.pth is no PyTorch file, or a damaged one") as caught:
        read_state_dict(tmp_path / "w.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("order", [b"little", b"big"])
def test_many_views_of_one_storage_are_not_spread_out(tmp_path, order):
    base = torch.zeros(1 << 20)
    torch.save({f"{index}": base[index % 3 :] for index in range(1000)}, tmp_path / "w.pth")
    _rewrite(tmp_path / "w.pth", {"byteorder": lambda _: order})
    with pytest.raises(UserError, match=r"w\.pth .* such as 0 of shape \(1048576,\)"):
        read_state_dict(tmp_path / "w.pth")


class Shown(torch.Tensor):
    """A subclass, of which it is unknown what its values mean."""


def _strange(name):
    tensor = torch.eye(3)
    return {
        "sparse_coo": tensor.to_sparse,
        "sparse_csr": tensor.to_sparse_csr,
        "sparse_csc": tensor.to_sparse_csc,
        "sparse_bsr": lambda: tensor.to_sparse_bsr((1, 1)),
        "quantized": lambda: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
        "meta": lambda: tensor.to("meta"),
        "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        "negated": lambda: tensor.to(torch.complex64).conj().imag,
        "'Shown'": lambda: tensor.as_subclass(Shown),
        "'complex32'": lambda: tensor.to(torch.complex32),
        "wrapped": lambda: Rebuilt(torch._utils._rebuild_wrapper_subclass, 1, 2),
    }[name]()


@pytest.mark.parametrize(
    "kind",
    [
        *("sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr", "quantized", "meta", "nested", "negated", "wrapped"),
        *("'Shown'", "'complex32'"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_the_kind_of_a_tensor_without_plain_values_is_told(tmp_path, kind):
    torch.save({"head.bias": _strange(kind)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=rf"Expected a dense tensor for head\.bias in .*w\.pth, got a {kind} one"):
        read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize("name", [b"strided", b"torch.strided", b"torch.torch.strided", b"a\x1b[31m", b"x" * 10_000])
def test_the_name_of_a_type_is_only_told(tmp_path, name):
    storage = b"(X\x07\x00\x00\x00storagectorch.storage\nUntypedStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x10tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v3\n(" + storage + b"K\x00K\x02\x85K\x01\x85\x89)ctorch\n" + name + b"\ntR"
    _write_pickle(tmp_path / "w.pth", b"\x80\x02}X\x09\x00\x00\x00head.bias" + tensor + b"s.")
    with pytest.raises(UserError, match=r"Expected a dense tensor for head\.bias in") as caught:
        read_state_dict(tmp_path / "w.pth")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


FROM_TYPE = b"ctorch._tensor\n_rebuild_from_type_v2\n"


@pytest.mark.parametrize(
    "stream",
    [
        b"\x80\x02}r\xff\xff\xff\xff.",
        b"}p999999999999\n.",
        b"}\x8a\xff" + b"\x01" * 255 + b"Ns.",
        b"\x80\x04}\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f}.",
        b"\x80\x02}" + b"N" + b"\x85" * 300_000 + b"Ns.",
        b"\x80\x02}" + b"N" + b"2\x86" * 200 + b"Ns.",
        b"\x80\x04\x8f(" + b"N" + b"2\x86" * 200 + b"\x90.",
        b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
        b"\x80\x02}" + b"X\x01\x00\x00\x00a}" * 100_000 + b"s" * 100_000 + b".",
        b"(" * 100_000 + b".",
        b"\x80\x02}N(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000NN" + b"2\x86" * 200 + b"tQs.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x0c\x00\x00\x00__defaults__)s\x86b}.",
        FROM_TYPE + (b"(" + FROM_TYPE + b"N") * 5000 + b")" + b"Nt" * 5000 + b"R.",
        b"\x80\x02}(X\x05\x00\x00\x00state\x94u.",
        b"\x80\x02K\x01K\x02K\x03s.",
        b"\x80\x02cos\nsystem\n2\x86R.",
        b"\x80\x05\x97.",
        b"\x80\x04\x8c\x04a\nb\x1b\x8c\x01c\x93)R.",
    ],
    ids=len,
)
def test_pickles_that_ask_for_much_end_in_one_sentence(tmp_path, stream):
    _write_pickle(tmp_path / "w.pth", stream)
    with unchecked(), pytest.raises(UserError, match=r"w\.pth") as caught:
        read_state_dict(tmp_path / "w.pth")
    assert str(caught.value).isprintable()


def test_a_file_cannot_change_what_the_next_one_gives(tmp_path):
    state = b"N}(X\x0c\x00\x00\x00__defaults__)X\x05\x00\x00\x00itemsNX\x09\x00\x00\x00__class__Nu\x86b"
    names = (b"torch._utils\n_rebuild_tensor_v2", b"torch\nFloatStorage", b"collections\nOrderedDict", b"argparse\nNamespace")
    for name in names:
        _write_pickle(tmp_path / "w.pth", b"\x80\x02c" + name + b"\n" + state + b")R" + state + b".")
        with pytest.raises(UserError):
            read_state_dict(tmp_path / "w.pth")
    torch.save({**WEIGHTS, "b": torch.nn.Parameter(torch.ones(2))}, tmp_path / "w.pth")
    _assert_as_torch_reads_it(tmp_path / "w.pth")


@pytest.mark.parametrize(
    "identity",
    [("module", 1, "0", "cpu", 4), ("storage", 1, "0", "cpu", 4), ("storage",), "storage", 3, ("storage", 1, [], 2, 3)],
)
def test_only_storages_are_saved_beside_the_pickle(tmp_path, identity):
    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return identity if value == "here" else None

    buffer = io.BytesIO()
    Pickler(buffer, 2).dump({"head.bias": "here"})
    _write_pickle(tmp_path / "w.pth", buffer.getvalue())
    with pytest.raises(UserError, match=r"w\.pth is no PyTorch file, or a damaged one"):
        read_state_dict(tmp_path / "w.pth")


def test_a_torchscript_program_is_told(tmp_path):
    _write_pickle(tmp_path / "w.pth", b"\x80\x02}.", **{"constants.pkl": b"\x80\x02).", "code/__torch__.py": b""})
    with pytest.raises(UserError, match="no state dict but a TorchScript program"):
        read_state_dict(tmp_path / "w.pth")
