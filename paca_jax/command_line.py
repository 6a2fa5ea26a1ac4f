"""How command lines end: one line instead of a traceback, even if Ctrl-C comes while the main thread is inside a library."""

import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from paca_jax.errors import UserError

_EXIT_STATUS = 128 + signal.SIGINT
_SECONDS = 3.0  # that Python's own handling of the first Ctrl-C may take
_END = 0  # no signal has this number
_PATIENT = threading.Event()


@contextmanager
def command_line(advice: str = "") -> Iterator[None]:
    """Returns a context in which a `UserError` and Ctrl-C end the program with one line, and status 2 or 130.

    Python cannot raise `KeyboardInterrupt` while its main thread is compiling; the program then ends after three seconds all
    the same. A second Ctrl-C ends it immediately.

    Args:
        advice: the end of the line after Ctrl-C.
    """
    line = f"Stopped by Ctrl-C. {advice}".rstrip()
    read, write = os.pipe()
    os.set_blocking(write, False)
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(read, line), daemon=True)
    watcher.start()
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        _leave(line)
    finally:
        signal.set_wakeup_fd(before)
        os.write(write, bytes([_END]))
        watcher.join()
        os.close(read)
        os.close(write)


@contextmanager
def patient() -> Iterator[None]:
    """Returns a context in which the first Ctrl-C is left to the program's own handler, however long that takes."""
    _PATIENT.set()
    try:
        yield
    finally:
        _PATIENT.clear()


def _watch(signals: int, line: str) -> None:
    """Reads the numbers of signals from a pipe, and ends the process where Python's handlers cannot."""
    interrupts = 0
    while (number := os.read(signals, 1)[0]) != _END:
        if number != signal.SIGINT:
            continue
        interrupts += 1
        handled = _PATIENT.is_set() or select.select([signals], [], [], _SECONDS)[0]
        if interrupts > 1 or not handled:
            _leave(line)


def _leave(line: str) -> NoReturn:
    """Ends the process without Python's shutdown, in which libraries that were interrupted in their work may crash."""
    sys.stdout.flush()
    print(line, file=sys.stderr, flush=True)
    os._exit(_EXIT_STATUS)
