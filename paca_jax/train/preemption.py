"""Stopping after a step, which is saved: on SIGTERM, when the machine is about to be taken away, and on Ctrl-C."""

import os
import signal
import threading
from contextlib import ExitStack
from types import FrameType, TracebackType

import jax
from jax.experimental import multihost_utils

from paca_jax.command_line import patient

_NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}


class Stopped(SystemExit):
    """The end of a process that was asked to stop and has saved its step; the exit status is 128 plus the signal's number."""

    def __init__(self, signal_number: int, step: int) -> None:
        super().__init__(f"Stopped by {_NAMES[signal.Signals(signal_number)]} after step {step}, which is saved.")
        self.code = 128 + signal_number


class Preemption:
    """A context in which SIGTERM and Ctrl-C ask the run to stop after a step, the same one in every process."""

    def __init__(self) -> None:
        self._asked_by: int | None = None
        self._restore = ExitStack()

    def __enter__(self) -> "Preemption":
        # With several processes, JAX's coordination service catches SIGTERM and agrees on a step.
        handlers = {signal.SIGINT: self._ask if _alone() else self._ask_all} | ({signal.SIGTERM: self._ask} if _alone() else {})
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                self._restore.callback(signal.signal, number, signal.signal(number, handler))
            self._restore.enter_context(patient())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._restore.close()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked_by = number

    def _ask_all(self, number: int, frame: FrameType | None) -> None:
        self._asked_by = number
        os.kill(os.getpid(), signal.SIGTERM)

    def reached(self, step: int) -> bool:
        """Returns whether to stop after `step`. Every process must call this after every step."""
        return self._asked_by is not None if _alone() else multihost_utils.reached_preemption_sync_point(step)

    def stopped(self, step: int) -> Stopped:
        """Returns the exception that ends the process after `step`, which is saved."""
        return Stopped(self._asked_by or signal.SIGTERM, step)


def _alone() -> bool:
    return jax.process_count() == 1
