"""The line that tells a person how far a run is."""

import logging
import time

logger = logging.getLogger(__name__)


class Progress:
    """Logs step, loss, images/s and the time left."""

    def __init__(self, *, num_steps: int, start_step: int, batch_size: int) -> None:
        """Starts the clock.

        Args:
            num_steps: steps of the whole run.
            start_step: steps done when the clock starts.
            batch_size: images a step.
        """
        self._num_steps = num_steps
        self._batch_size = batch_size
        self._seconds_a_step = 0.0
        self.pause(start_step)

    def pause(self, step: int) -> None:
        """Starts the clock anew at `step`: what went before (evaluation, saving) does not count as training."""
        self._step, self._since = step, time.perf_counter()

    def report(self, step: int, loss: float) -> float:
        """Logs the line of `step`, and returns images/s since the clock was started or last read."""
        if step > self._step:
            self._seconds_a_step = (time.perf_counter() - self._since) / (step - self._step)
        self.pause(step)
        rate = self._batch_size / self._seconds_a_step if self._seconds_a_step else 0.0
        left = (self._num_steps - step) * self._seconds_a_step
        share = 100 * step // self._num_steps
        logger.info(
            "step %d/%d (%d%%)  loss %.4f  %s images/s  %s left",
            *(step, self._num_steps, share, loss, f"{rate:,.0f}", _duration(left)),
        )
        return rate


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
