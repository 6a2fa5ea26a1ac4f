"""Where the time of a program goes: its kernels and their times, from JAX's profiler."""

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from benchmarks.measure import alone
from benchmarks.tpu_estimate import part
from paca_jax.planning.hlo import Module

_OPERATION = "hlo_op"  # the instruction that an event of the profiler belongs to


def kernel_times(run: Callable[[], object], steps: int, module: Module) -> list[dict[str, Any]]:
    """Runs a program under the profiler and returns its kernels, those that take longest first.

    Args:
        run: runs some steps and waits for their end.
        steps: how many.
        module: the program.

    Returns:
        For each kernel (on a CPU, each operation): its name, the part of the model that it comes from, and of a step the
        seconds that it takes and the times that it is launched.
    """
    sources = {instruction.name: instruction.source for instruction, _, _ in module.running()}
    with tempfile.TemporaryDirectory() as folder:
        with alone(), jax.profiler.trace(folder):
            run()
        (file,) = Path(folder).rglob("*.xplane.pb")
        found: dict[tuple[str, str], list[float]] = defaultdict(list)
        for event, operation in _events(jax.profiler.ProfileData.from_file(str(file))):
            found[event.name, part(sources.get(operation, ""))].append(event.duration_ns / 1e9)
    rows = [
        {"kernel": kernel, "part": place, "seconds": sum(times) / steps, "launches": len(times) / steps}
        for (kernel, place), times in found.items()
    ]
    return sorted(rows, key=lambda row: -row["seconds"])


def _events(data: Any) -> Iterator[tuple[Any, str]]:
    """Yields what a device ran and the instruction that it belongs to: on a GPU each kernel on its streams."""
    devices = [plane for plane in data.planes if plane.name.startswith("/device:")]
    for line in (line for plane in devices or data.planes for line in plane.lines):
        for event in line.events:
            operation = dict(event.stats).get(_OPERATION)
            if operation is not None or (devices and line.name.startswith("Stream")):
                yield event, str(operation)


def by_part(rows: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Returns the seconds and launches of each part of the model, the longest first."""
    found: dict[str, tuple[float, float]] = {}
    for row in rows:
        seconds, launches = found.get(row["part"], (0.0, 0.0))
        found[row["part"]] = seconds + row["seconds"], launches + row["launches"]
    return dict(sorted(found.items(), key=lambda item: -item[1][0]))
