"""Kernels as 8-bit integers with a scale for each output channel, for programs a quarter as large."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int8, PyTree

WEIGHT_DTYPES = ("float32", "int8")
_LEAST_INPUTS = 64  # of an output channel: depthwise kernels and the first convolution of the stem have fewer


class Rounded(NamedTuple):
    """A kernel as integers.

    Attributes:
        integers: from -127 to 127.
        scale: what a one stands for, in each output channel.
    """

    integers: Int8[Array, "*inputs outputs"]
    scale: Float[Array, "outputs"]


def rounded(variables: PyTree) -> PyTree:
    """Returns variables whose kernels are `Rounded` where each output channel is computed from at least 64 inputs."""

    def leaf(path: tuple[Any, ...], value: Any) -> Any:
        array = np.asarray(value)
        if path[-1].key != "kernel" or array[..., 0].size < _LEAST_INPUTS:
            return value
        largest = np.max(np.abs(array), axis=tuple(range(array.ndim - 1)))
        scale = np.where(largest == 0, 1, largest / 127).astype(np.float32)
        with np.errstate(invalid="ignore"):  # the scale of a channel that is not finite spoils all of it
            return Rounded(jnp.asarray(np.round(array / scale).astype(np.int8)), jnp.asarray(scale))

    return jax.tree_util.tree_map_with_path(leaf, variables)


def restored(variables: PyTree) -> PyTree:
    """Returns variables in which each `Rounded` kernel is an array of float32."""

    def leaf(value: Any) -> Any:
        return value.integers.astype(jnp.float32) * value.scale if isinstance(value, Rounded) else value

    return jax.tree.map(leaf, variables, is_leaf=lambda value: isinstance(value, Rounded))
