"""`metrics.jsonl`: one line of scalars for each step that was logged or evaluated."""

import json
import logging
import math
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath

from paca_jax.errors import UserError
from paca_jax.files import parse_json, read_file, reason, write_file

logger = logging.getLogger(__name__)

METRICS_FILE = "metrics.jsonl"
DAMAGED_FILE = "metrics.damaged.jsonl"  # the lines of the other that cannot be read
_LISTED = 10


class JsonLinesWriter:
    """Writes the scalars of each step as one line: a JSON object with its `step`.

    The line is written when the writer is flushed or the next step begins. Infinite values and NaN become null, since JSON has
    no such numbers.
    """

    def __init__(self, workdir: epath.Path, start_step: int) -> None:
        """Opens the file for a run that resumes after `start_step`: lines of later steps are dropped."""
        self._path = workdir / METRICS_FILE
        self._step = start_step
        self._scalars: dict[str, float] = {}
        if self._path.exists():
            _keep_until(self._path, start_step)

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Adds scalars to the line of `step`."""
        if step != self._step:
            self.flush()
            self._step = step
        self._scalars.update({name: float(value) for name, value in scalars.items()})

    def flush(self) -> None:
        """Writes the line of the current step."""
        if self._scalars:
            try:
                with self._path.open("a") as file:
                    file.write(_as_line({"step": self._step, **self._scalars}))
            except OSError as error:
                raise UserError(
                    f"Expected to write {self._path}, got: {reason(error)}. Correct that, and run the same command again."
                ) from error
            self._scalars = {}

    def close(self) -> None:
        """Writes the last line."""
        self.flush()


def _keep_until(path: epath.Path, last_step: int) -> None:
    """Drops the lines of steps after `last_step`, and a last line cut short; moves damaged ones to a file of their own."""
    lines, damaged = _read_lines(path)
    if damaged:
        aside = path.parent / DAMAGED_FILE
        before = read_file(aside) if aside.exists() else b""
        write_file(aside, before + b"".join(text + b"\n" for text in damaged.values()))
        logger.warning("Moved %d damaged lines of %s to %s.", len(damaged), path, aside)
    write_file(path, "".join(_as_line(line) for line in lines if line["step"] <= last_step))


def read_metrics(workdir: epath.Path) -> list[dict[str, Any]]:
    """Returns the lines of `metrics.jsonl` in order; null becomes NaN.

    A last line cut short by an interruption is left out, and so are damaged ones, which a warning names.

    Raises:
        UserError: if the file cannot be read.
    """
    path = workdir / METRICS_FILE
    lines, damaged = _read_lines(path) if path.exists() else ([], {})
    if damaged and jax.process_index() == 0:
        numbers = ", ".join(map(str, list(damaged)[:_LISTED])) + (", ..." if len(damaged) > _LISTED else "")
        logger.warning("Leaves out %d damaged lines of %s: %s.", len(damaged), path, numbers)
    return lines


def _read_lines(path: epath.Path) -> tuple[list[dict[str, Any]], dict[int, bytes]]:
    """Returns the lines of a file, and the damaged ones by their number, from 1. Blank ones are neither."""
    lines, damaged = [], {}
    for number, text in enumerate(read_file(path).split(b"\n")[:-1], start=1):
        if not text.strip():
            continue
        try:
            lines.append(_checked(parse_json(text, f"line {number} of {path}")))
        except UserError:
            damaged[number] = text
    return lines, damaged


def _checked(line: dict[str, Any]) -> dict[str, Any]:
    """Returns a line with NaN for null; raises a UserError if it has no step, or a value is no number."""
    kinds = {name: int if name == "step" else (int, float, type(None)) for name in ("step", *line)}
    for name, kind in kinds.items():
        value = line.get(name)
        if not isinstance(value, kind) or isinstance(value, bool) or (isinstance(value, int) and abs(value) >= 2**63):
            raise UserError(f"Expected a number for {name}, got {value!r}. Correct it.")
    return {name: math.nan if value is None else value for name, value in line.items()}


def seconds_so_far(lines: list[dict[str, Any]]) -> float:
    """Returns the time in the training loop up to the last line, over all starts of the run."""
    return max((line.get("time/seconds", 0.0) for line in lines), default=0.0)


def finite_or_null(scalars: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the scalars with null for infinite values and NaN."""
    return {name: value if math.isfinite(value) else None for name, value in scalars.items()}


def best_evaluation(lines: list[dict[str, Any]], metric: str) -> dict[str, Any] | None:
    """Returns the line with the highest `metric`, the earliest of equals, or None if no line has it."""
    return max((line for line in lines if metric in line), key=lambda line: line[metric], default=None)


def _as_line(scalars: Mapping[str, Any]) -> str:
    return json.dumps(finite_or_null(scalars)) + "\n"
