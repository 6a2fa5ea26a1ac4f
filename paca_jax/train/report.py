"""`report.json`: what a finished run has reached, and with what."""

import importlib.metadata
import json
import platform
from statistics import median
from typing import Any

import jax
from etils import epath

import paca_jax.version
from paca_jax.train.metrics import best_evaluation, finite_or_null, seconds_so_far
from paca_jax.train.setup import Run

REPORT_FILE = "report.json"
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "grain", "pillow", "numpy")


def write_report(run: Run, workdir: epath.Path, lines: list[dict[str, Any]]) -> epath.Path:
    """Writes the report of a finished run from the lines of its `metrics.jsonl`, and returns the file.

    `last` and `best` are evaluations with their `step`; `seconds` is the time in the training loop, evaluation and saving
    included, over all starts of the run; `images_per_second` is the median of what was logged, training only.
    """
    metric = run.best_metric
    rates = [line["time/images_per_second"] for line in lines if line.get("time/images_per_second")]
    device = run.mesh.devices.flat[0]
    report = {
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
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
        "config": run.config.to_dict(),
    }
    path = workdir / REPORT_FILE
    path.write_text(json.dumps(report, indent=2) + "\n")
    return path


def _evaluation(line: dict[str, Any]) -> dict[str, Any]:
    return finite_or_null({name: value for name, value in line.items() if name == "step" or name.startswith("eval/")})
