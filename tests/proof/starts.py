"""The command lines of the small runs that the campaigns interrupt; started again, a run resumes."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paca_jax.data.prepare import prepare
from tests.runs import command, config_flags, run_to_the_end

CHECKPOINT_EVERY = 5
_OPTIONS = {
    "num_steps": 600,
    "checkpoint_every_steps": CHECKPOINT_EVERY,
    "log_every_steps": 5,
    "eval_every_steps": 50,
    "checkpoint_keep": 2,
}
_ON_SCENES = _OPTIONS | {
    "num_steps": 80,
    "eval_every_steps": 40,
    "dataset.train_split": "train[:160]",
    "dataset.eval_split": "test[:24]",
}

# From a run's workdir to the command line that starts or resumes it.
Start = Callable[[Path], list[str]]


def classification(workdir: Path) -> list[str]:
    """Returns the command line of a small run of the Fashion-MNIST demo."""
    return command(workdir, **_OPTIONS)


def segmentation(workdir: Path) -> list[str]:
    """Returns the command line of a small segmentation run on scenes that starts from a classifier."""
    return on_scenes("segmentation", workdir, **_ON_SCENES | {"image_size": 64, "batch_size": 8})


def detection(workdir: Path) -> list[str]:
    """Returns the command line of a small detection run on scenes that starts from a classifier."""
    return on_scenes("detection", workdir, **_ON_SCENES | {"batch_size": 4})


def on_scenes(task: str, workdir: Path, **values: Any) -> list[str]:
    """Returns the command line of a run on scenes, after creating the scenes and a classifier to start from if missing."""
    datasets, classifier = workdir.parent / "datasets", workdir.parent / "classifier"
    prepare("scenes", str(datasets))
    if not classifier.exists():
        line = [sys.executable, "main.py", "--config=configs/fashion_mnist.py", f"--workdir={classifier}"]
        run_to_the_end(*line, "--config.num_steps=20")
    flags = config_flags({"dataset.data_dir": datasets, "init_from": classifier} | values)
    return [sys.executable, "main.py", f"--config=configs/scenes_{task}.py", f"--workdir={workdir}", *flags]
