"""Signals, a second job, infinite steps, a full disk: no checkpoint is lost, and the same command resumes the run."""

import logging
import resource
import shutil
import signal

import jax
import numpy as np
import pytest

import paca_jax
from paca_jax.errors import UserError
from paca_jax.train.evaluation import evaluate_only
from paca_jax.train.train_loop import train
from tests.runs import scalars, small_config

pytestmark = pytest.mark.xdist_group("train")  # so that one worker makes what they share

ONE = jax.devices()[:1]
WILD = {"learning_rate": 1e3, "min_learning_rate": 1e3, "weight_decay": 1e3, "warmup_steps": 0}


class At(logging.Handler):
    """Calls a function once, when the library logs a text."""

    def __init__(self, text, call):
        super().__init__()
        self.text, self.call = text, call

    def emit(self, record):
        if self.text in record.getMessage() and self.call is not None:
            call, self.call = self.call, None
            call()


@pytest.fixture
def at():
    """Returns a function (text, call): `call` happens when the library logs `text`."""
    logger = logging.getLogger("paca_jax")
    handlers, level = [], logger.level
    logger.setLevel(logging.INFO)

    def add(text, call):
        handlers.append(At(text, call))
        logger.addHandler(handlers[-1])

    yield add
    logger.setLevel(level)
    for handler in handlers:
        logger.removeHandler(handler)


@pytest.mark.parametrize(("asked", "name", "status"), [(signal.SIGTERM, "SIGTERM", 143), (signal.SIGINT, "Ctrl-C", 130)])
def test_a_signal_saves_the_step_and_the_run_resumes_to_the_same_bits(finished_run, tmp_path, at, asked, name, status):
    before = signal.getsignal(asked)
    at("step 2/12", lambda: signal.raise_signal(asked))
    with pytest.raises(SystemExit) as stopped:
        train(small_config(), tmp_path, devices=ONE)
    assert (str(stopped.value), stopped.value.code) == (f"Stopped by {name} after step 2, which is saved.", status)
    assert signal.getsignal(asked) is before
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["2"]

    train(small_config(), tmp_path, devices=ONE)
    assert scalars(tmp_path) == scalars(finished_run)
    _, whole = paca_jax.load(finished_run)
    _, resumed = paca_jax.load(tmp_path)
    assert jax.tree.all(jax.tree.map(np.array_equal, whole, resumed))


def test_a_second_job_is_refused_and_readers_are_not(finished_run, tmp_path, at):
    def start_again():
        with pytest.raises(UserError, match=r"only job in the workdir .*, got another: process \d+ on host"):
            train(small_config(), tmp_path, devices=ONE)
        paca_jax.load(tmp_path)
        evaluate_only(small_config(), tmp_path, devices=ONE)

    at("step 10/12", start_again)
    train(small_config(), tmp_path, devices=ONE)
    assert scalars(tmp_path) == scalars(finished_run)


def test_a_step_that_is_not_finite_stops_the_run_and_keeps_its_checkpoints(finished_run, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished_run, workdir)
    for step in (8, 12):
        shutil.rmtree(workdir / "checkpoints" / str(step))
    with pytest.raises(UserError, match=r"got infinity or NaN in step 9; .* on_nonfinite=skip"):
        train(small_config(**WILD, checkpoint_every_steps=12), workdir, devices=ONE)
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == ["6"]
    train(small_config(), workdir, devices=ONE)
    assert scalars(workdir) == scalars(finished_run)


def test_steps_that_are_not_finite_can_be_skipped_and_are_counted(tmp_path, caplog):
    train(small_config(**WILD, on_nonfinite="skip"), tmp_path, devices=ONE)
    lines = scalars(tmp_path)
    assert [line["train/nonfinite"] for line in lines] == [0, 2, 4, 6, 8, 10]
    assert lines[-1]["train/grad_norm"] is None
    assert "Step 12 changed nothing: its loss, gradient or update is not finite (10 such steps so far)" in caplog.text
    assert "Outputs of the model for the evaluation set are NaN or infinite." in caplog.text
    _, variables = paca_jax.load(tmp_path)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables))


def test_a_full_disk_is_reported_and_earlier_checkpoints_stay_whole(finished_run, tmp_path, at, capfd, caplog):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    at("step 8/12", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard)))
    try:
        with pytest.raises(UserError, match=r"cannot be written to .*checkpoints .*those that are there are intact"):
            train(small_config(), tmp_path, devices=ONE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "Traceback" not in caplog.text + capfd.readouterr().err
    kept = {path.name for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()}
    assert "4" in kept <= {"4", "6"}
    train(small_config(), tmp_path, devices=ONE)
    assert scalars(tmp_path) == scalars(finished_run)


def test_chosen_steps_are_traced(finished_run, tmp_path, caplog):
    workdir = tmp_path / "run"
    shutil.copytree(finished_run, workdir)
    shutil.rmtree(workdir / "checkpoints" / "12")
    with caplog.at_level("INFO", logger="paca_jax"):
        train(small_config(profile_steps=(10, 11)), workdir, devices=ONE)
    assert list(workdir.glob("plugins/profile/*/*.xplane.pb"))
    assert "Traced steps 10 to 11" in caplog.text
