"""Maps of what a patch draws from which patches through the clusters: attention weights times assignment, for chosen patches.

For N patches and M clusters the weights are (N, M) and the assignment (M, N). Their product would be (N, N); here it is only
computed for the patches that are asked for, so memory is linear in N.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from paca_jax.errors import UserError, check, nearest
from paca_jax.explain.checks import REAL, WHOLE, check_variables, checked_array, checked_items
from paca_jax.fields import check_value
from paca_jax.models import Detector, PaCaViT, Segmentor
from paca_jax.models.model import check_images

Patches = Sequence[tuple[int, int]] | Int[np.ndarray, "P 2"]


def compose_maps(
    weights: Float[Array, "B heads H W M"], assignment: Float[Array, "B M H W"], patches: Patches
) -> Float[Array, "B P H W"]:
    """Returns what chosen patches draw from every patch in one block: attention weights times assignment, averaged over heads.

    Each map sums to one. It is the weight of a patch's normalized channels in the mean that the chosen patch gathers; the
    LayerNorm of clusters and the value projection, which follow, are left out.

    Args:
        weights: the attention weights of the block, a value of `model.apply(variables, images, method="attention")`.
        assignment: the one that the block uses, a value of `method="clusters"`.
        patches: positions (row, column) in the block's map.

    Raises:
        UserError: if an argument has another shape, or a patch is outside of the map.
    """
    chosen = _checked([weights], [assignment], patches)
    return _composed(weights, assignment, chosen)


def roll_out_maps(
    weights: Sequence[Float[Array, "B _heads H W _M"]], assignments: Sequence[Float[Array, "B _M H W"]], patches: Patches
) -> Float[Array, "B P H W"]:
    """Returns what chosen patches draw from every patch through several blocks of a stage (attention rollout).

    With the composed map A of a block, it contributes (I + A) / 2: half from its shortcut, half from its attention (Abnar and
    Zuidema, ACL 2020). Each map sums to one. MLPs, whose depthwise convolution mixes neighbors, are left out. Blocks of
    different stages cannot be rolled out together, for the convolution between stages mixes patches by no weights of theirs.

    Args:
        weights: the attention weights of the blocks, in the order of the model.
        assignments: the assignment that each of them uses; blocks may share one.
        patches: positions (row, column) in the map of the last block.

    Raises:
        UserError: if an argument has another shape, or a patch is outside of the map.
    """
    weights, assignments = checked_items("weights", weights), checked_items("assignments", assignments)
    chosen = _checked(weights, assignments, patches)
    return _rolled_out(weights, assignments, chosen)


def patch_sources(
    model: PaCaViT | Segmentor | Detector,
    variables: dict[str, PyTree],
    images: Float[Array, "B H W C"],
    patches: Patches,
    block: str,
    rollout: bool = False,
) -> Float[Array, "B P H W"]:
    """Returns what chosen patches draw from every patch of an image, through the clusters.

    Args:
        model: a model with clusters.
        variables: the variables of the model.
        images: the normalized images.
        patches: positions (row, column) in the map of the block's stage.
        block: a block with clusters, such as "stage3/block1", or "head", that of a segmentor.
        rollout: whether to follow the patches back to the input of the stage (see `roll_out_maps`) instead of to that of the
            block (see `compose_maps`).

    Returns:
        A map for each image and patch that sums to one.

    Raises:
        UserError: if the model has other variables or no such block with clusters, a patch is outside of the map, or `rollout`
            is asked of the head.
    """
    check_value("rollout", rollout, bool)
    check_value("block", block, str)
    by_assignment = assignments_of_blocks(model)
    check_variables(model, variables)
    check_images(images, model.config.image_channels)
    if block not in by_assignment:
        known = nearest(block, list(by_assignment)) if by_assignment else "the model has none"
        raise UserError(
            f"Expected a block with clusters, got {block!r}; {known}. Choose one of them, or read the weights of plain "
            'attention by method="attention".'
        )
    check(not (rollout and block == "head"), "Expected a block of a stage to roll out, got 'head'. Set rollout=False.")
    stage, _, index = block.partition("/block")
    blocks = tuple(f"{stage}/block{number}" for number in range(int(index) + 1)) if rollout else (block,)
    weights, clusters = weights_and_clusters(model, variables, images, blocks)
    assignments = [clusters[by_assignment[name]] for name in blocks]
    if rollout:
        return roll_out_maps([weights[name] for name in blocks], assignments, patches)
    return compose_maps(weights[block], assignments[0], patches)


def assignments_of_blocks(model: Any) -> dict[str, str]:
    """Returns, for each block with clusters, the block that computes its assignment: the key of `method="clusters"`.

    Raises:
        UserError: if it is no model of this library.
    """
    if not isinstance(model, PaCaViT | Segmentor | Detector):
        raise UserError(f"Expected a model, got {type(model).__name__}. Pass one of create_model or load.")
    config = model.config if isinstance(model, PaCaViT) else model.config.backbone
    owners = {
        f"stage{stage + 1}/block{index}": f"stage{stage + 1}/block{config.assigning_block(stage, index)}"
        for stage, depth in enumerate(config.depths)
        for index in range(depth)
        if config.clusters[stage]
    }
    has_head = isinstance(model, Segmentor) and model.config.head == "paca"
    return owners | ({"head": "head"} if has_head else {})


@functools.partial(jax.jit, static_argnums=(0, 3))
def weights_and_clusters(
    model: PaCaViT | Segmentor | Detector,
    variables: dict[str, PyTree],
    images: Float[Array, "B H W C"],
    blocks: tuple[str, ...] | None = None,
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Returns the attention weights of blocks, by default of all with clusters, and all assignments."""
    weights: Any = model.apply(variables, images, blocks, method="attention")
    return weights, model.apply(variables, images, method="clusters")


def _checked(weights: Sequence[Any], assignments: Sequence[Any], patches: Any) -> Int[np.ndarray, "P 2"]:
    """Returns the positions of patches, after checks of all arguments."""
    check(len(weights) > 0, "Expected the attention weights of at least one block, got none. Pass some.")
    check(
        len(weights) == len(assignments),
        f"Expected an assignment for each of {len(weights)} blocks, got {len(assignments)}. Pass one for each.",
    )
    shape = np.shape(weights[0])
    batch, _, height, width, _ = shape if len(shape) == 5 else ("B", "heads", "H", "W", "M")
    for weight, assignment in zip(weights, assignments, strict=True):
        checked = checked_array("attention weights", weight, REAL, (batch, "heads", height, width, "M"))
        checked_array("the assignment", assignment, REAL, (batch, checked.shape[-1], height, width))
    chosen = np.asarray(checked_array("patches", patches, WHOLE, ("P", 2)))
    for row, column in chosen:
        if not (0 <= row < height and 0 <= column < width):
            raise UserError(
                f"Expected patches inside the map of {height} rows and {width} columns, got ({row}, {column}). Correct it."
            )
    return chosen


@jax.jit
def _composed(weights: Array, assignment: Array, patches: Int[Array, "P 2"]) -> Array:
    chosen = _matrix(weights)[:, patches[:, 0] * weights.shape[3] + patches[:, 1]]
    return _gathered(chosen, assignment).reshape(*chosen.shape[:2], *weights.shape[2:4])


@jax.jit
def _rolled_out(weights: Sequence[Array], assignments: Sequence[Array], patches: Int[Array, "P 2"]) -> Array:
    batch, _, height, width, _ = weights[0].shape
    maps = jax.nn.one_hot(patches[:, 0] * width + patches[:, 1], height * width)
    maps = jnp.broadcast_to(maps, (batch, *maps.shape))
    for weight, assignment in zip(reversed(weights), reversed(assignments), strict=True):
        through = jnp.einsum("bpn,bnm->bpm", maps, _matrix(weight), precision="highest")
        maps = (maps + _gathered(through, assignment)) / 2
    return maps.reshape(*maps.shape[:2], height, width)


def _matrix(weights: Float[Array, "B heads H W M"]) -> Float[Array, "B N M"]:
    """Returns attention weights in float32, averaged over heads."""
    return jnp.mean(weights.astype(jnp.float32), axis=1).reshape(weights.shape[0], -1, weights.shape[-1])


def _gathered(weights: Float[Array, "B P M"], assignment: Float[Array, "B M H W"]) -> Float[Array, "B P N"]:
    """Returns the patches that weights of clusters gather."""
    flat = assignment.astype(jnp.float32).reshape(*assignment.shape[:2], -1)
    return jnp.einsum("bpm,bmn->bpn", weights, flat, precision="highest")
