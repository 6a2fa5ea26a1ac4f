"""Where the scalars of a run go."""

import importlib.util
import logging
from collections.abc import Mapping
from typing import Any, Protocol

import jax
from etils import epath

from paca_jax.train.metrics.json_lines import JsonLinesWriter

logger = logging.getLogger(__name__)


class Writer(Protocol):
    """What a run writes its scalars with."""

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Writes scalars of `step`."""

    def flush(self) -> None:
        """Waits until everything is written."""

    def close(self) -> None:
        """Writes what is left; nothing can be written any more."""


class _Writers:
    """Several writers as one."""

    def __init__(self, *writers: Writer) -> None:
        self._writers = writers

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        for writer in self._writers:
            writer.write_scalars(step, scalars)

    def flush(self) -> None:
        for writer in self._writers:
            writer.flush()

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


def make_writer(workdir: epath.Path, start_step: int) -> Writer:
    """Returns the writer of a run: `metrics.jsonl` and TensorBoard on the first process, nothing on the others.

    Without TensorFlow, which a log line tells, it is `metrics.jsonl` alone.
    """
    if jax.process_index() > 0:
        return _Writers()
    if importlib.util.find_spec("tensorflow") is None:
        logger.info("TensorFlow is not installed: scalars go to metrics.jsonl, and not to TensorBoard.")
        return _Writers(JsonLinesWriter(workdir, start_step))
    from paca_jax.train.metrics.tensorboard import TensorBoardWriter  # with TensorFlow, which takes long to import

    return _Writers(JsonLinesWriter(workdir, start_step), TensorBoardWriter(workdir))
