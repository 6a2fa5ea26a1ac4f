import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import paca_jax
from paca_jax.checkpoints.workdir import read_variables, write_variables
from paca_jax.errors import UserError
from paca_jax.models import create_model
from paca_jax.train import run as loop
from paca_jax.train.checkpoints import Checkpoints
from paca_jax.train.state import state_of
from tests import golden
from tests.runs import small_config

pytestmark = pytest.mark.xdist_group("train")  # so that one worker makes what they share

SIZES = {"embed_dims": (8, 8, 16, 16), "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2), "clusters": (4, 4, 0, 0)}
RECIPE = {"name": "pacavit_nano", "num_classes": 5, **SIZES}


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def broken_run(finished_run, tmp_path):
    shutil.copytree(finished_run, tmp_path / "run")
    return tmp_path / "run"


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


@pytest.mark.parametrize("victim", ["variables/manifest.ocdbt", "training/_METADATA", "metadata/metadata", "variables/d"])
def test_a_truncated_checkpoint_is_told_and_kept(broken_run, victim):
    path = broken_run / "checkpoints" / "12" / victim
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    before = files(broken_run)
    with pytest.raises(UserError, match=r"checkpoints/12 is damaged .*nothing was deleted"):
        loop.train(small_config(), broken_run, devices=jax.devices()[:1])
    assert files(broken_run) == before


def test_a_foreign_folder_is_refused_and_kept(tmp_path):
    (tmp_path / "checkpoints" / "epoch_3").mkdir(parents=True)
    (tmp_path / "checkpoints" / "epoch_3" / "weights.bin").write_bytes(b"precious")
    with pytest.raises(UserError, match="epoch_3 is not a checkpoint"):
        loop.train(small_config(), tmp_path, devices=jax.devices()[:1])
    assert (tmp_path / "checkpoints" / "epoch_3" / "weights.bin").read_bytes() == b"precious"


def test_a_half_written_checkpoint_is_passed_over(broken_run):
    (broken_run / "checkpoints" / "16.orbax-checkpoint-tmp").mkdir()
    checkpoints = Checkpoints(broken_run, 3, "eval/accuracy")
    assert checkpoints.latest_step == 12
    checkpoints.close()


@pytest.mark.parametrize("left", ["variables/d", "metrics", "."])
def test_what_is_left_of_a_checkpoint_whose_removal_was_interrupted_does_no_harm(broken_run, left):
    for step in ("8", "12"):
        shutil.rmtree(broken_run / "checkpoints" / step)
    (broken_run / "checkpoints" / "4" / left).mkdir(parents=True)
    loop.train(small_config(), broken_run, devices=jax.devices()[:1])
    assert sorted(path.name for path in (broken_run / "checkpoints").iterdir()) == ["12", "6", "8"]


def test_the_newest_are_kept_and_the_best_one_and_each_can_be_loaded(tmp_path):
    model = create_model(**RECIPE)
    variables = golden.random_variables(model)
    state = state_of(variables, optax.sgd(0.1), averaged=False)
    checkpoints = Checkpoints(tmp_path, 2, "eval/accuracy")
    for step, accuracy in enumerate([0.1, 0.9, None, 0.3, 0.2], start=1):
        now = dataclasses.replace(
            state, step=jnp.asarray(step), params=jax.tree.map(lambda p, step=step: p * step, state.params)
        )
        checkpoints.save(now, {"model": RECIPE}, None if accuracy is None else {"eval/accuracy": accuracy})
        checkpoints.wait()
    checkpoints.close()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["2", "4", "5"]
    kernel = variables["params"]["head"]["kernel"]
    for place, factor in ((tmp_path, 5), (tmp_path / "checkpoints" / "2", 2)):
        _, found = paca_jax.load(place)
        np.testing.assert_array_equal(found["params"]["head"]["kernel"], kernel * factor)
    with pytest.raises(UserError, match="checkpoints/3"):
        paca_jax.load(tmp_path / "checkpoints" / "3")


def test_a_folder_without_checkpoints_is_no_workdir(tmp_path):
    with pytest.raises(UserError, match="not the workdir of a run"):
        read_variables(tmp_path)


def test_a_workdir_under_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        Checkpoints(tmp_path / "file" / "run", 1, "eval/accuracy")
