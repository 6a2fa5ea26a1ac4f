"""The heat maps of one assignment, and where they lie on the picture."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from paca_jax.errors import UserError, nearest
from paca_jax.explain.cluster_sheets.answers import STRIDE, Seen
from paca_jax.explain.cluster_sheets.layout import StageMaps
from paca_jax.explain.heat import overlay_part
from paca_jax.explain.selection import most_effective_clusters, strongest_clusters

HEAD = "head"  # the assignment of a segmentor's PaCa head, one cluster per class
# The mean weight of a cluster over the patches of a picture, relative to a uniform one: with less it gathers the padding.
_LEAST_INSIDE = 0.5


def drawn_blocks(known: Sequence[str], block: str | None) -> list[str]:
    """Returns the assignments to draw: the one of `block`, or the first of each stage and that of a head.

    Args:
        known: the names of the assignments ("stage1/block0", "head").
        block: one of them, or None.

    Raises:
        UserError: if there are none, or not this one.
    """
    if not known:
        raise UserError("Expected a model with clusters, got one that attends to patches in every stage. Choose another.")
    if block is None:
        firsts = {name.partition("/")[0]: name for name in reversed(known)}
        return sorted(firsts.values(), key=lambda name: (name == HEAD, name))
    if block not in known:
        raise UserError(f"Expected a block with an assignment, got {block!r}; {nearest(block, known)}. Choose one of them.")
    return [block]


def stage_maps(
    block: str,
    assignment: Float[np.ndarray, "M H W"],
    seen: Seen,
    count: int,
    class_names: Sequence[str],
    values: Float[np.ndarray, "M"] | None,
) -> StageMaps:
    """Returns the heading of an assignment and its heat maps, without a picture's padding.

    Args:
        block: the name of the assignment.
        assignment: the assignment of the whole image, with its padding.
        seen: the image.
        count: how many heat maps to draw at most.
        class_names: the names of the classes, which are the clusters of a head.
        values: what the clusters do for the answer, by which they are chosen; None to choose the most selective ones.
    """
    part = (seen.size[0] / stride_of(block), seen.size[1] / stride_of(block))
    height, width = (math.ceil(side) for side in part)
    inside = assignment[:, :height, :width]
    weights = inside.sum((1, 2), keepdims=True)
    inside = inside / np.where(weights > 0, weights, 1)
    gathered = weights * (assignment[0].size / inside[0].size) >= _LEAST_INSIDE
    heat_maps = []
    gathering = jnp.asarray(np.where(gathered, inside, np.nan))
    chosen = strongest_clusters(gathering, count) if values is None else most_effective_clusters(gathering, values, count)
    for cluster in chosen:
        most = float(inside[cluster].max() * height * width)
        weight = f"{most:.2g}x" if most < 10 else f"{most:.0f}x"
        if block == HEAD:
            caption = f"{class_names[cluster]} · {weight}"
        elif values is None:
            caption = f"cluster {cluster} · {weight}"
        else:
            caption = f"#{cluster} · {weight} · drop {values[cluster]:.2g}"
        heat_maps.append((caption, overlay_part(seen.picture, inside[cluster], part)))
    place = "PaCa head" if block == HEAD else block.replace("stage", "Stage ").replace("/block", ", block ")
    kind = "the classes are the clusters" if block == HEAD else f"{len(assignment)} clusters"
    return StageMaps(f"{place}: {kind}, {height}x{width} patches", heat_maps)


def stride_of(block: str) -> int:
    """Returns the side in pixels of the patches of a block."""
    return STRIDE if block == HEAD else STRIDE * 2 ** (int(block.partition("/")[0].removeprefix("stage")) - 1)
