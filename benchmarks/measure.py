"""Common parts of the benchmarks: interleaved timing, Markdown tables, and JSON with the circumstances of a measurement."""

import argparse
import datetime
import fcntl
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

MIB, GIB = 2**20, 2**30
_PACKAGES = ("jax", "jaxlib", "libtpu", "jax-cuda12-plugin", "jax-cuda13-plugin", "flax", "optax", "torch", "timm", "pillow")
_VARIABLES = (
    "GLIBC_TUNABLES",
    "JAX_PLATFORMS",
    "LIBTPU_INIT_ARGS",
    "OMP_NUM_THREADS",
    "XLA_FLAGS",
    "XLA_PYTHON_CLIENT_PREALLOCATE",
)


class Spread(NamedTuple):
    """The quartiles of a quantity that was measured several times."""

    low: float
    median: float
    high: float


def quartiles(values: Sequence[float]) -> Spread:
    """Returns the quartiles of measured values."""
    return Spread(*np.percentile(values, (25, 50, 75)).tolist())


def interleaved(calls: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 2) -> dict[str, list[float]]:
    """Returns the durations of each call in seconds, one per round, after rounds of warm-up.

    A round runs each call once, so that other load on the machine affects them equally. A call must return only when its work
    is done. The first round, in which programs may still compile, runs beside other benchmarks; the others are `alone`.
    """
    durations: dict[str, list[float]] = {name: [] for name in calls}
    with ExitStack() as waiting:
        for index in range(warm_up + rounds):
            if index == min(1, warm_up):
                waiting.enter_context(alone())
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                if index >= warm_up:
                    durations[name].append(time.perf_counter() - start)
    return durations


@contextmanager
def alone() -> Iterator[None]:
    """Waits until no other benchmark measures, if the environment variable BENCHMARKS_LOCK names a file that they share.

    So benchmarks can compile side by side, but run one after another.
    """
    path = os.environ.get("BENCHMARKS_LOCK")
    if path is None:
        yield
        return
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def device_memory(name: str) -> int:
    """Returns an entry of the device's own memory statistics in bytes; 0 if it has none."""
    return (jax.devices()[0].memory_stats() or {}).get(name, 0)


def memory() -> int:
    """Returns the bytes that programs may use: the limit that the device reports, or else the free memory of this machine."""
    return device_memory("bytes_limit") or os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def table(texts: Sequence[str], numbers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table: columns of text, then columns of numbers."""
    head, *lines = ("| " + " | ".join(cells) + " |" for cells in ((*texts, *numbers), *rows))
    return "\n".join([head, "|" + ":--|" * len(texts) + "--:|" * len(numbers), *lines])


def spread(values: Mapping[str, float], scale: float, digits: int) -> str:
    """Returns the fields of a `Spread` as `median (low to high)`, scaled and rounded."""
    low, median, high = (f"{scale * values[name]:.{digits}f}" for name in Spread._fields)
    return f"{median} ({low} to {high})"


def gib(size: int) -> str:
    """Returns bytes as GiB with two decimals."""
    return f"{size / GIB:.2f}"


def add_json(parser: argparse.ArgumentParser) -> None:
    """Adds the `--json` option, for `publish`."""
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write all numbers to this file, with command, hardware and versions"
    )


def publish(text: str, rows: Sequence[Mapping[str, Any]], path: Path | None, device: str | None = None) -> None:
    """Prints the tables of a benchmark and writes its rows, with the circumstances, to a JSON file.

    Args:
        text: the tables.
        rows: all numbers, in SI units and bytes.
        path: the JSON file, if any.
        device: the device that was measured or estimated; by default the processor of this machine.
    """
    found = circumstances(device or _processor())
    print(
        f"{found['date']}; {found['device']}; {', '.join(f'{name} {number}' for name, number in found['versions'].items())}\n"
    )
    print(text)
    if path:
        path.write_text(json.dumps({**found, "rows": rows}, indent=2) + "\n")


def circumstances(device: str) -> dict[str, Any]:
    """Returns the command, the date, the machine, package versions, and environment variables that affect performance."""
    installed = {package.metadata["Name"]: package.version for package in metadata.distributions()}
    return {
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": device,
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: installed[name] for name in _PACKAGES if name in installed},
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


def device_name() -> str:
    """Returns the kind of device that JAX uses by default."""
    device = jax.devices()[0]
    return _processor() if device.platform == "cpu" else device.device_kind


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
