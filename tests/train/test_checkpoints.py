"""Runs that find a damaged, foreign or incomplete folder of checkpoints."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import pytest

from paca_jax.checkpoints.manager import Checkpoints
from paca_jax.cli import convert
from paca_jax.errors import UserError
from paca_jax.train.evaluation import evaluate_only
from paca_jax.train.run import prepare
from paca_jax.train.train_loop import train
from tests.runs import scalars, small_config

pytestmark = pytest.mark.xdist_group("train")  # so that one worker makes what they share


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def broken_run(finished_run, tmp_path):
    shutil.copytree(finished_run, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("victim", ["variables/manifest.ocdbt", "training/_METADATA", "metadata/metadata", "variables/d"])
def test_a_truncated_checkpoint_is_told_and_kept(broken_run, victim):
    path = broken_run / "checkpoints" / "12" / victim
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    before = files(broken_run)
    with pytest.raises(UserError, match=r"checkpoints/12 is damaged .*nothing was deleted"):
        train(small_config(), broken_run, devices=jax.devices()[:1])
    assert files(broken_run) == before


def test_a_foreign_folder_is_refused_and_kept(tmp_path):
    (tmp_path / "checkpoints" / "epoch_3").mkdir(parents=True)
    (tmp_path / "checkpoints" / "epoch_3" / "weights.bin").write_bytes(b"precious")
    with pytest.raises(UserError, match="epoch_3 is not a checkpoint"):
        train(small_config(), tmp_path, devices=jax.devices()[:1])
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
    train(small_config(), broken_run, devices=jax.devices()[:1])
    assert sorted(path.name for path in (broken_run / "checkpoints").iterdir()) == ["12", "6", "8"]


@pytest.mark.parametrize("recorded", [True, False])
def test_a_checkpoint_of_another_step_than_its_folder_says_is_told(broken_run, recorded):
    checkpoints = broken_run / "checkpoints"
    (checkpoints / "12").rename(checkpoints / "20")
    if not recorded:  # as in checkpoints of earlier versions
        file = checkpoints / "20" / "metadata" / "metadata"
        file.write_text(json.dumps({name: value for name, value in json.loads(file.read_text()).items() if name != "step"}))
    with pytest.raises(UserError, match=r"Expected the checkpoint of step 20 in .*/20, got that of step 12"):
        train(small_config(), broken_run, devices=jax.devices()[:1])


def test_a_converted_workdir_starts_a_run_as_init_from_does(finished_run, tmp_path, caplog):
    short = {"num_steps": 2, "log_every_steps": 1, "eval_every_steps": 1, "warmup_steps": 1}  # the first step learns nothing
    convert.main([str(finished_run), str(tmp_path / "converted")])
    devices = jax.devices()[:1]
    expected = evaluate_only(small_config(), finished_run, devices)
    assert evaluate_only(small_config(), tmp_path / "converted", devices) == expected
    with pytest.raises(UserError, match="Expected averaged variables"):
        evaluate_only(small_config(ema_decay=0.5), tmp_path / "converted", devices, weights="ema")
    with caplog.at_level("INFO", logger="paca_jax"):
        train(small_config(**short), tmp_path / "converted", devices)
    assert "Starting from the converted weights in" in caplog.text
    train(small_config(**short, init_from=str(finished_run)), tmp_path / "started", devices)
    lines = scalars(tmp_path / "started")
    assert scalars(tmp_path / "converted") == lines
    assert [lines[0][name] for name in expected] == list(expected.values())
    assert lines[1]["eval/loss"] != lines[0]["eval/loss"]


def test_a_converted_workdir_of_another_model_is_told(finished_run, tmp_path):
    convert.main([str(finished_run), str(tmp_path / "converted")])
    with pytest.raises(UserError, match="The weights do not fit the model"):
        train(small_config(model__depths=(1, 1, 2, 1)), tmp_path / "converted", devices=jax.devices()[:1])


def test_a_checkpoint_that_is_not_finite_is_told(tmp_path):
    run = prepare(small_config(), jax.devices()[:1])
    with jax.set_mesh(run.mesh):
        state = run.fresh_state()
    state.params["head"]["bias"] = jnp.full_like(state.params["head"]["bias"], jnp.nan)
    checkpoints = Checkpoints(tmp_path, 3, "eval/accuracy")
    checkpoints.save(4, dataclasses.replace(state, step=state.step + 4).parts, run.metadata(), None)
    checkpoints.close()
    for start in (train, evaluate_only):
        with pytest.raises(UserError, match=r"checkpoints/4, got NaN or infinity in \d arrays: .*params/head/bias"):
            start(small_config(), tmp_path, jax.devices()[:1])
