"""Runs each case in a child of one process that has imported the library, so that a case costs a fraction of a second.

The parent starts neither a JAX backend nor a thread. A child is a fork of it with a folder of its own, and its output goes to
files. Its exit status and its peak memory come from the kernel.
"""

import atexit
import contextlib
import hashlib
import importlib
import os
import re
import resource
import shutil
import signal
import stat
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from paca_jax.cli.main import main
from paca_jax.errors import UserError, one_line
from tests.proof.hostile.case import WORKDIR, Case

SECONDS = 20.0
BYTES = 4 << 30
_MAKE_SECONDS = 120.0
_PAGE = resource.getpagesize()
_ERROR = re.compile(r"^(?:[\w. -]+: )?error: ", re.MULTILINE)
# What the cases import, most of which is slow.
_MODULES = (
    "torch",
    "tensorflow",
    "tensorflow_datasets",
    "orbax.checkpoint",
    "clu.metric_writers",
    "clu.parameter_overview",
    "array_record.python.array_record_module",
    "paca_jax.train.train_loop",
    "paca_jax.train.evaluation",
    "paca_jax.cli.train",
    "paca_jax.cli.pictures.predict",
    "paca_jax.cli.convert",
    "paca_jax.cli.main",
    "paca_jax.data.prepare",
    "paca_jax.data.convert_records",
    "paca_jax.checkpoints.workdir",
)


def import_library() -> None:
    """Imports what the cases need."""
    for module in _MODULES:
        importlib.import_module(module)


class _Child:
    """A case that is being made or run."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.case, self.folder = case, folder
        self.tree = folder / "tree"
        self.running = False
        self.pid = 0
        self.before: dict[str, str] = {}
        self.stopped = ""
        shutil.rmtree(folder, ignore_errors=True)
        self.tree.mkdir(parents=True)

    def start(self) -> None:
        """Forks for the next part of the case."""
        self.began = time.monotonic()
        self.peak = 0
        part, task = ("run", _as_program(self.case.run)) if self.running else ("make", self.case.make)
        self.pid = fork(task, self.tree, self.folder / part)

    def stop_if_over(self) -> None:
        """Kills the child if it takes longer, or more memory, than allowed."""
        seconds = time.monotonic() - self.began
        self.peak = max(self.peak, _resident(self.pid))
        if seconds > (SECONDS if self.running else _MAKE_SECONDS):
            self.stopped = "time"
        elif self.running and self.peak > BYTES:
            self.stopped = "memory"
        if self.stopped:
            os.killpg(self.pid, signal.SIGKILL)

    def result(self, status: int, usage: resource.struct_rusage) -> dict[str, Any]:
        """Returns the row of a case that has run."""
        part = "run" if self.running else "make"
        errors, output = ((self.folder / f"{part}.{name}").read_text(errors="replace") for name in ("stderr", "stdout"))
        after = _hashes(self.tree)
        code = os.waitstatus_to_exitcode(status)
        changed = sorted(path for path, found in self.before.items() if after.get(path) != found)
        if code == 0:  # a run that goes on writes into its workdir
            changed = [path for path in changed if path != WORKDIR and not path.startswith(f"{WORKDIR}/")]
        row = {
            "kind": self.case.kind,
            "name": self.case.name,
            "folder": self.folder.name,
            "status": code,
            "seconds": round(time.monotonic() - self.began, 2),
            "mib": max(self.peak, usage.ru_maxrss * 1024) >> 20,
            "changed": changed,
            "left": sorted(after.keys() - self.before.keys())[:10],
            "error": "".join(line for line in errors.splitlines(keepends=True) if "rror" in line)[-1000:],
        }
        outcome = _outcome(self.case, code, errors, output, changed, self.stopped)
        row["outcome"] = outcome if self.running else "not made"
        row["why"] = (self.case.loads or self.case.may_load) if row["outcome"] == "right" else ""
        return row


def fork(task: Callable[[], Any], here: Path, output: Path) -> int:
    """Starts a task in a child with a current folder of its own and its output in files; returns the child's id.

    What is registered for the exit of a program runs, but the interpreter is not taken down, which would cost half a second.
    """
    if pid := os.fork():
        return pid
    os.setsid()
    os.chdir(here)
    os.environ["PACA_JAX_CACHE"] = str(here / "cache")
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(f"{output}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
    try:
        status = _status(task)
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _status(task: Callable[[], Any]) -> int:
    """Runs a task, and returns the exit status that Python would have."""
    try:
        found = task()
    except SystemExit as ended:
        found = ended.code
    except BaseException:
        traceback.print_exc()
        return 1
    if isinstance(found, str):
        print(found, file=sys.stderr)
    return found if isinstance(found, int) else int(found is not None)


def run_cases(cases: Sequence[Case], folder: Path, report: Callable[[dict[str, Any]], None], children: int = 2) -> None:
    """Runs cases, a few at a time, and reports the row of each."""
    waiting = [*reversed(cases)]
    running: list[_Child] = []
    while waiting or running:
        while waiting and len(running) < children:
            running.append(_Child(waiting.pop(), folder / f"case{len(cases) - len(waiting)}"))
            running[-1].start()
        for child in [*running]:
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            if not pid:
                child.stop_if_over()
            elif child.running or status:
                _kill_group(child.pid)
                running.remove(child)
                row = child.result(status, usage)
                report(row)
                if row["outcome"] in ("clear", "right"):
                    shutil.rmtree(child.folder)
            else:
                child.before, child.running = _hashes(child.tree), True
                child.start()
        time.sleep(0.005)


def _as_program(run: Sequence[str] | Callable[[], Any]) -> Callable[[], Any]:
    """Returns what a child does: the command line, or the call, whose `UserError` ends it like a command line."""
    if not callable(run):

        def command() -> int | None:
            sys.argv = sys.orig_argv = ["paca", *run]
            return main(run)

        return command

    def call() -> int:
        try:
            run()
        except UserError as error:
            print(f"error: {one_line(str(error))}", file=sys.stderr)
            return 2
        return 0

    return call


def _outcome(case: Case, code: int, errors: str, output: str, changed: list[str], stopped: str) -> str:
    """Returns "clear" or "right", or what is wrong."""
    lines = _ERROR.findall(errors) + _ERROR.findall(output)
    if stopped:
        return f"too much {stopped}"
    if "Traceback" in errors + output:
        return "traceback"
    if code < 0:
        return "crash"
    if changed:
        return "changed"
    if code == 0:
        return "right" if case.loads or case.may_load else "silent"
    if case.loads:
        return "refused"
    if code != 2 or len(lines) != 1:
        return "unclear"
    start = _ERROR.search(errors)
    sentence = errors[start.start() :] if start else ""
    return "clear" if not case.names or any(name in sentence for name in case.names) else "unnamed"


def _hashes(tree: Path) -> dict[str, str]:
    """Returns a checksum of each file below a folder; a file that is no regular one has its kind."""
    found = {}
    for parent, folders, files in os.walk(os.fsencode(tree)):
        for name in (*folders, *files):
            path = os.path.join(parent, name)
            mode = os.lstat(path).st_mode
            kind = stat.S_IFMT(mode)
            content = (
                os.readlink(path) if stat.S_ISLNK(mode) else Path(os.fsdecode(path)).read_bytes() if stat.S_ISREG(mode) else b""
            )
            found[os.fsdecode(os.path.relpath(path, os.fsencode(tree)))] = f"{kind:o} {hashlib.sha256(content).hexdigest()}"
    return found


def _resident(pid: int) -> int:
    """Returns the memory of a process in bytes."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def _kill_group(pid: int) -> None:
    """Kills what a child has left behind."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
