"""A kernel as a value: its grid, blocks and scratch memory, the vector memory that a step needs, and its call."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array

from paca_jax.ops.pallas.blocks import Block, Ref, vector_bytes, whole
from paca_jax.ops.pallas.cores import SMALLEST_MEMORY, Core
from paca_jax.ops.pallas.guard import guard

_OVERHEAD = 128 * 2**10  # bytes of vector memory that a kernel takes besides its blocks, scratch memory and spilled registers

Tiling = TypeVar("Tiling")


class Step(NamedTuple):
    """A step of a kernel: its index among the steps over images, and the index of its part of these images."""

    image: Array
    part: Array


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A kernel.

    Attributes:
        name: its name in programs and profiles.
        body: a function of the step and of the references to operands, results, sums and scratch memory, in this order.
        grid: the number of steps over images, and over the parts of an image.
        operands: its operands.
        results: results of which each step writes its own block.
        cost: what the compiler is told about its cost.
        sums: results to which all steps add; they are zero before the first one.
        scratch: scratch memory.
        spilled: bytes of values that do not fit into vector registers, at most.
        in_order: whether the parts of an image must run in order; those of a kernel with sums do so in any case.
    """

    name: str
    body: Callable[..., None]
    grid: tuple[int, int]
    operands: Sequence[Block]
    results: Sequence[Block]
    cost: pl.CostEstimate
    sums: Sequence[jax.ShapeDtypeStruct] = ()
    scratch: Sequence[Any] = ()
    spilled: int = 0
    in_order: bool = False

    @property
    def memory(self) -> int:
        """The bytes of vector memory that a step takes, at most."""
        sums = (whole(total.shape, total.dtype) for total in self.sums)
        blocks = sum(block.memory for block in (*self.operands, *self.results, *sums))
        scratch = sum(vector_bytes(memory.shape, memory.dtype) for memory in self.scratch)
        return blocks + scratch + self.spilled + _OVERHEAD

    def __call__(self, core: Core, *operands: Array) -> list[Array]:
        """Returns the results and the sums.

        If the device has two cores and the kernel has sums, each core runs half of the steps and adds up sums of its own.

        Raises:
            UserError: later, when the program is differentiated again, or compiled where the kernel does not run.
        """
        operands = guard(operands[0], self.name, interpreted=bool(core.interpreter)), *operands[1:]
        if self.sums and core.count > 1 and self.grid[0] % core.count == 0:
            return self._call_by_core(core, operands)
        sums = [whole(total.shape, total.dtype) for total in self.sums]
        order = "arbitrary" if self.sums or self.in_order else "parallel"

        def body(*refs: Ref) -> None:
            self._run(Step(pl.program_id(0), pl.program_id(1)), pl.program_id(0), refs)

        call = self._call(
            core, body, self.grid, self.operands, [*self.results, *sums], ("arbitrary" if self.sums else "parallel", order)
        )
        return list(call(*operands))

    def _call_by_core(self, core: Core, operands: Sequence[Array]) -> list[Array]:
        steps = self.grid[0] // core.count

        def of_core(block: Block) -> Block:
            place = block.spec.index_map
            if place is None:
                return block
            spec = dataclasses.replace(block.spec, index_map=lambda core, image, part: place(core * steps + image, part))
            return block._replace(spec=spec)

        def sum_of_core(total: jax.ShapeDtypeStruct) -> Block:
            def place(core: Array, image: Array, part: Array) -> tuple[Any, ...]:
                return core, *(0 for _ in total.shape)

            spec = pl.BlockSpec((None, *total.shape), place, pipeline_mode=pl.Buffered(1))
            return Block(jax.ShapeDtypeStruct((core.count, *total.shape), total.dtype), spec)

        def body(*refs: Ref) -> None:
            image = pl.program_id(1)
            self._run(Step(pl.program_id(0) * steps + image, pl.program_id(2)), image, refs)

        results = [*map(of_core, self.results), *map(sum_of_core, self.sums)]
        grid, orders = (core.count, steps, self.grid[1]), ("parallel", "arbitrary", "arbitrary")
        found = self._call(core, body, grid, list(map(of_core, self.operands)), results, orders)(*operands)
        own = len(self.results)
        return [*found[:own], *(jnp.sum(totals, 0) for totals in found[own:])]

    def _call(
        self,
        core: Core,
        body: Callable[..., None],
        grid: tuple[int, ...],
        operands: Sequence[Block],
        results: Sequence[Block],
        orders: tuple[Any, ...],
    ) -> Callable[..., list[Array]]:
        # No more than may be needed: what a kernel may use, XLA does not use for other operands.
        limit = min(core.memory, max(SMALLEST_MEMORY, self.memory + self.memory // 2))
        return pl.pallas_call(
            body,
            grid=grid,
            in_specs=[block.spec for block in operands],
            out_specs=[block.spec for block in results],
            out_shape=[block.array for block in results],
            scratch_shapes=self.scratch,
            compiler_params=pltpu.CompilerParams(dimension_semantics=orders, vmem_limit_bytes=limit),
            cost_estimate=self.cost,
            name=self.name,
            interpret=core.interpreter,
        )

    def _run(self, step: Step, image_of_core: Array, refs: Sequence[Ref]) -> None:
        first = len(self.operands) + len(self.results)
        if self.sums:

            @pl.when((image_of_core == 0) & (step.part == 0))
            def _() -> None:
                for ref in refs[first : first + len(self.sums)]:
                    ref[...] = jnp.zeros_like(ref)

        self.body(step, *refs)


@dataclasses.dataclass(frozen=True)
class Fit(Generic[Tiling]):
    """The result of looking for a tiling whose kernels fit into a core's vector memory.

    Attributes:
        tiling: the first one that fits; None if there is none.
        kernels: those of the last tiling tried.
        available: the bytes of vector memory that there are.
    """

    tiling: Tiling | None
    kernels: Sequence[Kernel]
    available: int

    def refusal(self) -> str | None:
        """Returns that the kernels need more memory than there is, as a clause, or None if they fit."""
        if self.tiling is not None:
            return None
        largest = max(self.kernels, key=lambda kernel: kernel.memory)
        needed = math.ceil(10 * largest.memory / 2**20) / 10
        available = f"{self.available / 2**20:.1f} MiB are there"
        return f"its kernel {largest.name} needs {needed:.1f} MiB of a core's vector memory, and {available}"

    def found(self) -> Tiling:
        """Returns the tiling.

        Raises:
            ValueError: if there is none.
        """
        if self.tiling is None:
            raise ValueError(f"The kernels do not fit: {self.refusal()}.")
        return self.tiling


def first_fit(tilings: Iterable[Tiling], kernels: Callable[[Tiling], Sequence[Kernel]], core: Core) -> Fit[Tiling]:
    """Tries tilings in order, and stops at the first one that fits."""
    tried: Sequence[Kernel] = ()
    for tiling in tilings:
        tried = kernels(tiling)
        if all(kernel.memory <= core.memory for kernel in tried):
            return Fit(tiling, tried, core.memory)
    return Fit(None, tried, core.memory)
