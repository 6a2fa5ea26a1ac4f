"""The blocks of a kernel: what a step sees of an array, and the vector memory that it takes.

Grids have two axes: images (or groups of them), and the parts of an image.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.typing import DTypeLike

from paca_jax.ops.pallas.registers import LANES, SUBLANES, round_up

Ref = Any


class Block(NamedTuple):
    """An operand or a result of a kernel, and the part of it that a step sees."""

    array: jax.ShapeDtypeStruct
    spec: pl.BlockSpec

    @property
    def memory(self) -> int:
        """The bytes of vector memory that the block takes."""
        if self.spec.block_shape is None:  # in scalar memory
            return 0
        buffers = 2 if self.spec.pipeline_mode is None else self.spec.pipeline_mode.buffer_count
        return buffers * vector_bytes(self.spec.block_shape, self.array.dtype)


def whole(shape: tuple[int, ...], dtype: DTypeLike) -> Block:
    """Returns the block that is a whole array: every step sees it, and vector memory holds it once."""
    spec = pl.BlockSpec(shape, lambda image, part: (0,) * len(shape), pipeline_mode=pl.Buffered(1))
    return Block(jax.ShapeDtypeStruct(shape, dtype), spec)


def image_scalars(images: int) -> Block:
    """Returns the block of one float32 number per image, all of which every step sees, in scalar memory."""
    return Block(jax.ShapeDtypeStruct((images,), jnp.float32), pl.BlockSpec(memory_space=pltpu.SMEM))


def vector_bytes(shape: Sequence[Any], dtype: DTypeLike) -> int:
    """Returns the bytes of vector memory of an array, whose last two axes are padded to whole registers."""
    itemsize = jnp.dtype(dtype).itemsize
    *outer, rows, lanes = (1, *shape)
    return math.prod(outer) * round_up(rows, SUBLANES * 4 // itemsize) * round_up(lanes, LANES) * itemsize
