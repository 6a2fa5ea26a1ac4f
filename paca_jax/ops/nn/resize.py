"""Bilinear resizing without antialiasing, as two one-axis interpolations."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.export import is_symbolic_dim
from jaxtyping import Array, Float, Int

# A length that is known while a program is traced, or a symbolic dimension.
Length = Any


def _interpolation_matrix(source: Length, target: Length, align_corners: bool) -> np.ndarray | Array:
    """Returns the (target, source) matrix whose rows hold the two weights of each output position."""
    if is_symbolic_dim(source) or is_symbolic_dim(target):
        return _symbolic_interpolation_matrix(source, target, align_corners)
    positions = np.arange(target, dtype=np.float64)
    by_corners = positions * (source - 1) / max(target - 1, 1)
    by_edges = (positions + 0.5) * source / target - 0.5
    centers = np.clip(by_corners if align_corners else by_edges, 0, source - 1)
    lower = np.floor(centers).astype(int)
    upper = np.minimum(lower + 1, source - 1)
    matrix = np.zeros((target, source))
    np.add.at(matrix, (np.arange(target), lower), 1 - (centers - lower))
    np.add.at(matrix, (np.arange(target), upper), centers - lower)
    return matrix


def _symbolic_interpolation_matrix(source: Length, target: Length, align_corners: bool) -> Float[Array, "target source"]:
    """Returns the matrix for sizes that are known only when an exported program runs."""
    if not align_corners:
        return resize_matrix(jnp.asarray(source), jnp.asarray(target), source, target)
    steps = jnp.maximum(jnp.asarray(target) - 1, 1)
    centers = jnp.arange(target) * (jnp.asarray(source) - 1) / steps
    return _linear_weights(centers, source)


def _linear_weights(centers: Float[Array, "T"], rows: Length) -> Float[Array, "T rows"]:
    """Returns the weights of rows at centers: 1 at a row, falling to 0 at its neighbors."""
    return jnp.maximum(0, 1 - jnp.abs(centers[:, None] - jnp.arange(rows)))


def resize_nearest(x: Float[Array, "B H W C"], shape: tuple[Length, Length]) -> Float[Array, "B H2 W2 C"]:
    """Resizes to `shape` = (height, width) as torch's `interpolate(mode="nearest")` does: position i shows floor(i H / H2)."""
    for axis, target in enumerate(shape, start=1):
        source = x.shape[axis]
        if target == 2 * source:
            x = jnp.repeat(x, 2, axis)
        elif target != source:
            x = jnp.take(x, np.arange(target) * source // target, axis)
    return x


def resize_matrix(
    source: Int[Array, ""], target: Int[Array, ""], rows: Length, columns: Length
) -> Float[Array, "columns rows"]:
    """Returns the matrix by which `resize_bilinear` brings `source` positions to `target`, both known to the program only.

    Args:
        source: positions that there are.
        target: positions to reach; rows of the matrix beyond them repeat the last position.
        rows: the most positions that there can be; those beyond `source` get no weight.
        columns: rows of the matrix.
    """
    source = jnp.maximum(source, 1)
    centers = (jnp.arange(columns) + 0.5) * source / jnp.maximum(target, 1) - 0.5
    return _linear_weights(jnp.clip(centers, 0, source - 1), rows)


def adaptive_average_pool(x: Float[Array, "B H W C"], shape: tuple[Length, Length]) -> Float[Array, "B H2 W2 C"]:
    """Averages over `shape` = (rows, columns) windows that cover the map, as torch's `adaptive_avg_pool2d` does.

    Window i of n over a side of s pixels spans floor(i s / n) to ceil((i + 1) s / n): neighbors may overlap.
    """
    for axis, target in enumerate(shape, start=1):
        matrix = jnp.asarray(_pooling_matrix(x.shape[axis], target), x.dtype)
        x = jnp.einsum("th,bhwc->btwc" if axis == 1 else "tw,bhwc->bhtc", matrix, x)
    return x


def _pooling_matrix(source: Length, target: int) -> np.ndarray | Array:
    """Returns the (target, source) matrix of the means; a symbolic source makes it a part of the program."""
    cells = (jnp if is_symbolic_dim(source) else np).arange(source)
    starts = np.arange(target) * source // target
    ends = -(-(np.arange(target) + 1) * source // target)
    inside = (cells >= starts[:, None]) & (cells < ends[:, None])
    return inside / (ends - starts)[:, None]


def resize_bilinear(
    x: Float[Array, "B H W C"], shape: tuple[Length, Length], align_corners: bool = False
) -> Float[Array, "B H2 W2 C"]:
    """Resizes to `shape` = (height, width) as torch's `interpolate(mode="bilinear")` does.

    Args:
        x: images or feature maps.
        shape: the height and width to reach, in pixels.
        align_corners: whether the corner pixels' centers (True) or the images' outer edges (False) coincide.
    """
    for axis, target in enumerate(shape, start=1):
        if x.shape[axis] != target:
            matrix = jnp.asarray(_interpolation_matrix(x.shape[axis], target, align_corners), x.dtype)
            x = jnp.einsum("th,bhwc->btwc" if axis == 1 else "tw,bhwc->bhtc", matrix, x)
    return x
