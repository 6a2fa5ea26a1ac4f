"""Workdirs, and the checkpoints of a run in them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import SingleDeviceSharding

import paca_jax
from paca_jax.checkpoints.manager import Checkpoints
from paca_jax.checkpoints.workdir import read_variables, write_variables
from paca_jax.errors import UserError
from paca_jax.models import create_model
from paca_jax.train.state import TrainState, state_of
from tests import golden

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
