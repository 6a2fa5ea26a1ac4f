"""The errors of Orbax and TensorStore, each in one sentence, without what their threads print about it."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from etils import epath

from paca_jax.errors import UserError, summary

logger = logging.getLogger(__name__)

# What they raise on missing, truncated, altered or differently shaped files.
_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_ON_DAMAGE = (ValueError, OSError, LookupError, TypeError, AttributeError, RecursionError)


@contextmanager
def damage_as_user_error(step_folder: epath.Path) -> Iterator[None]:
    """Returns a context in which errors about a damaged checkpoint become one sentence."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, _ON_DAMAGE) and type(error) is not Exception:  # which Orbax raises around those of TensorStore
            raise
        if isinstance(error, OSError) and not isinstance(error, _ABSENT):
            raise UserError(
                f"The checkpoint {step_folder} cannot be read ({summary(error)}); nothing was deleted. Run the same command "
                "again."
            ) from error
        raise UserError(
            f"The checkpoint {step_folder} is damaged or belongs to another model ({summary(error)}); nothing was "
            "deleted. Move that folder away to resume from the checkpoint before it, or choose another workdir."
        ) from error


@contextmanager
def write_errors_as_user_error(folder: epath.Path) -> Iterator[None]:
    """Returns a context in which errors about a full disk or a lost folder become one sentence."""
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError) as error:
        _FROM_THREADS.lines.clear()
        raise UserError(
            f"A checkpoint cannot be written to {folder} ({summary(error)}); those that are there are intact. Free "
            "some space or make the folder writable, and run the same command again."
        ) from error
    while _FROM_THREADS.lines:
        logger.warning("Orbax reports: %s", _FROM_THREADS.lines.pop(0))


class _HoldBack(logging.Filter):
    """Holds back what Orbax's threads log with a traceback. If no error follows, it is logged after all, in one line."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Returns whether a record is about something else."""
        held = bool(record.exc_info) and "orbax" in record.pathname
        if held:
            self.lines.append(record.getMessage().splitlines()[0])
        return not held


_FROM_THREADS = _HoldBack()


@cache  # once in a process
def silence_background() -> None:
    """Silences the threads of Orbax about a failure, of which its caller raises the error; other threads are left as they are.

    What is still under way then ends in a closed event loop, or in tasks and coroutines that nothing awaits.
    """
    logging.getLogger("absl").addFilter(_FROM_THREADS)
    left = "coroutine '.*(serialize|CheckpointHandler|cancellable).*' was never awaited"
    warnings.filterwarnings("ignore", left, RuntimeWarning)
    words = ("async_serialize", "tensorstore")
    logging.getLogger("asyncio").addFilter(lambda record: not any(word in record.getMessage() for word in words))
    print_unraisable = sys.unraisablehook

    def on_unraisable(found: Any) -> None:
        if "async_serialize" not in repr(found.object) and str(found.exc_value) != "Event loop is closed":
            print_unraisable(found)

    sys.unraisablehook = on_unraisable
