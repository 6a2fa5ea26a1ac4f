"""How command lines begin and end: one parser, and one line instead of a traceback.

Ctrl-C ends a program with one line even while the main thread is inside a library.
"""

import argparse
import io
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from paca_jax.errors import UserError, nearest, one_line

_EXIT_STATUS = 128 + signal.SIGINT
_SECONDS = 3.0  # that Python's own handling of the first Ctrl-C may take
_END = 0  # no signal has this number
_PATIENT = threading.Event()
# The packages that the extra "train" installs, by the names that they are imported by.
_OF_TRAINING = (
    "absl",
    "array_record",
    "clu",
    "filelock",
    "google",
    "grain",
    "ml_collections",
    "pycocotools",
    "tensorflow",
    "tensorflow_datasets",
)


class Parser(argparse.ArgumentParser):
    """A parser whose help shows a docstring as it is, without abbreviations of flags, and whose errors are one line."""

    def __init__(
        self, prog: str | None = None, description: str | None = None, usage: str | None = None, epilog: str = ""
    ) -> None:
        super().__init__(
            prog, usage, description, epilog, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
        )

    def parse_args(  # type: ignore[override]  # whose overloads for other namespaces nothing here needs
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Returns the values of a command line; for what is no argument of the command, ends the program as `error` does."""
        values, rest = self.parse_known_args(args, namespace)
        if rest:
            _fail(self.explain_stray(rest[0]))
        return values

    def explain_stray(self, argument: str, others: Sequence[str] = ()) -> str:
        """Returns a sentence about an argument that the command does not have.

        Args:
            argument: the argument.
            others: flags of the command that this parser does not know.
        """
        if not argument.startswith("-"):
            named = "".join(f" {action.metavar}" for action in self._get_positional_actions())
            after = f" after{named}" if named else ""
            return f"Expected only flags (--name=value){after}, got {argument!r}. See {self.prog} --help."
        flag = argument.partition("=")[0]
        known = [name for name in self._option_string_actions if name.startswith("--")]
        return f"There is no flag {flag}; {nearest(flag, [*known, *others])}. See {self.prog} --help."

    def error(self, message: str) -> NoReturn:
        """Ends the program with one line and status 2."""
        _fail(f"{message[:1].upper()}{message[1:]}. See {self.prog} --help.")


@contextmanager
def command_line(advice: str = "") -> Iterator[None]:
    """Returns a context in which errors that a user can cause, and Ctrl-C, end the program with one line and status 2 or 130.

    Such an error is a `UserError`, a missing package of the extra "train" or, where no narrower handler knows its cause, an
    `OSError`, a `MemoryError`, a `RecursionError`, or XLA's RESOURCE_EXHAUSTED.

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
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be text
    try:
        yield
        sys.stdout.flush()
    except UserError as error:
        _fail(str(error))
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package not in _OF_TRAINING:
            raise
        _fail(f"Expected the packages for training, got none named {package}. Install them: pip install 'paca-jax[train]'.")
    except BrokenPipeError:  # whoever read the output has read enough
        _discard_output()
        sys.exit(1)
    except (OSError, MemoryError, RecursionError, *_errors_of_xla()) as error:
        explanation = _explain(error)
        if explanation is None:
            raise
        _fail(explanation)
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


def _errors_of_xla() -> tuple[type[Exception], ...]:
    """Returns the class of XLA's errors, which cannot have been raised unless JAX is imported."""
    jax = sys.modules.get("jax")
    return (jax.errors.JaxRuntimeError,) if jax is not None else ()


def _explain(error: Exception) -> str | None:
    """Returns a sentence on an error whose cause nothing closer to it knows; None for a fault of the program."""
    if isinstance(error, OSError):
        place = "" if error.filename is None else f" at {os.fsdecode(error.filename)}"
        reason = error.strerror or str(error) or type(error).__name__
        return f"The operating system reported: {reason}{place}. Correct that and run the command again."
    if isinstance(error, RecursionError):
        return f"Expected files and values that are not nested so deeply, got: {error}. Correct them."
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        reason = str(error).partition("\n")[0] or "none left"
        return f"Expected enough memory, got: {reason}. Choose a smaller batch, image or model, or more devices."
    return None


def _discard_output() -> None:
    """Ends all output. Without this, Python would try to write the rest at its exit, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str) -> NoReturn:
    """Ends the program with an error in one line."""
    try:
        sys.stdout.flush()
    except OSError:
        _discard_output()
    print(f"error: {one_line(message)}", file=sys.stderr)
    sys.unraisablehook = lambda _: None  # of objects that the failure has left half made, ...
    logging.getLogger("asyncio").disabled = True  # ... and of tasks whose failure nobody asks for any more
    sys.exit(2)


def _leave(line: str) -> NoReturn:
    """Ends the process without Python's shutdown, in which libraries that were interrupted in their work may crash."""
    sys.stdout.flush()
    print(one_line(line), file=sys.stderr, flush=True)
    os._exit(_EXIT_STATUS)
