"""Anchors: the boxes that a region proposal network starts from."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def anchor_grid(
    height: int, width: int, stride: int, scale: float = 8, ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
) -> Float[Array, "N 4"]:
    """Returns one feature map's anchors (x1, y1, x2, y2) in pixels of the image: row by row, at each cell one for each ratio.

    The anchors of cell (row, column) are centered at pixel (stride row, stride column), the cell's upper left corner, as in
    mmdet. N is height x width x the number of ratios.

    Args:
        height: rows of the feature map.
        width: its columns.
        stride: pixels from one cell to the next.
        scale: the square root of an anchor's area, in strides.
        ratios: heights over widths.
    """
    roots = np.sqrt(np.asarray(ratios))
    half = (stride * scale / 2 * np.stack([1 / roots, roots])).astype(np.float32)
    # The barrier keeps the compiler from computing the whole grid itself, which takes it minutes for a large image.
    cell, ratio = jnp.divmod(jax.lax.optimization_barrier(jnp.arange(height * width * len(ratios))), len(ratios))
    y, x = (stride * index.astype(jnp.float32) for index in jnp.divmod(cell, width))
    own = ratio[:, None] == jnp.arange(len(ratios))
    half_width, half_height = (jnp.sum(jnp.where(own, extent, 0), axis=-1) for extent in half)
    return jnp.stack([x - half_width, y - half_height, x + half_width, y + half_height], axis=-1)
