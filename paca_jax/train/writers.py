"""Where scalars go: TensorBoard events and `metrics.jsonl`."""

import json
from collections.abc import Mapping
from typing import Any

import jax
from clu import metric_writers
from etils import epath

METRICS_FILE = "metrics.jsonl"


class JsonLinesWriter(metric_writers.MetricWriter):
    """Writes the scalars of a step as one JSON object with its `step`, a line a step, when the step is flushed."""

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
                file.write(json.dumps({"step": self._step, **self._scalars}) + "\n")
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
    kept = []
    for line in path.read_text().splitlines(keepends=True):
        if not line.endswith("\n"):
            break
        if json.loads(line)["step"] <= last_step:
            kept.append(line)
    temporary = path.parent / f"{path.name}.new"
    temporary.write_text("".join(kept))
    temporary.replace(path)


def scalars_of_step(workdir: epath.Path, step: int, prefix: str) -> dict[str, float]:
    """Returns the scalars of `step` whose names start with `prefix`, from `metrics.jsonl`; none where it has no such line."""
    path = workdir / METRICS_FILE
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    found: dict[str, float] = {}
    for line in lines:
        if line["step"] == step:
            found |= {name: value for name, value in line.items() if name.startswith(prefix)}
    return found


def make_writer(workdir: epath.Path, start_step: int) -> metric_writers.MetricWriter:
    """Returns the writer of a run: TensorBoard and `metrics.jsonl` on the first process, nothing on the others."""
    if jax.process_index() > 0:
        return metric_writers.MultiWriter([])
    tensorboard = metric_writers.AsyncWriter(metric_writers.SummaryWriter(str(workdir)))
    return metric_writers.MultiWriter([JsonLinesWriter(workdir, start_step), tensorboard])
