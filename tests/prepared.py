"""Runs that are prepared once, so that the tests of a package trace each step once."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import jax
import pytest
from ml_collections import ConfigDict

from paca_jax.train import evaluation, train_loop
from paca_jax.train.config import flat_items
from paca_jax.train.run import Run, prepare

Prepare = Callable[[ConfigDict, Sequence[jax.Device]], Run]

# What a run reads when it starts, or between its steps: no program depends on it.
READ_LATER = ("profile_steps", "log_every_steps", "checkpoint_every_steps", "init_from", "init_weights")


@pytest.fixture(scope="package", autouse=True)
def prepare_once() -> Iterator[Prepare]:
    """A `prepare` that shares the programs of runs that have the same ones; `train` and `evaluate_only` use it too."""
    runs: dict[tuple[str, tuple[jax.Device, ...]], Run] = {}

    def prepared(config: ConfigDict, devices: Sequence[jax.Device] | None = None) -> Run:
        devices = jax.devices() if devices is None else devices
        key = str([item for item in flat_items(config) if item[0] not in READ_LATER]), tuple(devices)
        if key not in runs:
            runs[key] = prepare(config, devices)
        return dataclasses.replace(runs[key], config=config)

    with pytest.MonkeyPatch.context() as patch:
        for module in (train_loop, evaluation):
            patch.setattr(module, "prepare", prepared)
        yield prepared
