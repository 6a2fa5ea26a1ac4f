"""Blocks that stay in place while a grid of two axes runs: images (or groups of them), and the parts of an image."""

from typing import Any

from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

Ref = Any
IMAGE_SCALARS = pl.BlockSpec(memory_space=pltpu.SMEM)  # one number per image, all of them visible to every step


def whole(array: Any) -> pl.BlockSpec:
    """Returns the block that is the whole array: every step sees it, and vector memory holds it once."""
    return pl.BlockSpec(array.shape, lambda image, part: (0,) * len(array.shape), pipeline_mode=pl.Buffered(1))
