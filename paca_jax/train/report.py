"""The report of a finished run: `report.json` and the pictures of the task."""

import importlib.metadata
import json
import logging
import platform
from statistics import median
from typing import Any

import jax
from etils import epath
from jaxtyping import PyTree

import paca_jax.version
from paca_jax.files import write_file
from paca_jax.train.metrics.json_lines import best_evaluation, finite_or_null, read_metrics, seconds_so_far
from paca_jax.train.metrics.progress import format_scalars
from paca_jax.train.run import Run

logger = logging.getLogger(__name__)

REPORT_FILE = "report.json"
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "grain", "pillow", "numpy")


def report(run: Run, variables: dict[str, PyTree], workdir: epath.Path, remake: bool) -> dict[str, float]:
    """Writes the files of a finished run that are meant for people, logs them, and returns its last evaluation.

    Args:
        run: the run.
        variables: the variables of the finished model, on this process.
        workdir: the folder of the run.
        remake: whether to overwrite pictures that are already there.
    """
    lines = read_metrics(workdir)
    last = [line for line in lines if line["step"] == run.steps.total]
    scalars = {name: value for line in last for name, value in line.items() if name.startswith("eval/")}
    if jax.process_index() == 0:
        files = [*run.task.report(variables, workdir, remake), _write_report(run, workdir, lines)]
        logger.info("%s", format_scalars(scalars))
        logger.info("Wrote %s.", ", ".join(str(file) for file in files))
        longer = "num_epochs" if run.config.num_steps is None else "num_steps"
        rate = "" if run.config.schedule == "steps" else "; its learning rate then rises again, to that of the longer schedule"
        logger.info("A larger %s continues this run%s. To train from the start, choose another --workdir.", longer, rate)
    return scalars


def _write_report(run: Run, workdir: epath.Path, lines: list[dict[str, Any]]) -> epath.Path:
    """Writes `report.json` from the lines of `metrics.jsonl`, and returns the file.

    `last` and `best` are evaluations with their `step`. `seconds` is the time in the training loop over all starts of the run,
    with evaluation and saving. `images_per_second` is the median of the logged rates, of training alone.
    """
    metric = run.best_metric
    rates = [line["time/images_per_second"] for line in lines if line.get("time/images_per_second")]
    device = run.mesh.devices.flat[0]
    installed = {package.name: package.version for package in importlib.metadata.distributions()}
    content = {
        "model": run.task.recipe,
        "steps": run.steps.total,
        "last": next((_evaluation(line) for line in reversed(lines) if metric in line), None),
        "best": _evaluation(best) if (best := best_evaluation(lines, metric)) else None,
        "seconds": seconds_so_far(lines),
        "images_per_second": median(rates) if rates else None,
        "devices": {"kind": device.device_kind, "mesh": dict(run.mesh.shape), "processes": jax.process_count()},
        "versions": {
            "paca-jax": paca_jax.version.__version__,
            "python": platform.python_version(),
            **{name: installed[name] for name in _PACKAGES if name in installed},
        },
        "config": run.config.to_dict(),
    }
    path = workdir / REPORT_FILE
    write_file(path, json.dumps(content, indent=2) + "\n")
    return path


def _evaluation(line: dict[str, Any]) -> dict[str, Any]:
    return finite_or_null({name: value for name, value in line.items() if name == "step" or name.startswith("eval/")})
