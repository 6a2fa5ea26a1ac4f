"""What a step needs of a chip's memory, and the compiler's word that it does not fit."""

import dataclasses
import math
import re
from typing import Any

import jax

from paca_jax.errors import UserError
from paca_jax.train.setup import Run

GIB = 2**30
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}
_SIZE = r"([\d.]+)([KMGT]?)"
_TOO_LARGE = (
    rf"Used {_SIZE} of {_SIZE} hbm",
    rf"\({_SIZE}\) exceeds available HBM \({_SIZE}\)",
)


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of a chip's main memory during a step.

    Attributes:
        parameters: of the model.
        optimizer_state: its moments.
        other_state: averages of the parameters, running statistics, counters.
        batch: this chip's part of it.
        padding: what the layouts of all these add.
        temporaries: activations, gradients and the rest of what only lives during the step.
        outputs: results that take no input's place.
        program: the machine code.
    """

    parameters: int
    optimizer_state: int
    other_state: int
    batch: int
    padding: int
    temporaries: int
    outputs: int
    program: int

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return sum(dataclasses.astuple(self))


def state_bytes(run: Run) -> dict[str, int]:
    """Returns the bytes a chip of what a step is given: `parameters`, `optimizer_state`, `other_state`, `batch`."""
    state = run.abstract
    return {
        "parameters": _bytes_a_chip(state.params),
        "optimizer_state": _bytes_a_chip(state.opt_state),
        "other_state": _bytes_a_chip(dataclasses.replace(state, params=None, opt_state=None)),
        "batch": _bytes_a_chip(run.abstract_batch),
    }


def memory_of(run: Run, compiled: jax.stages.Compiled) -> Memory:
    """Returns what the compiled step of a run needs."""
    given, stats = state_bytes(run), compiled.memory_analysis()
    assert stats is not None, "the compiler tells a TPU program's memory"
    return Memory(
        **given,
        padding=stats.argument_size_in_bytes - sum(given.values()),
        temporaries=stats.temp_size_in_bytes,
        outputs=stats.output_size_in_bytes - stats.alias_size_in_bytes,
        program=stats.generated_code_size_in_bytes,
    )


def _bytes_a_chip(tree: Any) -> int:
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


class DoesNotFitError(UserError):
    """A step needs more of a chip's memory than there is.

    Attributes:
        needed: bytes that it needs, at the least.
        usable: bytes that there are.
    """

    def __init__(self, needed: int, usable: int) -> None:
        self.needed, self.usable = needed, usable
        super().__init__(
            f"The step needs {needed / GIB:.2f} GiB a chip, but a program may use {usable / GIB:.2f} GiB: it exceeds them by "
            f"{(needed - usable) / GIB:.2f} GiB."
        )


def too_large(message: str) -> DoesNotFitError | None:
    """Returns what the compiler's message says of the memory; None if it speaks of anything else."""
    for pattern in _TOO_LARGE:
        found = re.search(pattern, message)
        if found:
            needed, usable = (int(float(found[group]) * _UNITS[found[group + 1]]) for group in (1, 3))
            return DoesNotFitError(needed, usable)
    return None
