"""The wheel alone, in environments of its own outside of the repository: its light core, then what trains.

The table has the size of both, the time of an import beyond that of JAX, and what ran.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.proof.versions import uv
from tests.runs import ROOT

PYTHONS = ("3.11", "3.12", "3.13")
# What a notebook does with a photo, and the seconds that imports take in a process of their own.
_NOTEBOOK = """
import sys, time
import jax
began = time.perf_counter()
import paca_jax
imported = time.perf_counter() - began
paca_jax.create_model, paca_jax.load, paca_jax.preprocess
everything = time.perf_counter() - began
heavy = [name for name in ("tensorflow", "clu", "grain", "orbax", "optax", "tensorstore", "torch") if name in sys.modules]
model = paca_jax.create_model("pacavit_nano", num_classes=2)
image = paca_jax.preprocess({photo!r}, model)[None]
variables = model.init(jax.random.key(0), image)
logits = jax.jit(model.apply)(variables, image)
paca_jax.explain.sheet(model, variables, {photo!r}, ("cat", "dog")).save("sheet.png")
import json
print(json.dumps({{"import": imported, "names": everything, "heavy": heavy, "shape": logits.shape}}))
"""
_PACA = (
    ("convert", "run", "model.safetensors"),
    ("predict", "--checkpoint=model.safetensors", "{photo}", "--out=seen"),
)


def campaign(out: Path, seed: int) -> dict[str, Any]:
    """Installs the wheel under each version of Python, and returns a row for each; nothing is random."""
    del seed
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    uv("build", "--wheel", "--out-dir", out, ROOT)
    (wheel,) = out.glob("*.whl")
    rows = [_installed(out / python, python, wheel) for python in PYTHONS]
    return {"holds": all(row["failed"] == "" for row in rows), "rows": rows}


def _installed(folder: Path, python: str, wheel: Path) -> dict[str, Any]:
    environment, work = folder / "environment", folder / "work"
    work.mkdir(parents=True)
    row: dict[str, Any] = {"python": python, "failed": ""}
    try:
        uv("venv", "--python", python, environment)
        bare = _mebibytes(environment)
        uv("pip", "install", "--python", environment, wheel)
        row["core_mib"] = _mebibytes(environment) - bare
        photo = next((environment / "lib").rglob("datasets/photographs/*/*.jpg"))
        row |= json.loads(_run([environment / "bin" / "python", "-c", _NOTEBOOK.format(photo=str(photo))], work))
        if row["heavy"]:
            raise RuntimeError(f"importing the library loads {row['heavy']}")
        uv("pip", "install", "--python", environment, f"paca-jax[train] @ {wheel.as_uri()}")
        row["train_mib"] = _mebibytes(environment) - bare
        paca = environment / "bin" / "paca"
        _run([paca, "train", "--config=fashion_mnist", "--config.num_steps=20", "--workdir=run"], work)
        for command in _PACA:
            _run([paca, *(part.format(photo=photo) for part in command)], work)
    except (RuntimeError, subprocess.CalledProcessError) as error:
        row["failed"] = str(error)
    return row


def _run(line: Sequence[object], folder: Path) -> str:
    """Runs a command outside of the repository, and returns what it prints."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(list(map(str, line)), cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{line[:3]}: status {done.returncode}: {done.stderr[-500:]}")
    return done.stdout


def _mebibytes(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file()) >> 20


def as_table(result: dict[str, Any]) -> str:
    """Returns the campaign as a Markdown table."""
    lines = [
        "| Python | core, MiB | with training, MiB | `import paca_jax` | with its functions | photo, training, conversion |",
        "|:--|--:|--:|--:|--:|:--|",
    ]
    for row in result["rows"]:
        times = (f"{row[key]:.2f} s" if key in row else "" for key in ("import", "names"))
        lines.append(
            f"| {row['python']} | {row.get('core_mib', '')} | {row.get('train_mib', '')} | {' | '.join(times)} | "
            f"{row['failed'] or 'yes'} |"
        )
    return "\n".join(lines) + "\n\nImports beyond that of JAX, in a process of its own.\n"
