"""Runs that are prepared once, so that the tests of a package trace each step once."""

from collections.abc import Callable, Iterator, Sequence

import jax
import pytest
from ml_collections import ConfigDict

from paca_jax.train import evaluation, train_loop
from paca_jax.train.run import Run, prepare

Prepare = Callable[[ConfigDict, Sequence[jax.Device]], Run]


@pytest.fixture(scope="package", autouse=True)
def prepare_once() -> Iterator[Prepare]:
    """A `prepare` that returns the same run for equal configs and devices; `train` and `evaluate_only` use it too."""
    runs: dict[tuple[str, tuple[jax.Device, ...]], Run] = {}

    def prepared(config: ConfigDict, devices: Sequence[jax.Device] | None = None) -> Run:
        devices = jax.devices() if devices is None else devices
        key = str(config), tuple(devices)
        if key not in runs:
            runs[key] = prepare(config, devices)
        return runs[key]

    with pytest.MonkeyPatch.context() as patch:
        for module in (train_loop, evaluation):
            patch.setattr(module, "prepare", prepared)
        yield prepared
