"""A part of the suite under the oldest and the newest versions of everything that is allowed, each in its own environment.

uv makes the environments, and finds or downloads the interpreters.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.runs import ROOT


class Versions(NamedTuple):
    """One set of versions.

    Attributes:
        python: the version of Python.
        pins: what is pinned beside the ranges of `pyproject.toml`.
        oldest: whether every direct dependency is the oldest that these allow.
    """

    python: str
    pins: Sequence[str] = ()
    oldest: bool = False


SETS = {
    "oldest": Versions("3.11", oldest=True),
    "newest on 3.11": Versions("3.11"),
    "a GPU image": Versions("3.12", ("jax==0.11.2", "flax==0.12.12")),
    "newest on 3.12": Versions("3.12"),
    "newest on 3.13": Versions("3.13"),
}
# Models, operations, conversion, checkpoints, workers, one training, one that resumes, and the commands: minutes for each set.
TESTS = (
    "tests/models/test_models.py",
    "tests/ops/test_attention.py",
    "tests/ops/test_conv_clustering.py::test_kernels_compute_in_bfloat16_what_the_reference_does_in_float32",
    "tests/ops/test_norm.py",
    "tests/ops/test_residual_mlp.py::test_eight_devices_compute_what_one_does",
    "tests/ops/nn",
    "tests/convert",
    "tests/checkpoints/test_workdir.py",
    "tests/data/loader/test_bucketing.py",
    "tests/data/loader/test_workers.py",
    "tests/train/test_checkpoints.py::test_a_truncated_checkpoint_is_told_and_kept",
    "tests/train/test_run.py::test_a_run_leaves_a_report",
    "tests/train/test_run.py::test_an_interrupted_run_goes_on_to_the_same_bits",
    "tests/train/test_run.py::test_evaluation_counts_every_example_once_whatever_the_batch",
    "tests/cli/test_main.py",
    "tests/cli/test_predict.py::test_a_classifier",
)
# What the tests themselves need, as new as possible: the oldest of these are not what is tested.
_FOR_TESTS = ("beartype", "psutil", "pytest==9.1.1", "pytest-xdist==3.8.0", "scikit-image")
_SHOWN = ("jax", "flax", "numpy", "orbax-checkpoint")


def campaign(out: Path, seed: int) -> dict[str, Any]:
    """Runs the tests under each set of versions, and returns a row for each; nothing is random."""
    del seed
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    rows = [_tested(out / name.replace(" ", "_"), name, versions) for name, versions in SETS.items()]
    return {"holds": all(row["status"] == 0 for row in rows), "rows": rows}


def _tested(folder: Path, name: str, versions: Versions) -> dict[str, Any]:
    python = folder / "bin" / "python"
    began = time.monotonic()
    uv("venv", "--python", versions.python, folder)
    install = ("pip", "install", "--python", python)
    resolution = ("--resolution", "lowest-direct") if versions.oldest else ()
    uv(*install, *resolution, f"paca-jax[train] @ {ROOT.as_uri()}", *versions.pins)
    installed = uv("pip", "freeze", "--python", python)
    (folder / "constraints.txt").write_text("".join(line + "\n" for line in installed.splitlines() if "@" not in line))
    uv(*install, "--constraints", folder / "constraints.txt", *_FOR_TESTS)
    uv("pip", "uninstall", "--python", python, "paca-jax")  # the tests are of the clone
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")}
    line = [python, "-m", "pytest", "-q", "-n", "2", "--dist", "loadgroup", "-m", "not slow", "-p", "no:cacheprovider", *TESTS]
    done = subprocess.run(line, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    (folder / "tests.log").write_text(done.stdout)
    found = dict(re.findall(r"^([\w-]+)==(\S+)$", installed, re.MULTILINE))
    return {
        "set": name,
        "python": versions.python,
        **{package: found[package] for package in _SHOWN},
        "status": done.returncode,
        "tests": summary(done.stdout),
        "minutes": round((time.monotonic() - began) / 60, 1),
    }


def summary(output: str) -> str:
    """Returns pytest's last line of a run's output: how many tests passed."""
    return (re.findall(r"^\d+ \w+.* in [\d.]+s.*$", output, re.MULTILINE) or ["no test ran"])[-1]


def uv(*arguments: object) -> str:
    """Runs uv, which is installed beside this interpreter, and returns what it prints."""
    line = [Path(sys.executable).parent / "uv", "--quiet", *arguments]
    return subprocess.run(line, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def as_table(result: dict[str, Any]) -> str:
    """Returns the campaign as a Markdown table."""
    lines = [f"| set | Python | {' | '.join(_SHOWN)} | tests |", f"|:--|:--|{':--|' * len(_SHOWN)}:--|"]
    for row in result["rows"]:
        lines.append(f"| {row['set']} | {row['python']} | {' | '.join(row[package] for package in _SHOWN)} | {row['tests']} |")
    return "\n".join(lines) + "\n"
