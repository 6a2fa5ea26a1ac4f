"""The memory that a step needs on a device, and the errors if it, or a kernel, does not fit."""

import dataclasses
import math
import re
from typing import Any

import jax

from paca_jax.errors import UserError
from paca_jax.planning.topology import GIB
from paca_jax.train.run import Run

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}
_SIZE = r"([\d.]+)([KMGT]?)"
_TOO_LARGE = (
    rf"Used {_SIZE} of {_SIZE} hbm",
    rf"\({_SIZE}\) exceeds available HBM \({_SIZE}\)",
)
_KERNEL_TOO_LARGE = (
    rf"Used {_SIZE} of {_SIZE} vmem",
    rf"Scoped allocation with size {_SIZE} and limit {_SIZE} exceeded scoped vmem limit",
)
_KERNEL_NAME = r"(\w+)\)*/pallas_call"


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of a device's main memory during a step.

    Attributes:
        parameters: the parameters of the model.
        optimizer_state: the moments of the optimizer.
        other_state: averages of the parameters, running statistics, counters.
        batch: this device's part of the batch.
        padding: the padding that layouts add to all of these.
        temporaries: activations, gradients and everything else that lives only during the step.
        outputs: results that do not reuse the memory of an input.
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
    """Returns the bytes per device of a step's inputs: `parameters`, `optimizer_state`, `other_state`, `batch`."""
    state = run.abstract
    return {
        "parameters": _bytes_per_device(state.params),
        "optimizer_state": _bytes_per_device(state.opt_state),
        "other_state": _bytes_per_device(dataclasses.replace(state, params=None, opt_state=None)),
        "batch": _bytes_per_device(run.abstract_batch),
    }


def memory_of(run: Run, compiled: jax.stages.Compiled) -> Memory:
    """Returns the memory that the compiled step of a run needs."""
    given, stats = state_bytes(run), compiled.memory_analysis()
    assert stats is not None, "the TPU compiler reports the memory of a program"
    return Memory(
        **given,
        padding=stats.argument_size_in_bytes - sum(given.values()),
        temporaries=stats.temp_size_in_bytes,
        outputs=stats.output_size_in_bytes - stats.alias_size_in_bytes,
        program=stats.generated_code_size_in_bytes,
    )


def _bytes_per_device(tree: Any) -> int:
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


class DoesNotFitError(UserError):
    """A step needs more of a device's memory than there is.

    Attributes:
        needed: the bytes that it needs at least.
        usable: the bytes that a program may use.
    """

    def __init__(self, needed: int, usable: int) -> None:
        self.needed, self.usable = needed, usable
        super().__init__(
            f"Expected a step of at most {usable / GIB:.2f} GiB per device, got one that needs {needed / GIB:.2f} GiB, "
            f"{(needed - usable) / GIB:.2f} GiB more. Reduce its memory or add chips."
        )


class KernelDoesNotFitError(UserError):
    """A kernel needs more of a core's vector memory than there is, which no larger slice changes."""

    def __init__(self, kernel: str, needed: int, usable: int) -> None:
        mebibyte = 2**20
        super().__init__(
            f"Expected kernels that fit into the {usable / mebibyte:.2f} MiB of vector memory that a core has for them, got "
            f"{kernel}, which needs {needed / mebibyte:.2f} MiB. Set --config.model.implementation=xla, and report the config "
            "and the topology."
        )


def too_large(message: str) -> DoesNotFitError | KernelDoesNotFitError | None:
    """Returns the error that the compiler's message describes; None if the message is not about memory."""
    if found := _sizes(_TOO_LARGE, message):
        return DoesNotFitError(*found)
    if found := _sizes(_KERNEL_TOO_LARGE, message):
        kernel = re.search(_KERNEL_NAME, message)
        return KernelDoesNotFitError(kernel[1] if kernel else "one", *found)
    return None


def _sizes(patterns: tuple[str, ...], message: str) -> tuple[int, int] | None:
    """Returns the bytes that are needed and those that are there, from the first pattern that the message has."""
    for pattern in patterns:
        found = re.search(pattern, message)
        if found:
            return int(float(found[1]) * _UNITS[found[2]]), int(float(found[3]) * _UNITS[found[4]])
    return None
