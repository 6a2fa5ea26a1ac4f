"""Small runs on the images that ship with the library, for tests and campaigns."""

import json
import os
import subprocess
import sys
from pathlib import Path

from ml_collections import ConfigDict

from configs import fashion_mnist

ROOT = Path(__file__).resolve().parent.parent

SMALL = {
    "model.embed_dims": (16, 16, 32, 32),
    "model.depths": (1, 1, 1, 1),
    "model.num_heads": (1, 1, 2, 2),
    "model.drop_path_rate": 0.2,
    "dataset.train_split": "train[:320]",
    "dataset.eval_split": "test[:72]",
    "batch_size": 32,
    "num_steps": 12,
    "log_every_steps": 2,
    "eval_every_steps": 6,
    "checkpoint_every_steps": 4,
}


def small_config(**overrides: object) -> ConfigDict:
    """Returns the demo's config cut down to seconds; keys are dotted, with __ for the dot."""
    config = fashion_mnist.get_config()
    for key, value in (SMALL | {key.replace("__", "."): value for key, value in overrides.items()}).items():
        config.update_from_flattened_dict({key: value})
    return config


def command(workdir: Path, *arguments: str, **overrides: object) -> list[str]:
    """Returns the command line of the same run."""
    values = SMALL | {key.replace("__", "."): value for key, value in overrides.items()}
    flags = [f"--config.{key}={value}" for key, value in values.items()]
    return [sys.executable, "main.py", "--config=configs/fashion_mnist.py", f"--workdir={workdir}", *flags, *arguments]


def run_main(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end and returns its output."""
    return subprocess.run(arguments, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)


def environment() -> dict[str, str]:
    """Returns the environment of a run on one device."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    alone = " ".join(flag for flag in flags if "device_count" not in flag)
    return {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | ({"XLA_FLAGS": alone} if alone else {})


def scalars(workdir: Path) -> list[dict[str, float]]:
    """Returns the lines of `metrics.jsonl` without what depends on the clock."""
    lines = [json.loads(line) for line in (Path(workdir) / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if not name.startswith("time/")} for line in lines]
