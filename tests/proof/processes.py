"""Runs over two and four processes against one: equal losses, equal counts, and exact resumption after a kill."""

import random
import shutil
import signal
from pathlib import Path
from typing import Any

import jax
import numpy as np

import paca_jax
from paca_jax.models import create_model
from tests.proof.kills import EXIT_STATUS
from tests.proof.starts import on_scenes
from tests.runs import SMALL, Processes, command, run_to_the_end, scalars

STEPS = 20
WHOLE = create_model("pacavit_nano").config
# The first steps of the demo itself: this undoes what `command` reduces.
DEMO = {
    **{key: getattr(WHOLE, key.removeprefix("model.")) for key in SMALL if key.startswith("model.")},
    "dataset.train_split": "train",
    "dataset.eval_split": "test",
    "num_steps": STEPS,
    "log_every_steps": 1,
    "eval_every_steps": STEPS,
    "checkpoint_every_steps": 5,
}
IMAGES = 2000
RUNS = {
    "one process": (1, {}),
    "two processes": (2, {}),
    "two processes, model axis": (2, {"mesh.model": 2}),
    "four processes": (4, {}),
    "four processes, fsdp and model axes": (4, {"mesh.data": 1, "mesh.fsdp": 2, "mesh.model": 2}),
}


def campaign(out: Path, seed: int) -> dict[str, Any]:
    """Trains the first steps of the demo on several processes, and again on two of which one is killed."""
    rows = []
    alone: list[dict[str, float]] = []
    for name, (count, mesh) in RUNS.items():
        workdir = _fresh(out / name.replace(" ", "_").replace(",", ""))
        lines = _run(count, workdir, command(workdir, **DEMO | mesh))
        alone = alone or lines
        correct = round(lines[-1]["eval/accuracy"] * IMAGES, 3)
        rows.append({"run": name, "largest_relative_difference": _difference(alone, lines), "correct": correct})
    same = all(row["largest_relative_difference"] <= 1e-5 and row["correct"] == rows[0]["correct"] for row in rows)
    rng = random.Random(seed)
    interrupted = {number.name: _interrupted(out, rng, number) for number in (signal.SIGKILL, signal.SIGTERM)}
    exact = all(all(found.values()) for found in interrupted.values())
    detectors = _detectors(out)
    agree = detectors["largest_relative_difference"] <= 1e-4 and detectors["largest_difference_of_ap"] <= 1e-3
    holds = same and exact and agree and detectors["box_ap"] > 0.1
    return {"steps": STEPS, "rows": rows, "one_of_two_interrupted": interrupted, "detection": detectors, "holds": holds}


def _detectors(out: Path) -> dict[str, float]:
    """Trains a detector on a few scenes and continues for some steps on one process and on two."""
    few = {"dataset.train_split": "train[:16]", "dataset.eval_split": "train[:16]", "batch_size": 4}
    trained = _fresh(out / "detector")
    run_to_the_end(*on_scenes("detection", trained, **few | {"num_steps": 160}))
    more = few | {"init_from": trained, "num_steps": 8, "log_every_steps": 1, "learning_rate": 1e-5}
    found = {}
    for count in (1, 2):
        workdir = _fresh(out / f"detector_on_{count}")
        found[count] = _run(count, workdir, on_scenes("detection", workdir, **more))
    scores = [(value, found[2][-1][name]) for name, value in found[1][-1].items() if name.startswith("eval/")]
    return {
        "largest_relative_difference": _difference(found[1], found[2]),
        "box_ap": found[1][-1]["eval/box_ap"],
        "mask_ap": found[1][-1]["eval/mask_ap"],
        "largest_difference_of_ap": max(abs(a - b) for a, b in scores),
    }


def _run(count: int, workdir: Path, line: list[str]) -> list[dict[str, float]]:
    codes = Processes(count, workdir, line).wait()
    if any(codes):
        raise RuntimeError(f"Expected exit statuses of 0, got {codes}. See the logs next to {workdir}.")
    return scalars(workdir)


def _difference(alone: list[dict[str, float]], lines: list[dict[str, float]]) -> float:
    """Returns the largest relative difference of the losses."""
    pairs = [(a["train/loss"], b["train/loss"]) for a, b in zip(alone, lines, strict=True)]
    return max(abs(a - b) / a for a, b in pairs)


def _interrupted(out: Path, rng: random.Random, number: signal.Signals) -> dict[str, bool]:
    """Signals one of two processes at a random step, restarts both, and compares with the uninterrupted run."""
    workdir = _fresh(out / f"one_of_two_{number.name}")
    run = Processes(2, workdir, command(workdir, **DEMO))
    run.wait_for(f"step {rng.randrange(8, 15)}/{STEPS}")
    run.processes[rng.randrange(2)].send_signal(number)
    codes = run.wait(120)
    again = Processes(2, workdir, command(workdir, **DEMO)).wait()
    _, expected = paca_jax.load(out / "two_processes")
    _, found = paca_jax.load(workdir)
    return {
        "both_stopped": all(codes) if number == signal.SIGKILL else codes == [EXIT_STATUS[number.name]] * 2,
        "resumed": again == [0, 0],
        "same_parameters": bool(jax.tree.all(jax.tree.map(np.array_equal, expected, found))),
        "same_metrics": scalars(workdir) == scalars(out / "two_processes"),
    }


def _fresh(workdir: Path) -> Path:
    shutil.rmtree(workdir, ignore_errors=True)
    workdir.parent.mkdir(parents=True, exist_ok=True)
    return workdir


def as_table(result: dict[str, Any]) -> str:
    """Returns the campaign as a Markdown table."""
    lines = [f"| run | largest relative difference of {STEPS} losses | correct of {IMAGES} images |", "|:--|--:|--:|"]
    lines += [f"| {row['run']} | {row['largest_relative_difference']:.1e} | {row['correct']:g} |" for row in result["rows"]]
    summary = ", ".join(f"{name.replace('_', ' ')}: {value:.3g}" for name, value in result["detection"].items())
    lines += ["", f"A detector that continues for 8 steps on two processes instead of one: {summary}."]
    for number, found in result["one_of_two_interrupted"].items():
        summary = ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in found.items())
        lines += ["", f"{number} to one of two processes at a random step, then both restarted: {summary}."]
    return "\n".join(lines) + "\n"
