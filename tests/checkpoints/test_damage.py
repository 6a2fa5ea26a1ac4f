"""Weights that are not finite, damaged, endless or no weights at all: one sentence, whatever the form."""

import os
import struct
import zipfile

import jax
import numpy as np
import pytest

from paca_jax import create_model, load
from paca_jax.checkpoints import read_state_dict, write_state_dict
from paca_jax.checkpoints.initial import initial_variables
from paca_jax.checkpoints.workdir import write_variables
from paca_jax.cli import convert
from paca_jax.convert import from_torch, to_torch
from paca_jax.convert.architecture import find_recipe
from paca_jax.errors import UserError
from tests import golden

SIZES = {"embed_dims": (8, 8, 16, 16), "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2), "clusters": (4, 4, 0, 0)}
RECIPE = {"name": "pacavit_nano", "num_classes": 3, **SIZES}
STATE = {"head.weight": np.ones((3, 100), np.float32), "head.bias": np.arange(3, dtype=np.float32)}


@pytest.fixture(scope="module")
def nano():
    model = create_model(**RECIPE)
    return model, golden.random_variables(model)


def write(place, model, variables):
    """Writes variables in the form that the name of a place says."""
    if place.suffix:
        write_state_dict(place, to_torch(variables, model), RECIPE)
    else:
        write_variables(place, variables, {"model": RECIPE})


@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.parametrize(
    ("name", "tensor"), [("w.safetensors", "head.bias"), ("w.pth", "head.bias"), ("run", "params/head/bias")]
)
def test_weights_that_are_not_finite_are_refused_and_named_unless_asked_for(
    tmp_path, nano, caplog, capsys, name, tensor, value
):
    if name == "w.pth":
        pytest.importorskip("torch")
    model, variables = nano
    spoiled = jax.tree.map(np.array, variables)
    spoiled["params"]["head"]["bias"][1] = value
    write(tmp_path / name, model, spoiled)
    for read in (load, lambda place: initial_variables(str(place), model, ())):
        with pytest.raises(UserError, match=rf"got NaN or infinity in 1 arrays: {tensor}\. .*allow_nonfinite"):
            read(tmp_path / name)
    with pytest.raises(SystemExit, match="2"):
        convert.main([str(tmp_path / name), str(tmp_path / "out.safetensors")])
    assert tensor in capsys.readouterr().err
    assert not (tmp_path / "out.safetensors").exists()
    _, taken = load(tmp_path / name, allow_nonfinite=True)
    np.testing.assert_array_equal(taken["params"]["head"]["bias"], spoiled["params"]["head"]["bias"])
    assert f"NaN or infinity in 1 arrays: {tensor}" in caplog.text
    convert.main([str(tmp_path / name), str(tmp_path / "out.safetensors"), "--allow-nonfinite"])
    assert (tmp_path / "out.safetensors").exists()


def test_numbers_beyond_float32_are_not_finite(tmp_path, nano):
    model, variables = nano
    state = to_torch(variables, model)
    state["head.bias"] = np.array([1, 1e300, 2])
    write_state_dict(tmp_path / "w.safetensors", state, RECIPE)
    with pytest.raises(UserError, match=r"NaN or infinity in 1 arrays: head\.bias"):
        load(tmp_path / "w.safetensors")


def _data_of(path, entry):
    """Returns where the content of an entry of a zip archive begins."""
    with zipfile.ZipFile(path) as archive:
        found = next(info for info in archive.infolist() if info.filename.endswith(entry))
    header = path.read_bytes()[found.header_offset : found.header_offset + 30]
    return found.header_offset + 30 + sum(struct.unpack("<HH", header[26:30]))


@pytest.mark.parametrize("entry", ["data/0", "data/1", "data.pkl"])
@pytest.mark.parametrize("bit", [0, 7])
def test_a_flipped_bit_in_a_pth_is_found(tmp_path, entry, bit):
    pytest.importorskip("torch")
    path = tmp_path / "w.pth"
    write_state_dict(path, STATE)
    data = bytearray(path.read_bytes())
    data[_data_of(path, entry) + 5] ^= 1 << bit
    path.write_bytes(data)
    with pytest.raises(UserError, match=rf"w\.pth is no PyTorch file, or a damaged one \(Bad CRC-32 .*{entry}'"):
        read_state_dict(path)


def test_a_member_that_is_marked_as_a_folder_is_read_whole(tmp_path):
    """PyTorch takes it for an empty one, and leaves the memory of the tensor as it was."""
    pytest.importorskip("torch")
    path = tmp_path / "w.pth"
    write_state_dict(path, STATE)
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02", 0, data.rindex(b"/data/0"))
    data[entry + 38] ^= 0x10  # the external attributes in the directory of the archive
    path.write_bytes(data)
    found = read_state_dict(path)
    assert all(np.array_equal(found[name], array) for name, array in STATE.items())


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(tmp_path):
    pytest.importorskip("torch")
    write_state_dict(tmp_path / "w.pth", STATE)
    with zipfile.ZipFile(tmp_path / "w.pth", "a") as archive:
        name = next(name for name in archive.namelist() if name.endswith("data/0"))
        archive.writestr(name, archive.read(name))
    with pytest.raises(
        UserError, match=r"w\.pth is no PyTorch file, or a damaged one \(an archive with two members of one name"
    ):
        read_state_dict(tmp_path / "w.pth")


def test_an_archive_that_unpacks_to_far_more_is_not_unpacked(tmp_path):
    pytest.importorskip("torch")
    with zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data.pkl", bytes(10**6))
    with pytest.raises(UserError, match=r"unpacks to 1,000,000 bytes"):
        read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize("shape", [(1 << 20, 1 << 14), (3, 1 << 30)])
def test_a_view_that_repeats_few_values_is_not_spread_out(tmp_path, shape):
    torch = pytest.importorskip("torch")
    torch.save({"head.bias": torch.ones(3), "head.weight": torch.zeros(1).expand(*shape)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w\.pth .* such as head\.weight"):
        read_state_dict(tmp_path / "w.pth")
    torch.save({"head.weight": torch.ones(1).expand(3, 100)}, tmp_path / "w.pth")
    np.testing.assert_array_equal(read_state_dict(tmp_path / "w.pth")["head.weight"], STATE["head.weight"])


def _in_each_other(depth):
    names = ("state_dict", "model", "state_dict_ema", "model_ema", "ema", "module", "net", "params")
    first = current = {"epoch": 1}
    for _ in range(depth):
        inner = {"epoch": 1}
        current.update(dict.fromkeys(names, inner))
        current = inner
    current.update(dict.fromkeys(names, first))
    return first


def _list_in_itself():
    endless = []
    endless.append(endless)
    return {"state_dict": {"a": endless}}


@pytest.mark.parametrize("content", [_in_each_other(0), _in_each_other(1), _in_each_other(60), _list_in_itself()])
def test_mappings_that_hold_themselves_end_in_one_sentence(tmp_path, content):
    torch = pytest.importorskip("torch")
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(UserError, match="hold no array"):
        read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "folder/model.safetensors", "w.bin"])
def test_only_regular_files_are_opened(tmp_path, name):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=r"got a pipe|is not the workdir"):
        load((tmp_path / name) if "/" not in name else tmp_path / "folder")
    with pytest.raises(UserError, match="got a device"):
        read_state_dict("/dev/zero")


@pytest.mark.parametrize("place", ["x" * 5000, "x" * 5000 + ".pth", "a/" * 3000 + "w.safetensors"], ids=len)
def test_a_name_that_no_file_can_have_is_told(place):
    with pytest.raises(UserError, match=r"Expected a file|There is nothing to load"):
        load(place)


@pytest.mark.parametrize("name", ["head\nerror: forged", "a\0b", "a." * 100_000, "\udc80"], ids=len)
def test_names_of_arrays_are_short_and_printable(name):
    with pytest.raises(UserError, match="Expected printable names") as caught:
        from_torch({name: STATE["head.bias"]}, create_model(**RECIPE))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("kind", ["sparse", "sparse_csr", "quantized", "meta", "nested"])
@pytest.mark.filterwarnings("ignore")
def test_tensors_in_memory_are_dense(kind):
    torch = pytest.importorskip("torch")
    tensor = {
        "sparse": lambda: torch.eye(3).to_sparse(),
        "sparse_csr": lambda: torch.eye(3).to_sparse_csr(),
        "quantized": lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        "meta": lambda: torch.ones(3, device="meta"),
        "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    }[kind]()
    with pytest.raises(UserError, match=rf"a dense tensor for head\.bias, got a {kind}"):
        from_torch({"head.bias": tensor}, create_model(**RECIPE))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("stage2.0.mlp.fc1.weight", None),
        ("stage1.0.mlp.fc1.weight", ()),
        ("stage1.0.mlp.fc1.weight", (4, 0)),
        ("stage1.0.mlp.fc1.weight", (4, 4, 4)),
        ("stage1.999999999999.mlp.fc1.weight", (4, 4)),
        ("stage99999999999999.0.mlp.fc1.weight", (4, 4)),
        ("head.weight", ()),
    ],
)
def test_tensors_of_another_rank_are_those_of_no_named_model(nano, name, shape):
    state = dict(golden.state_dict("pacavit_tiny_p2cconv_100_0"))
    assert find_recipe(state)["name"] == "pacavit_tiny_p2cconv_100_0"
    if shape is None:
        del state[name]
    else:
        state[name] = np.zeros(shape, np.float32)
    found = find_recipe(state)
    assert found is None or (name, found["num_classes"]) == ("head.weight", 0)


@pytest.mark.parametrize("shape", [[0] * 70, [1 << 62, 0], [0, 1 << 40, 1 << 40]])
def test_shapes_that_no_array_has_are_told(tmp_path, shape):
    header = f'{{"head.bias":{{"dtype":"F32","shape":{shape},"data_offsets":[0,0]}}}}'.encode()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(UserError, match=r"w\.safetensors"):
        load(tmp_path / "w.safetensors")


@pytest.mark.parametrize("depth", [10_000, 200_000])
@pytest.mark.parametrize("place", ["w.safetensors", "model.safetensors.index.json"])
def test_json_that_is_nested_too_deeply_is_told(tmp_path, place, depth):
    text = b'{"a":' + b"[" * depth + b"]" * depth + b"}"
    (tmp_path / place).write_bytes(text if place.endswith(".json") else struct.pack("<Q", len(text)) + text)
    with pytest.raises(UserError):
        read_state_dict(tmp_path / place)
