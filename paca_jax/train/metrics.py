"""Where scalars go: TensorBoard events and `metrics.jsonl`."""

import json
import math
from collections.abc import Mapping
from typing import Any

import jax
from clu import metric_writers
from etils import epath

METRICS_FILE = "metrics.jsonl"


class JsonLinesWriter(metric_writers.MetricWriter):
    """Writes the scalars of a step as one JSON object with its `step`, a line a step, when the step is flushed.

    A value that is infinite or undefined becomes null, for JSON has no such numbers.
    """

    def __init__(self, workdir: epath.Path, start_step: int) -> None:
        """Opens the file for a run that goes on from `start_step`: what it holds of later steps is dropped."""
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
        """Writes the line of the step at hand."""
        if self._scalars:
            with self._path.open("a") as file:
                file.write(_as_line({"step": self._step, **self._scalars}))
            self._scalars = {}

    def close(self) -> None:
        """Writes what is left."""
        self.flush()

    def _not_a_scalar(self, *args: Any, **kwargs: Any) -> None:
        """Leaves everything but scalars to TensorBoard."""

    write_summaries = write_images = write_videos = write_audios = _not_a_scalar
    write_texts = write_histograms = write_pointcloud = write_hparams = _not_a_scalar


def _keep_until(path: epath.Path, last_step: int) -> None:
    """Drops lines of steps after `last_step`, and a last line that was cut by an interruption."""
    kept = [line for line in read_metrics(path.parent) if line["step"] <= last_step]
    temporary = path.parent / f"{path.name}.new"
    temporary.write_text("".join(map(_as_line, kept)))
    temporary.replace(path)


def read_metrics(workdir: epath.Path) -> list[dict[str, Any]]:
    """Returns the lines of `metrics.jsonl`, in their order; null comes as NaN.

    A last line that was cut by an interruption is left out.
    """
    path = workdir / METRICS_FILE
    text = path.read_text() if path.exists() else ""
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [{name: math.nan if value is None else value for name, value in line.items()} for line in lines]


def seconds_so_far(lines: list[dict[str, Any]]) -> float:
    """Returns the time in the training loop up to the last of the lines, over all starts of the run."""
    return max((line.get("time/seconds", 0.0) for line in lines), default=0.0)


def finite_or_null(scalars: Mapping[str, Any]) -> dict[str, Any]:
    """Returns scalars as JSON can hold them."""
    return {name: value if math.isfinite(value) else None for name, value in scalars.items()}


def best_evaluation(lines: list[dict[str, Any]], metric: str) -> dict[str, Any] | None:
    """Returns the line with the highest `metric`, the earliest of equals, or None where no line has it."""
    return max((line for line in lines if metric in line), key=lambda line: line[metric], default=None)


def _as_line(scalars: Mapping[str, Any]) -> str:
    return json.dumps(finite_or_null(scalars)) + "\n"


def make_writer(workdir: epath.Path, start_step: int) -> metric_writers.MetricWriter:
    """Returns the writer of a run: TensorBoard and `metrics.jsonl` on the first process, nothing on the others."""
    if jax.process_index() > 0:
        return metric_writers.MultiWriter([])
    tensorboard = metric_writers.AsyncWriter(metric_writers.SummaryWriter(str(workdir)))
    return metric_writers.MultiWriter([JsonLinesWriter(workdir, start_step), tensorboard])
