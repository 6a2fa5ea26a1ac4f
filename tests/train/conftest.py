"""Uninterrupted runs that several tests read or compare with."""

from pathlib import Path

import jax
import pytest

from paca_jax.train.train_loop import train
from tests.prepared import Prepare, prepare_once
from tests.runs import small_config

__all__ = ["prepare_once"]


@pytest.fixture(scope="package")
def finished_run(tmp_path_factory: pytest.TempPathFactory, prepare_once: Prepare) -> Path:
    workdir = tmp_path_factory.mktemp("finished")
    train(small_config(), workdir, devices=jax.devices()[:1])
    return workdir


@pytest.fixture(scope="package")
def averaged_run(tmp_path_factory: pytest.TempPathFactory, prepare_once: Prepare) -> tuple[Path, dict[str, float]]:
    """The workdir of a run that averages its variables, and its last evaluation."""
    workdir = tmp_path_factory.mktemp("averaged")
    return workdir, train(small_config(ema_decay=0.9, num_steps=4), workdir, devices=jax.devices()[:1])
