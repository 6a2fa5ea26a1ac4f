"""Lines of the log: scalars, and how far a run is."""

import logging
import time
from collections.abc import Mapping

logger = logging.getLogger(__name__)


def format_scalars(scalars: Mapping[str, float]) -> str:
    """Returns scalars as one line for the log."""
    return "  ".join(f"{name} {value:.4f}" for name, value in scalars.items())


class Progress:
    """Logs step, loss, images per second, and the time left."""

    def __init__(self, *, num_steps: int, batch_size: int) -> None:
        """Makes the log of a run of `num_steps` steps of `batch_size` images; `restart` starts its clock."""
        self._num_steps = num_steps
        self._batch_size = batch_size
        self._seconds_per_step = 0.0

    def restart(self, step: int) -> None:
        """Starts the clock, or starts it again after `step`, so that evaluation and saving do not count as training."""
        self._step, self._since = step, time.perf_counter()

    def report(self, step: int, loss: float) -> float:
        """Logs the line of `step`, and returns the images per second since the clock was last started or read."""
        if step > self._step:
            self._seconds_per_step = (time.perf_counter() - self._since) / (step - self._step)
        self.restart(step)
        rate = self._batch_size / self._seconds_per_step if self._seconds_per_step else 0.0
        left = (self._num_steps - step) * self._seconds_per_step
        percent = 100 * step // self._num_steps
        logger.info(
            "step %d/%d (%d%%)  loss %.4f  %s images/s  %s left",
            *(step, self._num_steps, percent, loss, f"{rate:,.0f}", _duration(left)),
        )
        return rate


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
