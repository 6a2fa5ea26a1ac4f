"""Workdirs, and the checkpoints of a run in them."""

import dataclasses
import json
import os
import sys
from contextlib import closing

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import SingleDeviceSharding

import paca_jax
from paca_jax.checkpoints.manager import Checkpoints
from paca_jax.checkpoints.orbax_errors import damage_as_user_error
from paca_jax.checkpoints.workdir import read_variables, write_variables
from paca_jax.cli import convert
from paca_jax.errors import UserError
from paca_jax.models import create_model
from paca_jax.train.state import TrainState, state_of
from tests import golden
from tests.runs import environment, run

SIZES = {"embed_dims": (8, 8, 16, 16), "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2), "clusters": (4, 4, 0, 0)}
RECIPE = {"name": "pacavit_nano", "num_classes": 5, **SIZES}


def test_variables_come_back_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = create_model(**RECIPE)
    variables = golden.random_variables(model)
    write_variables("weights", variables, {"model": RECIPE, "class_names": list("abcde")})
    back, metadata = read_variables("weights")
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, back))
    assert metadata["class_names"] == list("abcde")
    with pytest.raises(UserError, match="already holds checkpoints"):
        write_variables(tmp_path / "weights", variables, {"model": RECIPE})


def test_the_newest_are_kept_and_the_best_one_and_each_can_be_loaded(tmp_path):
    model = create_model(**RECIPE)
    variables = golden.random_variables(model)
    state = state_of(variables, optax.sgd(0.1), averaged=False)
    checkpoints = Checkpoints(tmp_path, 2, "eval/accuracy")
    for step, accuracy in enumerate([0.1, 0.9, None, 0.3, 0.2], start=1):
        now = dataclasses.replace(
            state, step=jnp.asarray(step), params=jax.tree.map(lambda p, step=step: p * step, state.params)
        )
        checkpoints.save(step, now.parts, {"model": RECIPE}, None if accuracy is None else {"eval/accuracy": accuracy})
        checkpoints.wait()
    checkpoints.close()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["2", "4", "5"]
    kernel = variables["params"]["head"]["kernel"]
    for place, factor in ((tmp_path, 5), (tmp_path / "checkpoints" / "2", 2)):
        _, found = paca_jax.load(place)
        np.testing.assert_array_equal(found["params"]["head"]["kernel"], kernel * factor)
    with pytest.raises(UserError, match="checkpoints/3"):
        paca_jax.load(tmp_path / "checkpoints" / "3")


def test_converted_weights_are_never_removed(tmp_path):
    variables = golden.random_variables(create_model(**RECIPE))
    write_variables(tmp_path, variables, {"model": RECIPE})
    state = state_of(variables, optax.sgd(0.1), averaged=False)
    with closing(Checkpoints(tmp_path, 1, "eval/accuracy")) as checkpoints:
        for step in (1, 2, 3):
            parts = dataclasses.replace(state, step=jnp.asarray(step)).parts
            checkpoints.save(step, parts, {"model": RECIPE}, None)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["0", "3"]


def test_what_cannot_be_read_for_a_moment_is_not_called_damaged(tmp_path):
    def fail():
        raise ConnectionResetError(104, "Connection reset by peer")

    told = r"cannot be read \(.*Connection reset.*Run the same command again"
    with pytest.raises(UserError, match=told), damage_as_user_error(tmp_path / "checkpoints" / "7"):
        fail()


def test_a_state_comes_back_from_its_parts(tmp_path):
    variables = golden.random_variables(create_model(**RECIPE))
    checkpoints = Checkpoints(tmp_path, 2, "eval/accuracy")
    device = SingleDeviceSharding(jax.devices()[0])
    for averaged in (False, True):
        state = state_of(variables, optax.adam(0.1), averaged)
        checkpoints.save(int(averaged), state.parts, {"model": RECIPE}, None)
        checkpoints.wait()
        abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), state)
        back = TrainState.from_parts(checkpoints.restore(int(averaged), abstract.parts))
        assert jax.tree.structure(back) == jax.tree.structure(state)
        assert jax.tree.all(jax.tree.map(np.array_equal, back, state))
    checkpoints.close()


def test_a_folder_without_checkpoints_is_no_workdir(tmp_path):
    with pytest.raises(UserError, match="not the workdir of a run"):
        read_variables(tmp_path)


def test_a_workdir_under_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        Checkpoints(tmp_path / "file" / "run", 1, "eval/accuracy")


def _write(workdir):
    write_variables(workdir, golden.random_variables(create_model(**RECIPE)), {"model": RECIPE, "class_names": list("abcde")})
    return workdir


@pytest.mark.parametrize("name", ["7", "123"])
def test_a_checkpoint_whose_folder_was_renamed_is_told(tmp_path, name):
    checkpoints = _write(tmp_path / "run") / "checkpoints"
    (checkpoints / "0").rename(checkpoints / name)
    with pytest.raises(UserError, match=rf"Expected the checkpoint of step {name} in .*/{name}, got that of step 0"):
        paca_jax.load(tmp_path / "run")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'"text"',
        b"\xff\xfe",
        b'{"model": 3}',
        b'{"model": {"name": null}}',
        b'{"model": {"name": "pacavit_nano", "implementation": "xla"}}',
        b'{"model": {"name": "pacavit_nano"}, "class_names": "abcde"}',
        b'{"model": {"name": "pacavit_nano"}, "class_names": [1, 2]}',
        b'{"model": {"name": "pacavit_nano"}, "config": []}',
        b'{"model": {"name": "pacavit_nano"}, "step": "0"}',
        b'{"model": {"name": "pacavit_nano"}, "step": 1' + b"0" * 5000 + b"}",
        b"[" * 100_000,
    ],
    ids=lambda content: str(content[-40:]),
)
def test_metadata_that_is_not_what_was_written_is_told(tmp_path, content):
    file = _write(tmp_path / "run") / "checkpoints" / "0" / "metadata" / "metadata"
    assert json.loads(file.read_text())["step"] == 0
    file.write_bytes(content)
    with pytest.raises(UserError, match="checkpoints/0"):
        paca_jax.load(tmp_path / "run")


@pytest.mark.parametrize("left", ["folder", "incomplete"])
def test_what_a_killed_conversion_leaves_does_not_hinder_the_next(tmp_path, left):
    _write(tmp_path / "source")
    if left == "folder":
        (tmp_path / "run").mkdir()
    else:
        _write(tmp_path / "run" / ".incomplete")
    convert.main([str(tmp_path / "source"), str(tmp_path / "run")])
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoints"]
    assert paca_jax.load(tmp_path / "run")[0] == create_model(**RECIPE)


@pytest.mark.parametrize("destination", ["run", "w.safetensors"])
@pytest.mark.parametrize("room", [0, 100, 20_000])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, destination, room):
    _write(tmp_path / "source")
    code = f"""
import resource
from paca_jax.cli.convert import main
resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
main([{str(tmp_path / "source")!r}, {str(tmp_path / destination)!r}])
"""
    done = run([sys.executable, "-c", code], environment())
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert str(tmp_path / destination) in lines[0]
    assert not (tmp_path / destination / "checkpoints").exists()
    assert not (tmp_path / destination).is_file()
    convert.main([str(tmp_path / "source"), str(tmp_path / destination)])
    assert paca_jax.load(tmp_path / destination)[0] == create_model(**RECIPE)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_conversion_replaces_a_file_only_when_asked_and_a_folder_never(tmp_path, name, capsys):
    if name == "w.pth":
        pytest.importorskip("torch")
    _write(tmp_path / "source")
    (tmp_path / name).write_bytes(b"mine")
    _write(tmp_path / "taken")
    for destination, flags in ((name, []), ("taken", []), ("taken", ["--overwrite"])):
        with pytest.raises(SystemExit, match="2"):
            convert.main([str(tmp_path / "source"), str(tmp_path / destination), *flags])
        assert f"{destination} exists already" in capsys.readouterr().err
    assert (tmp_path / name).read_bytes() == b"mine"
    convert.main([str(tmp_path / "source"), str(tmp_path / name), "--overwrite"])
    assert paca_jax.load(tmp_path / name)[0] == create_model(**RECIPE)


@pytest.mark.parametrize("name", ["metadata/metadata", "variables/manifest.ocdbt", "_CHECKPOINT_METADATA"])
def test_a_pipe_in_a_checkpoint_is_told(tmp_path, name):
    file = _write(tmp_path / "run") / "checkpoints" / "0" / name
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(UserError, match=rf"Expected a file at .*{name}, got a pipe"):
        paca_jax.load(tmp_path / "run")


@pytest.mark.parametrize("kept", [0.1, 0.3, 0.6, 0.9])
def test_every_cut_file_of_arrays_is_told(tmp_path, kept):
    for file in sorted((_write(tmp_path / "run") / "checkpoints" / "0" / "variables" / "d").iterdir()):
        whole = file.read_bytes()
        file.write_bytes(whole[: int(kept * len(whole))])
        with pytest.raises(UserError, match=r"checkpoints/0 is damaged"):
            paca_jax.load(tmp_path / "run")
        file.write_bytes(whole)
    paca_jax.load(tmp_path / "run")
