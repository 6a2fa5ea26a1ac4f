"""Runs that are prepared once, so that the tests of a package trace their steps once."""

from collections.abc import Callable, Iterator, Sequence

import jax
import pytest
from ml_collections import ConfigDict

from paca_jax.train import run as loop
from paca_jax.train.setup import Run, prepare

Prepare = Callable[[ConfigDict, Sequence[jax.Device]], Run]


@pytest.fixture(scope="package", autouse=True)
def prepare_once() -> Iterator[Prepare]:
    """`prepare` that gives the same run again for an equal config and the same devices; the loop uses it too."""
    runs: dict[tuple[str, tuple[jax.Device, ...]], Run] = {}

    def prepared(config: ConfigDict, devices: Sequence[jax.Device] | None = None) -> Run:
        devices = jax.devices() if devices is None else devices
        key = str(config), tuple(devices)
        if key not in runs:
            runs[key] = prepare(config, devices)
        return runs[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "prepare", prepared)
        yield prepared
