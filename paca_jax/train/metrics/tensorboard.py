"""Events for TensorBoard, by clu and TensorFlow."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import tensorflow as tf
from clu import metric_writers
from etils import epath

from paca_jax.errors import UserError, summary


class TensorBoardWriter(metric_writers.SummaryWriter):
    """Writes scalars for TensorBoard; a failure is one sentence."""

    def __init__(self, workdir: epath.Path) -> None:
        self._workdir = workdir
        with self._failures_explained():
            super().__init__(str(workdir))

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Writes scalars of `step`."""
        with self._failures_explained():
            super().write_scalars(step, scalars)

    def flush(self) -> None:
        """Waits until everything is written."""
        with self._failures_explained():
            super().flush()

    @contextmanager
    def _failures_explained(self) -> Iterator[None]:
        try:
            yield
        except tf.errors.OpError as error:
            raise UserError(
                f"Expected to write TensorBoard's events to {self._workdir}, got: {summary(error)}. Correct that, and run the "
                "same command again."
            ) from error
