"""The one place that chooses which implementation computes an operation, and says why not another.

`"xla"` is the reference formula, one plain program for every platform. `"xla_cpu"` is the same formula with the forms of its
convolutions, products and sums that XLA runs faster on a CPU. `"pallas_tpu"` are kernels for a TPU, `"pallas_gpu"` are kernels
for a GPU of NVIDIA, and `"cudnn"` is its library. Every fused operation takes an argument `implementation`; None takes the one
of the model (`create_model(..., implementation=...)`), else that of the environment variable PACA_JAX_IMPLEMENTATION, else the
fastest one for the target platform and the shapes. The target platform is that of the mesh (`jax.set_mesh`), else JAX's default
device. The choice is made while a program is traced; no program holds two forms.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar, get_args

from paca_jax.errors import UserError
from paca_jax.sharding import target_platform

Implementation = Literal["xla", "xla_cpu", "pallas_tpu", "pallas_gpu", "cudnn"]
IMPLEMENTATIONS: tuple[Implementation, ...] = get_args(Implementation)
IMPLEMENTATION_VARIABLE = "PACA_JAX_IMPLEMENTATION"

# As `pallas_call` takes it.
if TYPE_CHECKING:
    from jax.experimental.pallas import tpu as pltpu

    Interpreter = bool | pltpu.InterpretParams
else:
    Interpreter = Any  # Pallas takes long to import

# For each implementation besides "xla" that an operation has: a function that returns why it does not take the given arrays,
# as a clause, or None if it does.
Refusals = Mapping[Implementation, Callable[[], str | None]]

_PLATFORMS: dict[Implementation, str] = {
    "xla_cpu": "cpu",
    "pallas_tpu": "tpu",
    "pallas_gpu": "gpu",
    "cudnn": "gpu",
}


class Choice(NamedTuple):
    """What was chosen for one call of an operation.

    Attributes:
        operation: its name, such as "attention".
        block: the block of the model, such as "stage1/block0"; "" outside of blocks.
        implementation: what computes it.
        reason: why a faster or an asked-for implementation does not, as a clause; None if nothing was refused.
    """

    operation: str
    block: str
    implementation: Implementation
    reason: str | None


_of_model: ContextVar[Implementation | None] = ContextVar("implementation", default=None)
_block: ContextVar[str] = ContextVar("block", default="")
_interpreter: ContextVar[Interpreter] = ContextVar("interpreter", default=False)
_interpreted_platform: ContextVar[str] = ContextVar("interpreted_platform", default="tpu")
_recorded: ContextVar[list[Choice] | None] = ContextVar("recorded", default=None)


def choose(operation: str, asked: Implementation | None, refusals: Refusals) -> Implementation:
    """Returns the implementation of one call of an operation, and records it.

    Args:
        operation: its name, for errors and records.
        asked: the implementation to take; None for the one of the model, of the environment, or the fastest.
        refusals: the implementations that the operation has besides "xla", the fastest first.

    Raises:
        UserError: if there is no implementation of that name, or the operation has it and it does not take these arrays or
            this platform. An operation that has no such form at all takes "xla".
    """
    of_environment = os.environ.get(IMPLEMENTATION_VARIABLE) or None
    asked = check_implementation(asked) or _of_model.get() or check_implementation(of_environment)
    platform = _interpreted_platform.get() if _interpreter.get() else target_platform()
    reason = None
    chosen: Implementation = "xla"
    if asked is None:
        for name in (name for name in refusals if _PLATFORMS[name] == platform):
            reason = refusals[name]()
            if reason is None:
                chosen = name
                break
    elif asked in refusals:
        reason = f"the target platform is {platform!r}" if _needs_another(asked, platform) else refusals[asked]()
        if reason is not None:
            where = f" in {_block.get()}" if _block.get() else ""
            raise UserError(
                f"Expected a call of {operation}{where} that implementation={asked!r} can compute, got one that it cannot: "
                f"{reason}. Leave implementation unset or set it to 'xla'."
            )
        chosen = asked
    elif asked != "xla":
        reason = f"it has no {asked!r}"
    if (recorded := _recorded.get()) is not None:
        recorded.append(Choice(operation, _block.get(), chosen, reason))
    return chosen


def _needs_another(asked: Implementation, platform: str) -> bool:
    return asked != "xla_cpu" and _PLATFORMS[asked] != platform


def check_implementation(name: str | None) -> Implementation | None:
    """Returns the name of an implementation, or None for none.

    Raises:
        UserError: if there is no such implementation.
    """
    if name is None:
        return None
    for known in IMPLEMENTATIONS:
        if name == known:
            return known
    raise UserError(f"Expected an implementation of {', '.join(IMPLEMENTATIONS)}, got {name!r}. Correct it or leave it unset.")


def always() -> None:
    """The refusal of an implementation that takes everything."""


T = TypeVar("T")


@contextmanager
def _set(variable: ContextVar[T], value: T) -> Iterator[T]:
    token = variable.set(value)
    try:
        yield value
    finally:
        variable.reset(token)


def use_implementation(name: str | None) -> AbstractContextManager[Implementation | None]:
    """A context in which operations that are not given an implementation take this one; None changes nothing.

    A function that is jitted outside of the context keeps what it was traced with.
    """
    return _set(_of_model, check_implementation(name) or _of_model.get())


def in_block(name: str) -> AbstractContextManager[str]:
    """A context in which choices are recorded for, and errors name, a block of the model."""
    return _set(_block, name)


@contextmanager
def record_choices() -> Iterator[list[Choice]]:
    """A context that yields a list; each choice made in it, while something is traced, is appended."""
    choices: list[Choice] = []
    with _set(_recorded, choices):
        yield choices


@contextmanager
def interpret_kernels(interpreter: Interpreter, platform: Literal["tpu", "gpu"] = "tpu") -> Iterator[None]:
    """A context in which the target platform is one whose kernels are interpreted, on any device. For tests: it is slow.

    Args:
        interpreter: as `pallas_call` takes it. Pallas's TPU interpreter (`pltpu.InterpretParams()`) fills memory that nothing
            has written with NaN; True turns kernels into JAX operations, which is faster and also works on several devices.
        platform: the target platform.
    """
    with _set(_interpreter, interpreter), _set(_interpreted_platform, platform):
        yield


def kernel_interpreter() -> Interpreter:
    """Returns what interprets kernels that are traced now; False if a device runs them."""
    return _interpreter.get()


def describe_choices(choices: list[Choice]) -> list[str]:
    """Returns one line for each operation: which implementations it took, in which blocks, and why not a faster one."""
    lines = []
    for operation in dict.fromkeys(choice.operation for choice in choices):
        groups: dict[tuple[str, str | None], list[str]] = {}
        for choice in choices:
            if choice.operation == operation:
                groups.setdefault((choice.implementation, choice.reason), []).append(choice.block)
        parts = [_describe(*key, [block for block in dict.fromkeys(blocks) if block]) for key, blocks in groups.items()]
        lines.append(f"{operation}: {'; '.join(dict.fromkeys(parts))}")
    return lines


def _describe(implementation: str, reason: str | None, blocks: list[str]) -> str:
    if reason is None:
        count = "1 block" if len(blocks) == 1 else f"{len(blocks)} blocks"
        return f"{implementation} in {count}" if blocks else implementation
    where = f" in {', '.join(blocks)}" if blocks else ""
    return f"{implementation}{where} ({reason})"
