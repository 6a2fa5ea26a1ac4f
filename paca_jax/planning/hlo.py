"""A parser for optimized, scheduled HLO modules: which instructions run, how often, and at what estimated cost.

The text comes from `jax.stages.Compiled.as_text()` on a TPU: the program of one chip. Only what estimates need is parsed.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

_BITS = {"pred": 8, "bf16": 16, "token": 0}  # other types contain their width: f32, s8, u4, f8e4m3fn
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\](?:\{([^{}]*)\})?")
_HEADER = re.compile(r"(ENTRY )?%([^\s(]+) \(.*\{$")
_NAME = re.compile(r"\s+(ROOT )?%(\S+) = ")
_CALLED = re.compile(r"\b(body|condition|calls|called_computations|branch_computations|true_computation|false_computation)=")
_APPLIED = re.compile(r"\b(to_apply)=")
_MOVES_NOTHING = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id", "while",
    "conditional", "call", "call-start", "async-start", "optimization-barrier",
}  # fmt: skip
_SLICES = {"slice", "dynamic-slice"}

Extent = tuple[int, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Shape:
    """One array of an instruction's result.

    Attributes:
        bits: the bits of one element.
        dimensions: its size along each axis, without the padding of the layout.
        in_hbm: whether it lives in the chip's main memory, not in one of its scratch memories.
    """

    bits: int
    dimensions: tuple[int, ...]
    in_hbm: bool

    @property
    def extent(self) -> Extent:
        """Its bits and dimensions, which copies in different memories have in common."""
        return self.bits, self.dimensions

    @property
    def bytes(self) -> int:
        """The bytes of its elements."""
        return math.prod(self.dimensions) * self.bits // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
        name: its name, unique in its computation.
        opcode: `fusion`, `all-reduce`, `copy-start`, ...
        results: the arrays that it returns.
        arguments: the text between its parentheses.
        attributes: the rest of the line.
        root: whether it is the result of its computation.
    """

    name: str
    opcode: str
    results: tuple[Shape, ...]
    arguments: str
    attributes: str
    root: bool

    @property
    def operands(self) -> tuple[str, ...]:
        """The names of the instructions that it takes."""
        return tuple(re.findall(r"%([^\s,()]+)", self.arguments))

    @property
    def cycles(self) -> int:
        """The compiler's estimate; 0 if it gives none, as for collectives and copies."""
        found = re.search(r'"estimated_cycles":"(\d+)"', self.attributes)
        return int(found[1]) if found else 0

    @property
    def kernel_work(self) -> tuple[int, int]:
        """The FLOPs and bytes of a Pallas kernel's own cost estimate; 0 for all other instructions."""
        found = re.search(r'"cost_estimate":\{"flops":"(\d+)".*?"bytes_accessed":"(\d+)"', self.attributes)
        return (int(found[1]), int(found[2])) if found else (0, 0)

    @property
    def source(self) -> str:
        """The operation of the traced program that it comes from."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else self.name

    @property
    def chain(self) -> str | None:
        """The number that the parts of one collective have in common if the compiler has spread it over several fusions."""
        found = re.search(r'chain_id="(\d+)"', self.attributes)
        return found[1] if found else None

    def called(self) -> Iterator[tuple[str, str]]:
        """Yields the computations that it calls, as ("body", name), except those that a reduction applies to elements.

        A `call-start` hands its computation, such as a collective, to another kind of core.
        """
        for match in (_APPLIED if self.opcode in ("call", "call-start") else _CALLED).finditer(self.attributes):
            names, _ = _balanced(self.attributes, match.end())
            yield from ((match[1], name) for name in re.findall(r"%([^\s,{}()]+)", names))


Computation = dict[str, Instruction]


@dataclasses.dataclass(frozen=True)
class Module:
    """A program of one chip.

    Attributes:
        computations: instructions by name, by the name of their computation.
        times: how often a step runs each computation that it runs at all.
        inner: computations inside a fusion, whose intermediate results never leave the chip's registers.
        elsewhere: computations that another kind of core runs.
        unknown_loops: the sources of loops whose number of iterations is not in the text, as it may depend on data; each is
            assumed to run once.
    """

    computations: dict[str, Computation]
    times: dict[str, int]
    inner: frozenset[str]
    elsewhere: frozenset[str]
    unknown_loops: tuple[str, ...]

    def running(self, inner: bool = True) -> Iterator[tuple[Instruction, Computation, int]]:
        """Yields each instruction that runs, with its computation and the number of times a step runs it."""
        for name, times in self.times.items():
            if inner or name not in self.inner:
                for instruction in self.computations[name].values():
                    yield instruction, self.computations[name], times

    @property
    def cycles(self) -> int:
        """The compiler's estimate of a step in clock cycles, with every branch, but without collectives, copies and kernels."""
        return sum(
            instruction.cycles * times
            for name, times in self.times.items()
            if name not in self.elsewhere
            for instruction in self.computations[name].values()
        )

    def kernel_seconds(self, peak_flops: float, bandwidth: float) -> float:
        """Returns the shortest possible time of a step's Pallas kernels: for each, that of its FLOPs or its bytes."""
        work = ((*instruction.kernel_work, times) for instruction, _, times in self.running())
        return sum(max(flops / peak_flops, moved / bandwidth) * times for flops, moved, times in work)

    @property
    def hbm_bytes(self) -> int:
        """Bytes that a step reads from the chip's main memory and writes to it.

        Every operand and result in main memory counts, see `operands`. The arrays of a collective that is spread over several
        fusions are left out, since each fusion only passes them on.
        """
        return sum(
            self._traffic(instruction, computation) * times for instruction, computation, times in self.running(inner=False)
        )

    def operands(self, instruction: Instruction, computation: Computation) -> Iterator[tuple[Shape, int]]:
        """Yields each array that an instruction takes, once, with the bytes that it reads: all of them, or slices."""
        inside: Computation = {}
        if instruction.opcode == "fusion":
            (inside,) = (self.computations[name] for kind, name in instruction.called() if kind == "calls")
        inputs = {int(found.arguments): name for name, found in inside.items() if found.opcode == "parameter"}
        places = {name: place for place, name in enumerate(instruction.operands)}
        for name, place in places.items():
            readers = (
                [reader for reader in inside.values() if inputs.get(place) in reader.operands] if inside else [instruction]
            )
            sliced = readers and all(reader.opcode in _SLICES for reader in readers)
            for shape in computation[name].results:
                read = sum(result.bytes for reader in readers for result in reader.results) if sliced else shape.bytes
                yield shape, min(read, shape.bytes)

    def _traffic(self, instruction: Instruction, computation: Computation) -> int:
        done = instruction.opcode.endswith("-done")
        if done or instruction.opcode in _MOVES_NOTHING or '"AllocateBuffer"' in instruction.attributes:
            return 0
        if instruction.opcode in ("copy-start", "slice-start"):  # they return both ends of the copy, and a flag
            ends = instruction.results[:2]
            return min(end.bytes for end in ends) * sum(end.in_hbm for end in ends)
        passed_on = self._passed_on(instruction)
        moved = [*self.operands(instruction, computation), *((shape, shape.bytes) for shape in instruction.results)]
        return sum(size for shape, size in moved if shape.in_hbm and shape.extent not in passed_on)

    def _passed_on(self, fusion: Instruction) -> set[Extent]:
        """Returns the arrays that a fusion only passes on because it is part of a collective."""
        if fusion.opcode != "fusion":
            return set()
        inside = [self.computations[name] for _, name in fusion.called()]
        return {
            shape.extent
            for computation in inside
            for instruction in computation.values()
            if instruction.chain is not None
            for shape in _touched(instruction, computation)
        }


def parse(text: str) -> Module:
    """Returns the module that the text describes.

    Raises:
        ValueError: if the text has no entry computation.
    """
    computations: dict[str, Computation] = {}
    entry, current = "", ""
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            current = header[2]
            computations[current] = {}
            entry = current if header[1] else entry
        elif line.startswith("}"):
            current = ""
        elif current:
            instruction = _instruction(line)
            if instruction:
                computations[current][instruction.name] = instruction
    if not entry:
        raise ValueError("Expected an optimized HLO module, got a text with no entry computation.")
    return _follow(computations, entry)


def _instruction(line: str) -> Instruction | None:
    start = _NAME.match(line)
    if not start:
        return None
    result, end = _balanced(line, start.end())
    opcode, _, rest = line[end:].strip().partition("(")
    arguments, end = _balanced(f"({rest}", 0)
    return Instruction(
        name=start[2],
        opcode=opcode,
        results=tuple(shapes(result)),
        arguments=arguments[1:-1],
        attributes=rest[end - 1 :],
        root=start[1] is not None,
    )


def shapes(text: str) -> Iterator[Shape]:
    """Yields the arrays of an HLO type: `f32[8,128]{1,0:T(8,128)S(1)}`, or several in parentheses."""
    for kind, dimensions, layout in _ARRAY.findall(text):
        width = re.match(r"[a-z]+?(\d+)", kind)
        bits = _BITS[kind] if kind in _BITS else int(width[1]) if width else 0
        extents = tuple(int(extent) for extent in dimensions.split(",") if extent)
        yield Shape(bits, extents, re.search(r"S\(\d+\)", layout) is None)


def _balanced(text: str, start: int) -> tuple[str, int]:
    """Returns the word or the bracketed group at `start`, and the index of its end."""
    depth = 0
    for end in range(start, len(text)):
        if text[end] in "({[":
            depth += 1
        elif text[end] in ")}]":
            depth -= 1
        if depth == 0 and (end + 1 == len(text) or text[end + 1] in " ,"):
            return text[start : end + 1], end + 1
    return text[start:], len(text)


def _follow(computations: dict[str, Computation], entry: str) -> Module:
    """Follows the calls from the entry and counts how often each computation runs."""
    times: dict[str, int] = {}
    inner: set[str] = set()
    elsewhere: set[str] = set()
    unknown: list[str] = []

    def visit(name: str, count: int, inside: bool) -> None:
        times[name] = times.get(name, 0) + count
        if inside:
            inner.add(name)
        for instruction in computations[name].values():
            called = list(instruction.called())
            rounds = 1
            if instruction.opcode == "while":
                known = _trip_count(instruction, computations[dict(called)["condition"]])
                rounds = 1 if known is None else known
                if known is None:
                    unknown.append(instruction.source)
            for how, other in called:
                if instruction.opcode == "call-start":
                    elsewhere.add(other)
                if how != "condition":
                    visit(other, count * rounds, inside or instruction.opcode == "fusion")

    visit(entry, 1, False)
    return Module(computations, times, frozenset(inner), frozenset(elsewhere), tuple(sorted(set(unknown))))


def _trip_count(loop: Instruction, condition: Computation) -> int | None:
    """Returns a loop's iterations: the count that the compiler noted, or its counter's bound (JAX counts up from 0)."""
    noted = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.attributes)
    if noted:
        return int(noted[1])
    root = next(instruction for instruction in condition.values() if instruction.root)
    if root.opcode != "compare" or "direction=LT" not in root.attributes:
        return None
    bound = condition[root.operands[1]]
    return int(bound.arguments) if bound.opcode == "constant" else None


def _touched(instruction: Instruction, computation: Computation) -> Iterator[Shape]:
    """Yields the results and the operands of an instruction."""
    yield from instruction.results
    for name in instruction.operands:
        yield from computation[name].results
