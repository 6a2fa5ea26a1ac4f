"""Runs that find a damaged, foreign or incomplete folder of checkpoints."""

import shutil

import jax
import pytest

from paca_jax.checkpoints.manager import Checkpoints
from paca_jax.errors import UserError
from paca_jax.train.train_loop import train
from tests.runs import small_config

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
