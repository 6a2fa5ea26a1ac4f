"""What a run says about the weights in its workdir: how they were trained, and what was measured of them."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from etils import epath

from paca_jax.checkpoints.hub.fetch import is_hub_address
from paca_jax.checkpoints.pretrained import is_official_name, is_url
from paca_jax.checkpoints.source import is_workdir
from paca_jax.convert.checkpoint import RAW
from paca_jax.files import read_json

REPORT_FILE = "report.json"
_METRIC = "eval/"


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """A record of the run that a checkpoint is of.

    Attributes:
        checkpoint: the checkpoint, as a source of weights.
        step: the steps after which it was saved.
        averaged: whether its weights are averages over the steps.
        dataset: the name of the data set and its splits, `name`, `train_split` and `eval_split`; empty if it is not recorded.
        metrics: what the run measured of these very weights on `eval_split`, by name; empty if nothing.
        pictures: the folder with the pictures of the finished run, if these are its weights; or None.
    """

    checkpoint: str
    step: int
    averaged: bool
    dataset: Mapping[str, str]
    metrics: Mapping[str, float]
    pictures: epath.Path | None


def read_run(source: str | os.PathLike[str], weights: str | None = None) -> RunRecord | None:
    """Returns the record of a run, or None if the source of weights is no workdir with a finished checkpoint.

    Args:
        source: a source of weights as for `paca_jax.load`.
        weights: "raw" or "ema", as for `paca_jax.load`. The runs of this library evaluate the average, if there is one.

    Raises:
        UserError: if the checkpoint or the report of the run is damaged.
    """
    if not isinstance(source, str | os.PathLike):
        return None
    typed = os.fspath(source)
    if is_hub_address(typed) or is_url(typed) or is_official_name(typed):
        return None
    if not is_workdir(typed):
        return None
    from paca_jax.checkpoints.workdir import latest_checkpoint  # Orbax takes seconds to import

    found = latest_checkpoint(typed)
    if found is None:
        return None
    checkpoint, step, metadata = found
    workdir = checkpoint.parent.parent
    has_average = (checkpoint / "ema").exists()
    report = _report_on(workdir, metadata["model"])
    finished = report.get("steps") == step
    evaluated = not has_average or weights != RAW
    return RunRecord(
        str(checkpoint),
        step,
        averaged=has_average and weights != RAW,
        dataset=_dataset(metadata.get("config")),
        metrics=_metrics(report, step) if evaluated else {},
        pictures=workdir if finished and evaluated else None,
    )


def _report_on(workdir: epath.Path, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the report in a workdir if it is on this model, else an empty one."""
    file = workdir / REPORT_FILE
    report = read_json(file) if file.exists() else {}
    return report if report.get("model") == recipe else {}


def _metrics(report: Mapping[str, Any], step: int) -> dict[str, float]:
    """Returns the evaluation after a step, if the report has it."""
    for found in (report.get("last"), report.get("best")):
        if isinstance(found, dict) and found.get("step") == step:
            return {
                name.removeprefix(_METRIC): value
                for name, value in found.items()
                if name.startswith(_METRIC) and isinstance(value, int | float) and not isinstance(value, bool)
            }
    return {}


def _dataset(config: Any) -> dict[str, str]:
    found = config.get("dataset") if isinstance(config, dict) else None
    names = ("name", "train_split", "eval_split")
    return {name: found[name] for name in names if isinstance(found.get(name), str)} if isinstance(found, dict) else {}
