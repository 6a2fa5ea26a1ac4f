"""Estimates as text."""

import dataclasses
from collections.abc import Iterable, Sequence

from paca_jax.planning.alternatives import Tried, as_flags
from paca_jax.planning.estimate import Estimate
from paca_jax.planning.topology import GIB

_CAVEAT = (
    "An estimate: the step was compiled, not run. Computation, memory traffic and collectives are assumed to overlap fully; "
    "host input, evaluation, checkpoints and start-up are left out."
)
_GPU_CAVEAT = (
    "Of a GPU's step only bytes and matrix operations are known: no program reaches the published rates with all of them, and "
    "the start of each kernel is left out."
)
_MEMORY = {
    "optimizer_state": "optimizer state",
    "other_state": "averages, statistics, counters",
    "padding": "padding of all of these",
    "temporaries": "activations and temporaries",
}


def describe(found: Estimate) -> str:
    """Returns an estimate as a page of text."""
    memory, used = found.memory, found.memory.total / found.usable_hbm_bytes
    mesh = " ".join(f"{axis}={size}" for axis, size in found.mesh.items())
    parts = f", in {found.accumulate_steps} parts" if found.accumulate_steps > 1 else ""
    blocks = ", blocks recomputed in the backward pass" if found.remat else ""
    unit = GIB if memory.total >= GIB else GIB // 1024
    parts_of_memory = {_MEMORY.get(name, name): size for name, size in dataclasses.asdict(memory).items()}
    lines = [
        f"{found.model} on {found.topology}: {_slice(found)}, mesh {mesh}",
        f"batch {found.batch_size}{parts}{blocks}",
        "",
        f"Memory per device, {'GiB' if unit == GIB else 'MiB'}",
        *(_row(name, f"{size / unit:.3f}") for name, size in parts_of_memory.items()),
        _row("total", f"{memory.total / unit:.3f}", f"of {found.usable_hbm_bytes / unit:,.3f} usable: fits, {used:.1%}"),
        "",
        "Per step and device",
        _row("matrix operations", *_scaled(found.matrix_flops, "FLOP")),
        _row("main memory traffic", *_scaled(found.hbm_bytes, "B")),
        *_cycles(found),
        _row(
            "... at the device's peak, ms" if found.platform == "tpu" else "time at the GPU's peak, ms",
            _milliseconds(found.peak_seconds),
            "matrix operations or memory, whichever is longer",
        ),
        _row("time of collectives, ms", _milliseconds(found.exchange_seconds), "at best, over all links of a device"),
        _row("time of the step, ms", _milliseconds(found.seconds), "the longest of these"),
        _row("utilization of the peak", f"{found.utilization:.1%}"),
        "",
        "The run",
        _row(
            "images per second", f"{found.images_per_second:,.0f}", f"{found.images_per_second / found.devices:,.1f} per device"
        ),
        _row("hours", f"{found.hours:.2f}", f"{found.steps:,} steps, {found.epochs:g} epochs"),
        "",
        *_collectives(found),
        "",
        "Implementations",
        *(f"  {line}" for line in found.implementations),
        "",
        _CAVEAT,
        *([_GPU_CAVEAT] if found.platform == "gpu" else []),
    ]
    if found.unknown_loops:
        lines.append(f"Loops of unknown length count once: {', '.join(found.unknown_loops)}.")
    return "\n".join(lines)


def _cycles(found: Estimate) -> list[str]:
    if found.platform == "gpu":
        return []
    return [
        _row("time of computation, ms", _milliseconds(found.cycle_seconds), f"the compiler's {found.cycles:,} cycles"),
        _row("... of kernels, ms", _milliseconds(found.kernel_seconds), "in addition, at the device's peak; cycles unknown"),
    ]


def _slice(found: Estimate) -> str:
    chips = _count(found.chips, "GPU" if found.platform == "gpu" else "chip")
    return chips if found.devices == found.chips else f"{chips} of {found.devices // found.chips} devices"


def _row(name: str, value: str, remark: str = "") -> str:
    return f"  {name:<32}{value:>10}  {remark}".rstrip()


def _scaled(number: float, unit: str) -> tuple[str, str]:
    """Returns a number to four digits, and its unit with a prefix."""
    prefixes = {1e12: "T", 1e9: "G", 1e6: "M"}
    scale = next((scale for scale in prefixes if number >= scale), 1e6)
    return f"{number / scale:.4g}", f"{prefixes[scale]}{unit}"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.2f}"


def _gib(size: int) -> str:
    return f"{size / GIB:.3f}"


def _count(number: int, name: str) -> str:
    return f"{number:,} {name}" + ("" if number == 1 else "s")


def _collectives(found: Estimate) -> Iterable[str]:
    if not found.collectives:
        return ["Collectives: none"]
    head = ("Collectives per step", "devices", "count", "largest, MB", "total, MB", "source of the largest")
    rows = [
        (
            f"  {entry.kind}",
            f"{entry.devices}",
            f"{entry.count}",
            f"{entry.largest_bytes / 1e6:.3f}",
            f"{entry.total_bytes / 1e6:.3f}",
            _shorten(entry.source),
        )
        for entry in found.collectives
    ]
    return [f"{row[0]:<22}{row[1]:>6}{row[2]:>7}{row[3]:>13}{row[4]:>11}  {row[5]}" for row in (head, *rows)]


def _shorten(source: str) -> str:
    return source if len(source) <= 60 else f"...{source[-57:]}"


def describe_shortage(sentence: str, topology: str, state: dict[str, int]) -> str:
    """Returns a report on a step that does not fit: the error, and the parts of the memory that are known without compiling."""
    parts = ", ".join(f"{name.replace('_', ' ')} {_gib(size)}" for name, size in state.items())
    return f"Does not fit on {topology}. {sentence}\nIn GiB per device: {parts}; the rest is activations and temporaries."


def describe_untried(changes: Sequence[dict[str, object]]) -> str:
    """Returns the alternatives that have not been compiled."""
    if not changes:
        return "No smaller step with this batch is known. Choose a smaller batch_size or more chips."
    options = "\n".join(f"  {as_flags(change)}" for change in changes)
    return f"May fit, not tried (--suggest compiles the first of them):\n{options}"


def describe_tried(tried: Tried, usable: int) -> str:
    """Returns one line about an alternative that was compiled."""
    if tried.estimate is None:
        return f"  {as_flags(tried.changes)}: does not fit, needs {_gib(tried.needed or 0)} of {_gib(usable)} GiB"
    total, milliseconds = tried.estimate.memory.total, _milliseconds(tried.estimate.seconds)
    return f"  {as_flags(tried.changes)}: fits, {_gib(total)} of {_gib(usable)} GiB, {milliseconds} ms per step"
