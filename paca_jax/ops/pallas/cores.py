"""The TPU cores that kernels are compiled for, and why kernels do not take arrays."""

import dataclasses

import jax.numpy as jnp

from paca_jax.ops.implementation import Interpreter, kernel_interpreter

SMALLEST_MEMORY = 16 * 2**20  # bytes of vector memory on the smallest core, a v4's
_INTERPRETED_MEMORY = 96 * 2**20  # bytes, as on a v5e: an interpreter has no limit of its own


@dataclasses.dataclass(frozen=True)
class Core:
    """The cores of the device that a kernel is compiled for.

    Attributes:
        memory: bytes of a core's vector memory that a kernel may use.
        count: cores of the device, which share the steps of a kernel: two on a v4 and a v5p.
        interpreter: how `pallas_call` interprets kernels on any device; False compiles them for a TPU.
    """

    memory: int
    count: int = 1
    interpreter: Interpreter = False


def target_core() -> Core:
    """Returns the cores that programs are traced for now. A kind of TPU that JAX does not know is taken for the smallest."""
    from jax.experimental.pallas import tpu as pltpu  # which takes long to import

    interpreter = kernel_interpreter()
    if interpreter:
        count = 1 if isinstance(interpreter, bool) else interpreter.num_cores_or_threads or 1
        return Core(_INTERPRETED_MEMORY, count, interpreter)
    try:
        chip = pltpu.get_tpu_info()
    except ValueError:
        return Core(SMALLEST_MEMORY)
    memory = chip.vmem_capacity_bytes
    # The rest is for operands that XLA keeps in vector memory from one operation to the next.
    return Core(memory if memory <= SMALLEST_MEMORY else memory * 3 // 4, chip.num_cores)


def type_refusal(dtype: jnp.dtype) -> str | None:
    """Returns why the kernels do not take arrays of this type, or None if they do."""
    return None if dtype in (jnp.bfloat16, jnp.float32) else f"the type is {dtype}, not float32 or bfloat16"
