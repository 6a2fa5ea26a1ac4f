"""Commands that are interrupted at chosen moments: afterwards the same command gives the same bits, and nothing is lost.

Training is stopped at its first compilation, in training, evaluation, saving and reporting; `predict`, `convert` and `prepare`
at several moments of their work. A full disk is a limit on the size of files, which ends writing as a full one does.
"""

import hashlib
import itertools
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np
import psutil

import paca_jax
from tests.runs import ROOT, command, environment, run_to_the_end, scalars

LONGEST = 300  # seconds of one command
_OPTIONS = {
    "num_steps": 40,
    "eval_every_steps": 20,
    "checkpoint_every_steps": 5,
    "log_every_steps": 5,
    "dataset.num_workers": 1,
}
SIGNALS = {"SIGKILL": (-9,), "SIGTERM": (143, -15), "SIGINT": (130,)}
_FULL, _FROZEN, _GONE = "full disk", "frozen worker", "record gone"

Ready = Callable[[str, Path], bool]


def _says(text: str) -> Ready:
    return lambda log, _: text in log


# When to interrupt a training run, by what it has logged and what is in its workdir.
MOMENTS: dict[str, Ready] = {
    "start": lambda log, workdir: (workdir / "checkpoints").exists(),
    "first compilation": _says("their shapes and shardings"),
    "training": _says("step 10/40"),
    "evaluation": _says("step 20/40"),
    "saving": lambda log, workdir: "step 15/40" in log and bool(list((workdir / "checkpoints").glob("*tmp*"))),
    "reporting": lambda log, workdir: (workdir / "checkpoints" / "40").exists(),
}


@dataclass
class Ended:
    """A command that has ended.

    Attributes:
        status: its exit status.
        output: what it printed.
        left: its processes that are still alive.
    """

    status: int
    output: str
    left: int

    @property
    def is_clear(self) -> bool:
        """Whether it printed no traceback, at most one error, and left no process."""
        return "Traceback" not in self.output and self.output.count("error:") <= 1 and not self.left


class Command:
    """A command in a session of its own."""

    def __init__(self, line: list[str]) -> None:
        self.output = ""
        self.process = subprocess.Popen(
            line, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,))
        self._reader.start()

    def _read(self, stream: IO[bytes]) -> None:
        while data := os.read(stream.fileno(), 1 << 16):
            self.output += data.decode(errors="replace")

    def wait_until(self, ready: Callable[[str], bool]) -> bool:
        """Returns whether the command is still running when something holds of its output."""
        end = time.monotonic() + LONGEST
        while self.process.poll() is None and time.monotonic() < end:
            if ready(self.output):
                return True
            time.sleep(0.002)
        return False

    def ended(self) -> Ended:
        """Waits for the end of the command, and kills it after `LONGEST`."""
        try:
            self.process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
        time.sleep(2)  # for workers, which end with their parent
        left = _session(self.process.pid)
        for process in left:
            process.kill()
        self._reader.join()
        return Ended(self.process.wait(), self.output, len(left))


def _session(leader: int) -> list[psutil.Process]:
    """Returns the live processes of a session."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def campaign(out: Path, seed: int) -> dict[str, Any]:
    """Interrupts commands in every way at every moment, and returns a row for each."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and so would the commands
    rows = []
    for row in itertools.chain(_trainings(out), _tools(out, random.Random(seed))):
        print(f"{row['command']}, {row['moment']}, {row['event']}: {'holds' if row['holds'] else row}", flush=True)
        rows.append(row)
    return {"holds": all(row["holds"] for row in rows), "seed": seed, "rows": rows}


def _trainings(out: Path) -> Iterator[dict[str, Any]]:
    data_dir = out / "datasets"
    shutil.copytree(ROOT / "datasets", data_dir)
    options = {key.replace(".", "__"): value for key, value in _OPTIONS.items()} | {"dataset__data_dir": str(data_dir)}

    def start(name: str) -> list[str]:
        return command(out / name, **options)

    run_to_the_end(*start("whole"))
    for moment, ready in MOMENTS.items():
        for event in (*SIGNALS, _FULL):
            yield _interrupted(out, f"{moment}, {event}", start, moment, event, ready, data_dir)
    for event in (_FROZEN, _GONE):
        yield _interrupted(out, event, start, "training", event, MOMENTS["training"], data_dir)


def _interrupted(
    out: Path, name: str, start: Callable[[str], list[str]], moment: str, event: str, ready: Ready, data_dir: Path
) -> dict[str, Any]:
    """Interrupts a training run, starts it again, and compares it with the whole one."""
    workdir = out / name.replace(" ", "_").replace(",", "")
    running = Command(start(workdir.name))
    in_time = running.wait_until(lambda log: ready(log, workdir))
    with _records_gone(data_dir) if event == _GONE else _nothing():
        _interrupt(running.process, event)
        ended = running.ended()
    statuses = SIGNALS.get(event, (130,) if event == _FROZEN else (0, 2))
    again = Command(start(workdir.name)).ended()
    same = again.status == 0 and _same(out / "whole", workdir)
    row = {"command": "train", "moment": moment, "event": event, "in_time": in_time, "status": ended.status}
    is_right = ended.status in statuses or (ended.status == 0 and moment == "reporting")
    holds = is_right and (ended.is_clear or event == "SIGKILL") and same
    shutil.rmtree(workdir)
    return {**row, "same_afterwards": same, "last_line": _last_line(ended.output), "holds": holds}


def _interrupt(process: subprocess.Popen, event: str) -> None:
    if event == _FULL:
        _limit_files(process.pid)
    elif event == _FROZEN:
        workers = [
            other for other in _session(process.pid) if other.ppid() == process.pid and "tracker" not in str(other.cmdline())
        ]
        for worker in workers:
            worker.suspend()
        time.sleep(5)  # the run waits for it
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(1)
    elif event in SIGNALS:
        process.send_signal(getattr(signal, event))


def _limit_files(process: int) -> None:
    """Lets a process and those that it starts write no byte to any file."""
    resource.prlimit(process, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


@contextmanager
def _records_gone(data_dir: Path) -> Iterator[None]:
    """A context without the second half of the records, which are restored at its end."""
    files = sorted(data_dir.rglob("*.array_record*"))
    before = {file: file.read_bytes() for file in files}
    for file in files:
        os.truncate(file, file.stat().st_size // 2)
    try:
        yield
    finally:
        for file, data in before.items():
            file.write_bytes(data)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _same(whole: Path, again: Path) -> bool:
    """Returns whether two runs have the same metrics and the same variables, bit for bit."""
    if scalars(whole) != scalars(again):
        return False
    expected, found = (paca_jax.load(workdir)[1] for workdir in (whole, again))
    return bool(jax.tree.all(jax.tree.map(np.array_equal, expected, found)))


def _tools(out: Path, rng: random.Random) -> Iterator[dict[str, Any]]:
    """Interrupts `predict`, `convert` and `prepare` after some part of the time that they take."""
    picture = out / "pictures"
    picture.mkdir()
    for index in range(6):
        shutil.copy(ROOT / "docs" / "clusters.png", picture / f"{index}.png")
    python = [sys.executable, "-m"]
    whole = str(out / "whole")
    pictures = [str(path) for path in sorted(picture.iterdir())]
    tools = {
        "predict": lambda place: [*python, "paca_jax.predict", f"--checkpoint={whole}", *pictures, f"--out={place}"],
        "convert to a file": lambda place: [*python, "paca_jax.convert", whole, f"{place}/model.safetensors"],
        "convert to a folder": lambda place: [*python, "paca_jax.convert", f"{out}/given.safetensors", f"{place}/run"],
        "prepare": lambda place: [*python, "paca_jax.data.prepare", "scenes", f"--data_dir={place}"],
    }
    run_to_the_end(*python, "paca_jax.convert", whole, f"{out}/given.safetensors")
    for name, line in tools.items():
        place = out / f"{name.replace(' ', '_')}.whole"
        began = time.monotonic()
        run_to_the_end(*line(place))
        seconds, expected = time.monotonic() - began, _content(place)
        for event in (*SIGNALS, _FULL):
            for part in (rng.uniform(0.3, 0.7), rng.uniform(0.7, 1.0)):
                yield _tool_interrupted(
                    out / f"{name}.{event}.{part:.2f}".replace(" ", "_"), name, line, event, part * seconds, expected
                )


def _tool_interrupted(
    place: Path, name: str, line: Callable[[Path], list[str]], event: str, after: float, expected: dict[str, str]
) -> dict[str, Any]:
    running = Command(line(place))
    try:
        running.process.wait(after)
    except subprocess.TimeoutExpired:
        _interrupt(running.process, event)
    ended = running.ended()
    again = Command(line(place)).ended() if ended.status else ended
    same = again.status == 0 and _content(place) == expected
    is_right = ended.status in (0, *SIGNALS.get(event, (2,)))
    holds = is_right and (ended.is_clear or event == "SIGKILL") and same
    last = _last_line(ended.output if holds else again.output)
    row = {"command": name, "moment": f"after {after:.1f} s", "event": event, "in_time": True, "status": ended.status}
    shutil.rmtree(place, ignore_errors=True)
    return {**row, "same_afterwards": same, "last_line": last, "holds": holds}


def _content(place: Path) -> dict[str, str]:
    """Returns the hash of each file, without those that hold the time of writing or the path of the folder."""
    files = [file for file in place.rglob("*") if file.is_file() and file.suffix in (".png", ".safetensors", ".array_record")]
    return {str(file.relative_to(place)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _last_line(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    return lines[-1][:160] if lines else ""


def as_table(result: dict[str, Any]) -> str:
    """Returns the campaign as a Markdown table."""
    lines = ["| command | moment | event | status | same afterwards | holds |", "|:--|:--|:--|--:|:--|:--|"]
    lines += [
        f"| {row['command']} | {row['moment']}{'' if row['in_time'] else ' (missed)'} | {row['event']} | {row['status']} | "
        f"{'yes' if row['same_afterwards'] else 'no'} | {'yes' if row['holds'] else 'no'} |"
        for row in result["rows"]
    ]
    return (
        "\n".join(lines)
        + f"\n\nSeed {result['seed']}; {sum(row['holds'] for row in result['rows'])} of {len(result['rows'])} hold.\n"
    )
