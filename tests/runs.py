"""Small runs on the images that ship with the library, and how to start them."""

import importlib.util
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import fashion_mnist

ROOT = Path(__file__).resolve().parent.parent
LONGEST = 600  # seconds

needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed (extra tpu)")

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
    """Returns the config of a run of seconds; overrides are dotted keys with __ for the dot."""
    return overridden(fashion_mnist.get_config(), SMALL, overrides)


def overridden(config: ConfigDict, settings: dict[str, object], overrides: dict[str, object]) -> ConfigDict:
    """Sets dotted keys of a config, then the overrides (with __ for the dot), and returns it."""
    for key, value in (settings | {key.replace("__", "."): value for key, value in overrides.items()}).items():
        config.update_from_flattened_dict({key: value})
    return config


def command(workdir: Path, *arguments: str, **overrides: object) -> list[str]:
    """Returns the command line of the run of `small_config`."""
    values = SMALL | {key.replace("__", "."): value for key, value in overrides.items()}
    line = [sys.executable, "main.py", "--config=configs/fashion_mnist.py", f"--workdir={workdir}"]
    return [*line, *config_flags(values), *arguments]


def config_flags(values: Mapping[str, object]) -> list[str]:
    """Returns the flags that set dotted keys of a config."""
    return [f"--config.{key}={value}" for key, value in values.items()]


def run(arguments: Sequence[str], settings: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end and returns its output.

    Raises RuntimeError, with the stack of every thread, if it or a process that it leaves behind runs longer than `LONGEST`.
    """
    with subprocess.Popen(
        arguments,
        cwd=ROOT,
        env={**settings, "PYTHONFAULTHANDLER": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGABRT)
            output, errors = process.communicate()
            raise RuntimeError(f"{shlex.join(arguments)} did not end in {LONGEST} s.\n{output}\n{errors}") from None
    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)


def run_main(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end on one device, and returns its output."""
    return run(arguments, environment())


def run_code(code: str) -> str:
    """Runs code in a process of its own, which must succeed, and returns what it printed."""
    return _printed(code, environment())


def run_for_tpus(code: str) -> str:
    """Runs code that compiles for TPUs in a process of its own, without the flags of this one, and returns what it printed."""
    return _printed(code, environment_for_tpus())


def _printed(code: str, settings: Mapping[str, str]) -> str:
    done = run([sys.executable, "-c", textwrap.dedent(code)], settings)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_to_the_end(*arguments: str) -> None:
    """Runs a command; raises RuntimeError with its error output if it fails."""
    done = run_main(*arguments)
    if done.returncode:
        raise RuntimeError(done.stderr)


def environment_for_tpus() -> dict[str, str]:
    """Returns the environment of a process that compiles for TPUs, possibly beside others: without the flags of this one."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XLA_FLAGS", "JAX_PLATFORMS", "TPU_"))}
    return kept | {"ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}


def environment(devices: int = 1) -> dict[str, str]:
    """Returns the environment of a run on this many devices."""
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if "device_count" not in flag]
    return os.environ | {"XLA_FLAGS": " ".join([*flags, f"--xla_force_host_platform_device_count={devices}"])}


def free_port() -> int:
    """Returns an unused port of this machine."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


class Processes:
    """One run over several processes on this machine, each with one device and in a process group of its own.

    The output of process i goes to `<workdir>.<i>.log`.
    """

    def __init__(self, count: int, workdir: Path, line: list[str]) -> None:
        address = f"localhost:{free_port()}"
        self.logs = [workdir.parent / f"{workdir.name}.{index}.log" for index in range(count)]
        self.processes = []
        for index, log in enumerate(self.logs):
            flags = [f"--coordinator_address={address}", f"--num_processes={count}", f"--process_id={index}"]
            whole = [*line, *flags, "--heartbeat_timeout=20"]
            with log.open("w") as file:
                process = subprocess.Popen(whole, cwd=ROOT, env=environment(), stderr=file, stdout=file, start_new_session=True)
            self.processes.append(process)

    def log(self, index: int) -> str:
        """Returns the output of a process so far."""
        return self.logs[index].read_text()

    def wait_for(self, text: str, seconds: float = 300) -> None:
        """Returns once a text is in the output of the first process; fails if a process ends before."""
        end = time.monotonic() + seconds
        while text not in self.log(0):
            assert all(process.poll() is None for process in self.processes), "\n".join(map(self.log, range(len(self.logs))))
            assert time.monotonic() < end, self.log(0)
            time.sleep(0.01)

    def wait(self, seconds: float = 600) -> list[int]:
        """Returns the exit statuses when all have ended."""
        return [process.wait(seconds) for process in self.processes]

    def orphans(self) -> list[int]:
        """Returns the ids of the processes whose groups still have members, such as data workers."""
        return [process.pid for process in self.processes if _group_exists(process.pid)]


def _group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def scalars(workdir: Path) -> list[dict[str, float]]:
    """Returns the lines of `metrics.jsonl`, without the values that depend on the clock."""
    lines = [json.loads(line) for line in (Path(workdir) / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if not name.startswith("time/")} for line in lines]
