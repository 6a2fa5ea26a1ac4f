"""Anchors: the boxes that a region proposal network starts from."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def anchor_grid(
    height: int, width: int, stride: int, scale: float = 8, ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
) -> Float[Array, "N 4"]:
    """Returns one feature map's anchors (x1, y1, x2, y2) in pixels of the image: row by row, at each cell one for each ratio.

    The anchors of cell (row, column) are centred at pixel (stride row, stride column), the cell's upper left corner, as in
    mmdet. N is height x width x the number of ratios.

    Args:
        height: rows of the feature map.
        width: its columns.
        stride: pixels from one cell to the next.
        scale: the square root of an anchor's area, in strides.
        ratios: heights over widths.
    """
    roots = np.sqrt(np.asarray(ratios))
    half = stride * scale / 2 * np.stack([1 / roots, roots], axis=-1)
    shapes = jnp.asarray(np.concatenate([-half, half], axis=-1), jnp.float32)
    y, x = jnp.meshgrid(stride * jnp.arange(height), stride * jnp.arange(width), indexing="ij")
    centres = jnp.stack([x, y, x, y], axis=-1).astype(jnp.float32)
    return (centres[:, :, None] + shapes).reshape(-1, 4)
