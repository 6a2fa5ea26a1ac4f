"""A run that is killed at random moments, also while saving, against the same run without interruption."""

import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

import paca_jax
from tests.proof.starts import CHECKPOINT_EVERY, Start
from tests.runs import ROOT, environment, run_to_the_end, scalars

EXIT_STATUS = {"SIGKILL": -9, "SIGTERM": 143}


def campaign(start: Start, out: Path, count: int, seed: int) -> dict[str, Any]:
    """Kills a run `count` times, alternating SIGKILL and SIGTERM, lets it finish, and compares it with an uninterrupted one.

    Half of the kills wait until a checkpoint is being written. SIGTERM loses nothing, as the run saves its step first.
    """
    whole, killed = out / "whole", out / "killed"
    for workdir in (whole, killed):
        shutil.rmtree(workdir, ignore_errors=True)
    run_to_the_end(*start(whole))

    rng = random.Random(seed)
    rows = [_kill(start, killed, rng, index) for index in range(count)]
    run_to_the_end(*start(killed))

    _, expected = paca_jax.load(whole)
    _, found = paca_jax.load(killed)
    same_parameters = bool(jax.tree.all(jax.tree.map(np.array_equal, expected, found)))
    same_metrics = scalars(whole) == scalars(killed)
    steps_lost = [row["reached"] - row["saved"] for row in rows if row["reached"] >= row["saved"]]
    killed_each_time = all(row["exit"] == EXIT_STATUS[row["signal"]] for row in rows)
    most_lost = max(steps_lost, default=0)
    return {
        "command": start(killed),
        "kills": rows,
        "same_parameters": same_parameters,
        "same_metrics": same_metrics,
        "most_steps_lost": most_lost,
        "killed_each_time": killed_each_time,
        "holds": same_parameters and same_metrics and killed_each_time and most_lost <= 2 * CHECKPOINT_EVERY,
    }


def _kill(start: Start, workdir: Path, rng: random.Random, index: int) -> dict[str, Any]:
    """Starts the run, kills it, and returns the last step that it reached and the last one that it saved."""
    name = "SIGKILL" if index % 2 == 0 else "SIGTERM"
    while_saving = index % 4 >= 2
    before = _saved(workdir)
    process = subprocess.Popen(start(workdir), cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL)
    while process.poll() is None and _saved(workdir) <= before:
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 1.0))
    while while_saving and process.poll() is None and not _being_saved(workdir):
        time.sleep(0.0005)
    process.send_signal(getattr(signal, name))
    code = process.wait()
    return {
        "signal": name,
        "while_saving": while_saving and bool(_being_saved(workdir)),
        "exit": code,
        "reached": max((line["step"] for line in scalars(workdir)), default=0),
        "saved": _saved(workdir),
    }


def _saved(workdir: Path) -> int:
    folder = workdir / "checkpoints"
    return max((int(path.name) for path in folder.glob("*") if path.name.isdigit()), default=0) if folder.exists() else 0


def _being_saved(workdir: Path) -> list[Path]:
    return list((workdir / "checkpoints").glob("*tmp*"))


def as_table(result: dict[str, Any]) -> str:
    """Returns the campaign as a Markdown table."""
    lines = ["| kill | signal | while saving | last step logged | last step saved |", "|--:|:--|:--|--:|--:|"]
    for index, row in enumerate(result["kills"], start=1):
        saving = "yes" if row["while_saving"] else "no"
        lines.append(f"| {index} | {row['signal']} | {saving} | {row['reached']} | {row['saved']} |")
    lines += [
        "",
        f"Final parameters equal bit for bit: {result['same_parameters']}. Metrics equal: {result['same_metrics']}. "
        f"Most steps lost: {result['most_steps_lost']}. Killed each time, SIGTERM with status 143 after saving: "
        f"{result['killed_each_time']}.",
    ]
    return "\n".join(lines) + "\n"
