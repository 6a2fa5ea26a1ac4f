"""Stopping in good order when the machine is about to be taken away."""

import signal
import threading
from types import FrameType, TracebackType

import jax
from jax.experimental import multihost_utils

EXIT_STATUS = 128 + signal.SIGTERM


class Preemption:
    """A context in which SIGTERM does not end the process but asks it to stop after a step, the same one in every process."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        # With several processes, JAX's coordination service catches the signal and agrees on a step.
        self._alone = jax.process_count() == 1
        self._before: signal.Handlers | object = None

    def __enter__(self) -> "Preemption":
        if self._alone and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)  # type: ignore[arg-type]

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked.set()

    def reached(self, step: int) -> bool:
        """Returns whether to stop after `step`. Every process must call this after every step."""
        return self._asked.is_set() if self._alone else multihost_utils.reached_preemption_sync_point(step)
