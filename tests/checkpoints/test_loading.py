"""`paca_jax.load` and `python -m paca_jax.convert`."""

import itertools

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from paca_jax.checkpoints import read_state_dict, write_state_dict
from paca_jax.checkpoints.initial import initial_variables
from paca_jax.checkpoints.loading import load, read_model
from paca_jax.checkpoints.source import fill_from_variables
from paca_jax.checkpoints.workdir import write_variables
from paca_jax.cli.convert import main
from paca_jax.convert import to_torch
from paca_jax.errors import UserError
from paca_jax.models import create_model
from tests import golden

NANO = {"name": "pacavit_nano", "num_classes": 10, "clusters": [8, 4, 0, 0]}


@pytest.fixture(scope="module")
def nano():
    return golden.random_weights(create_model(**NANO))


@pytest.fixture
def file(tmp_path, nano):
    path = tmp_path / "nano.safetensors"
    write_state_dict(path, nano[2], NANO)
    return path


def _assert_equal_trees(ours, theirs):
    ours, theirs = flatten_dict(ours, sep="/"), flatten_dict(theirs, sep="/")
    assert ours.keys() == theirs.keys()
    for path in ours:
        assert ours[path].dtype == theirs[path].dtype
        np.testing.assert_array_equal(ours[path], theirs[path])


def test_our_safetensors_tell_their_model(file, nano):
    model, variables = load(file)
    assert model == nano[0]
    _assert_equal_trees(variables, nano[1])
    assert jax.eval_shape(model.apply, variables, np.zeros((2, 32, 32, 3))).shape == (2, 10)


def test_overrides_win_over_the_recipe(file):
    model, _ = load(str(file), dtype="bfloat16", drop_path_rate=0.2)
    assert (model.dtype, model.config.drop_path_rate) == ("bfloat16", 0.2)
    with pytest.raises(UserError, match="allow_new"):
        load(file, num_classes=7)
    _, variables = load(file, num_classes=7, clusters=(8, 5, 0, 0), allow_new=("head", "clustering"))
    assert variables["params"]["head"]["bias"].shape == (7,)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_other_files_tell_their_model_and_their_classes(tmp_path, suffix):
    if suffix == ".pth":
        pytest.importorskip("torch")
    model = create_model("pacavit_nano", num_classes=3, image_channels=1)
    variables = golden.random_variables(model)
    path = tmp_path / f"best{suffix}"
    write_state_dict(path, to_torch(variables, model))
    for arguments in ([], ["pacavit_nano"]):
        loaded, filled = load(path, *arguments)
        assert loaded == model
        _assert_equal_trees(filled, variables)


def test_tensors_of_no_known_model_need_a_name(tmp_path):
    sizes = {"embed_dims": (8, 8, 16, 16), "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2), "clusters": (4, 4, 0, 0)}
    model = create_model("pacavit_nano", num_classes=3, **sizes)
    write_state_dict(tmp_path / "w.safetensors", to_torch(golden.random_variables(model), model))
    with pytest.raises(UserError, match=r"does not tell which model.*--model"):
        load(tmp_path / "w.safetensors")
    assert load(tmp_path / "w.safetensors", "pacavit_nano", **sizes)[0] == model


def test_the_longest_name_in_a_file_name_counts(tmp_path):
    name = "pacavit_small_p2cconv_100_49"
    write_state_dict(tmp_path / f"IMNET_224_{name}.safetensors", golden.state_dict(name))
    model, _ = load(tmp_path / f"IMNET_224_{name}.safetensors")
    assert model == create_model(name)


def test_workdirs(tmp_path, nano):
    write_variables(tmp_path / "run", nano[1], {"model": NANO})
    model, variables = load(tmp_path / "run")
    assert model == nano[0]
    _assert_equal_trees(variables, nano[1])
    model, variables = load(tmp_path / "run", num_classes=2, allow_new=("head",))
    assert variables["params"]["head"]["bias"].shape == (2,)
    with pytest.raises(UserError, match="holds a 'pacavit_nano'"):
        load(tmp_path / "run", "pacavit_tiny_p2cconv_100_0")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is not the workdir of a run"):
        load(tmp_path / "empty")


def test_the_way_to_compute_is_no_part_of_the_recipe(file):
    loaded = read_model(file, implementation="xla", drop_path_rate=0.2)
    assert loaded.model.implementation == "xla"
    assert loaded.recipe == {**NANO, "drop_path_rate": 0.2}
    assert load(file, implementation="xla")[0] == create_model(**NANO, implementation="xla")


@pytest.mark.parametrize(
    "start",
    [
        lambda place: load(place, num_classes=10, allow_new=("head",)),
        lambda place: initial_variables(str(place), create_model(**NANO), allow_new=("head",)),
    ],
    ids=["load", "initial_variables"],
)
def test_what_starts_fresh_is_logged_once(tmp_path, nano, start, caplog):
    headless = {name: part for name, part in nano[1]["params"].items() if name != "head"}
    write_variables(tmp_path / "run", {"params": headless}, {"model": NANO | {"num_classes": 0}})
    start(tmp_path / "run")
    assert caplog.text.count("Starts fresh: params/head/bias, params/head/kernel.") == 1


def test_variables_fill_the_same_model_bit_for_bit(nano):
    model, variables, _ = nano
    filled = fill_from_variables(variables, model)
    assert (filled.fresh, filled.unused) == ([], [])
    _assert_equal_trees(filled.variables, variables)


def test_other_classes_and_clusters_start_fresh_from_variables_only_when_asked(nano):
    _, variables, _ = nano
    other = create_model(**(NANO | {"num_classes": 7, "clusters": [8, 5, 0, 0], "clustering": "mlp"}))
    with pytest.raises(UserError, match=r"allow_new=\('head', 'clustering'\)") as caught:
        fill_from_variables(variables, other)
    assert "misshapen (2): params/head/bias (expected (7,), found (10,)), params/head/kernel" in str(caught.value)
    assert "unexpected (" in str(caught.value)
    with pytest.raises(UserError, match=r"allow_new=\('clustering',\)"):
        fill_from_variables(variables, other, allow_new=("head",))
    filled = fill_from_variables(variables, other, allow_new=("head", "clustering"))
    assert {"params/head/bias", "params/head/kernel"} < set(filled.fresh)
    assert all("/head/" in path or "/mlp_clustering/" in path for path in filled.fresh)
    assert filled.unused
    assert all("/conv_clustering/" in path for path in filled.unused)
    _assert_equal_trees(filled.variables["params"]["stem"], variables["params"]["stem"])


def test_variables_of_another_backbone_are_never_taken(nano):
    _, variables, _ = nano
    with pytest.raises(UserError, match=r"unexpected .*params/stage2/block1/") as caught:
        fill_from_variables(variables, create_model(**(NANO | {"depths": (1, 1, 2, 1)})), allow_new=("head", "clustering"))
    assert "allow_new" not in str(caught.value)


@pytest.mark.parametrize("name", ["pacahead_nano", "mask_rcnn_nano"])
def test_a_classifiers_variables_fill_a_backbone(nano, name):
    _, variables, _ = nano
    downstream = create_model(name, num_classes=3, clusters=NANO["clusters"])
    with pytest.raises(UserError, match=r"allow_new=\('head',\)"):
        fill_from_variables(variables, downstream)
    filled = fill_from_variables(variables, downstream, allow_new=("head",))
    given = {part: value for part, value in variables["params"].items() if part != "head"}
    _assert_equal_trees(filled.variables["params"]["backbone"], given)
    assert filled.unused == ["params/backbone/head/bias", "params/backbone/head/kernel"]
    assert not any("backbone" in path for path in filled.fresh)
    again = fill_from_variables(filled.variables, downstream)
    _assert_equal_trees(again.variables, filled.variables)


def test_pretrained_names(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    name = "pacavit_tiny_p2cconv_100_0"
    state = {key: torch.from_numpy(value) for key, value in golden.state_dict(name).items()}
    torch.save({"state_dict": state}, tmp_path / f"IMNET_224_{name}.pth")
    monkeypatch.setenv("PACA_JAX_CACHE", str(tmp_path))
    model, variables = load(name, pretrained=True)
    assert model == create_model(name)
    np.testing.assert_array_equal(variables["params"]["head"]["bias"], state["head.bias"])
    model, _ = load(name, pretrained=True, num_classes=5, allow_new=("head",))
    assert model.config.num_classes == 5
    with pytest.raises(UserError, match="source is the model's name"):
        load(name, "pacavit_nano", pretrained=True)
    main([name, str(tmp_path / "out.safetensors")])
    assert load(tmp_path / "out.safetensors")[0] == create_model(name)


def test_what_is_not_there_is_told(tmp_path):
    with pytest.raises(UserError, match="pretrained=True"):
        load("pacavit_tiny_p2cconv_100_0")
    with pytest.raises(UserError, match="There is nothing to load at"):
        load(tmp_path / "none")
    with pytest.raises(UserError, match="Expected a file at"):
        load(tmp_path / "none.pth")
    with pytest.raises(UserError, match="no such model"):
        load("pacavit_tiny", pretrained=True)


def test_command_line_between_every_pair_of_forms(tmp_path, file, nano, capsys):
    pytest.importorskip("torch")
    steps = [file, tmp_path / "pacavit_nano.pth", tmp_path / "folder", tmp_path / "back.safetensors"]
    for source, destination in itertools.pairwise(steps):
        main([str(source), str(destination)])
        assert f"Wrote {destination}: pacavit_nano" in capsys.readouterr().out
    model, variables = load(steps[-1])
    assert model == nano[0]
    _assert_equal_trees(variables, nano[1])
    state = read_state_dict(steps[-1])
    assert all(state[key].tobytes() == nano[2][key].tobytes() for key in nano[2])


def test_command_line_names_what_starts_fresh(tmp_path, file, capsys):
    arguments = [str(file), str(tmp_path / "new.safetensors"), "--num-classes", "3", "--clusters", "9,4,0,0"]
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert not (tmp_path / "new.safetensors").exists()
    main([*arguments, "--allow-new", "head,clustering"])
    out = capsys.readouterr().out
    assert (
        "Starts fresh: params/head/bias, params/head/kernel, params/stage1/block0/attention/conv_clustering/project/kernel."
        in out
    )


@pytest.mark.parametrize(
    ("source", "destination", "told"),
    [
        ("nano.safetensors", "nano.safetensors", "exists already"),
        ("nano.safetensors", "new.npz", "Expected a destination that ends in"),
        ("none.safetensors", "new.safetensors", "Expected a file at"),
        ("none", "new", "There is nothing to load"),
    ],
)
def test_command_line_tells_mistakes_in_one_line(tmp_path, file, capsys, source, destination, told):
    before = file.read_bytes()
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / source), str(tmp_path / destination)])
    captured = capsys.readouterr()
    assert told in captured.err
    assert captured.err.count("\n") == 1
    assert not captured.out
    assert file.read_bytes() == before


@pytest.mark.parametrize("flags", [["--allow-new", "heads"], ["--clusters", "1;2"], ["--num-classes", "ten"]])
def test_command_line_tells_wrong_flags(flags, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["a", "b", *flags])
    assert caught.value.code == 2


def test_a_classifiers_file_starts_a_segmentor(file, nano, tmp_path):
    with pytest.raises(UserError, match=r"holds a 'pacavit_nano', but a 'upernet_tiny' was asked for"):
        load(file, "upernet_tiny")
    model, variables = load(file, "pacahead_nano", num_classes=3, head_channels=8, allow_new=("head",))
    assert (model.config.backbone.clusters, model.config.num_classes) == ((8, 4, 0, 0), 3)
    stem = variables["params"]["backbone"]["stem"]
    _assert_equal_trees(stem, nano[1]["params"]["stem"])
    write_variables(tmp_path / "run", nano[1], {"model": NANO})
    again, _ = load(tmp_path / "run", "pacahead_nano", num_classes=3, head_channels=8, allow_new=("head",))
    assert again == model


@pytest.mark.parametrize("name", ["pacahead_nano.safetensors", "pacahead_pacavit_nano_512x512_160k_ade20k.safetensors"])
def test_a_segmentors_file_tells_its_classes(tmp_path, name):
    model = create_model("pacahead_nano", num_classes=6)
    write_state_dict(tmp_path / name, to_torch(golden.random_variables(model), model))
    assert load(tmp_path / name)[0] == model


def test_the_command_line_makes_a_segmentor_of_a_classifier(tmp_path, file, capsys):
    target = tmp_path / "segmentor.safetensors"
    main([str(file), str(target), "--model", "upernet_nano", "--num-classes", "3", "--allow-new", "head"])
    told = capsys.readouterr().out
    assert "Starts fresh: batch_stats/auxiliary_head (3 arrays), batch_stats/head (" in told
    assert "Left aside: backbone.head.bias, backbone.head.weight." in told
    assert load(target)[0].config.num_classes == 3
