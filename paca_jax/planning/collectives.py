"""The collectives of a program, read from its HLO."""

import dataclasses
import math
import re

from paca_jax.planning.hlo import Computation, Instruction, Module

_KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)


@dataclasses.dataclass(frozen=True)
class Collective:
    """All collectives of one kind and group size in a step.

    Attributes:
        kind: the name that HLO uses.
        devices: chips in a group; 2 for a permute, in which each chip sends to one other.
        count: how many there are per step.
        total_bytes: bytes per chip and step: the results of all-gathers, the operands of all others.
        largest_bytes: bytes of the largest one.
        source: the part of the model that the largest one comes from.
    """

    kind: str
    devices: int
    count: int
    total_bytes: int
    largest_bytes: int
    source: str

    @property
    def sent_bytes(self) -> float:
        """The bytes that a chip must send at least: twice for an all-reduce, and nothing to itself."""
        if self.kind == "collective-permute":
            return self.total_bytes
        return self.total_bytes * (2 if self.kind == "all-reduce" else 1) * (self.devices - 1) / self.devices


def collectives(module: Module, num_devices: int) -> list[Collective]:
    """Returns the collectives of a step, the most expensive first.

    Args:
        module: the program of one chip.
        num_devices: the number of chips that the program was compiled for.
    """
    found: dict[tuple[str, int], list[tuple[int, int, str]]] = {}
    chains: set[str | None] = set()
    for instruction, computation, times in module.running():
        kind = instruction.opcode.removesuffix("-start")
        if kind in _KINDS and (instruction.chain is None or instruction.chain not in chains):
            chains.add(instruction.chain)
            name = "reduce-scatter" if _keeps_a_part(instruction, computation) else kind
            key = (name, _group_size(instruction, num_devices))
            found.setdefault(key, []).append((_payload(instruction, computation), times, instruction.source))
    merged = [
        Collective(
            kind,
            devices,
            count=sum(times for _, times, _ in entries),
            total_bytes=sum(size * times for size, times, _ in entries),
            largest_bytes=max(entries)[0],
            source=max(entries)[2],
        )
        for (kind, devices), entries in found.items()
    ]
    return sorted(merged, key=lambda entry: -entry.total_bytes)


def _keeps_a_part(instruction: Instruction, computation: Computation) -> bool:
    """Returns whether each chip keeps only its slice of an all-reduce, which is how a TPU writes a reduce-scatter."""
    users = [other for other in computation.values() if instruction.name in other.operands]
    return instruction.opcode == "all-reduce" and bool(users) and all(user.opcode == "dynamic-slice" for user in users)


def _payload(instruction: Instruction, computation: Computation) -> int:
    operands = sum(shape.bytes for name in instruction.operands for shape in computation[name].results)
    results = sum(shape.bytes for shape in instruction.results)
    if instruction.opcode == "all-gather-start":  # returns its operand as well as its result
        return results - operands
    return results if instruction.opcode == "all-gather" else operands


def _group_size(instruction: Instruction, num_devices: int) -> int:
    """Parses `{{0,1},{2,3}}`, `[2,4]<=[8]`, `{}` (all devices) or mesh axes: `mesh['x'=2,'y'=4], device_ids=(...) {'y'}`."""
    attributes = instruction.attributes
    if "source_target_pairs=" in attributes:
        return 2
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", attributes)
    if listed:
        return len(listed[1].split(","))
    tiled = re.search(r"replica_groups=\[\d+,(\d+)\]<=", attributes)
    if tiled:
        return int(tiled[1])
    mesh = re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", attributes)
    if mesh:
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
        return math.prod(int(part) if part else sizes[name] for name, part in re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", mesh[2]))
    if "replica_groups={}" in attributes:
        return num_devices
    raise ValueError(f"Expected replica groups in a known format, got {attributes[:200]} for {instruction.name}.")
