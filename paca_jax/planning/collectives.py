"""What the chips of a program tell each other, read from its HLO."""

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
    """Equal exchanges of a step, added up.

    Attributes:
        kind: as HLO names it.
        devices: chips that take part in one exchange; 2 where each chip sends to one other.
        count: exchanges a step.
        total_bytes: what they give to (all-gather) or take from (the others) one chip, over a step.
        largest_bytes: of the largest of them.
        source: where in the model the largest of them comes from.
    """

    kind: str
    devices: int
    count: int
    total_bytes: int
    largest_bytes: int
    source: str

    @property
    def sent_bytes(self) -> float:
        """What a chip must send at the least: of an all-reduce each part twice, and nothing ever to itself."""
        if self.kind == "collective-permute":
            return self.total_bytes
        return self.total_bytes * (2 if self.kind == "all-reduce" else 1) * (self.devices - 1) / self.devices


def collectives(module: Module, num_devices: int) -> list[Collective]:
    """Returns the exchanges of a step, those that move most first.

    Args:
        module: the program of one chip.
        num_devices: chips that the program was compiled for.
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
    """Tells an all-reduce of which each chip keeps its slice only: how a TPU writes a reduce-scatter."""
    users = [other for other in computation.values() if instruction.name in other.operands]
    return instruction.opcode == "all-reduce" and bool(users) and all(user.opcode == "dynamic-slice" for user in users)


def _payload(instruction: Instruction, computation: Computation) -> int:
    operands = sum(shape.bytes for name in instruction.operands for shape in computation[name].results)
    results = sum(shape.bytes for shape in instruction.results)
    if instruction.opcode == "all-gather-start":  # gives its operand beside its result
        return results - operands
    return results if instruction.opcode == "all-gather" else operands


def _group_size(instruction: Instruction, num_devices: int) -> int:
    """Reads `{{0,1},{2,3}}`, `[2,4]<=[8]`, `{}` for all, or axes of a mesh: `mesh['x'=2,'y'=4], device_ids=(...) {'y'}`."""
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
    raise ValueError(f"The chips of {instruction.name} are listed in a way that is not known: {attributes[:200]}")
