"""Gathering clusters from the LayerNorm of patches in two TPU kernels, which read patches and assignment once."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from paca_jax.ops.attention.tpu_steps import AttentionShape
from paca_jax.ops.norm.reference import normalize
from paca_jax.ops.pallas.blocks import Block, Ref, vector_bytes, whole
from paca_jax.ops.pallas.kernel import Kernel, Step
from paca_jax.ops.pallas.patches import PatchTiling, at_tile, norm_gradient, patches_inside, spilled_by_norm
from paca_jax.ops.pallas.registers import NN, NT, TN, dot


def gather_kernel(shape: AttentionShape, tiling: PatchTiling) -> Kernel:
    """Returns the kernel from patches, their assignment (B, M, N) and norm (2, C) to clusters (B, M, C).

    Clusters are the means of normalized patches, weighted by their assignment, in the type of the patches.
    """
    patches, assignment = shape.patch_block(tiling), _assignment_block(shape, tiling)
    return Kernel(
        name="gather_clusters",
        body=partial(_gather, num_patches=shape.patches, tiling=tiling),
        grid=tiling.grid(shape.images),
        operands=[patches, assignment, whole((2, shape.channels), jnp.float32)],
        results=[shape.attended_block(tiling)],
        cost=_cost(patches, assignment, forwards=1),
        scratch=[pltpu.VMEM((shape.attended, shape.channels), jnp.float32)],
        spilled=_spilled(shape, tiling),
        in_order=True,
    )


def gather_backward_kernel(shape: AttentionShape, tiling: PatchTiling) -> Kernel:
    """Returns the kernel that computes the gradients of `gather_kernel`.

    It takes the operands of that kernel, the gradient of clusters, and a gradient of patches, to which it adds. It returns the
    gradients of patches, of the assignment and, in float32, of the norm.
    """
    patches, assignment = shape.patch_block(tiling), _assignment_block(shape, tiling)
    norm = whole((2, shape.channels), jnp.float32)
    return Kernel(
        name="gather_clusters_backward",
        body=partial(_gather_backward, num_patches=shape.patches, tiling=tiling),
        grid=tiling.grid(shape.images),
        operands=[patches, assignment, norm, shape.attended_block(tiling), patches],
        results=[patches, assignment],
        sums=[norm.array],
        cost=_cost(patches, assignment, forwards=2),
        spilled=_spilled(shape, tiling),
    )


def _gather(
    step: Step, x: Ref, assignment: Ref, norm: Ref, z: Ref, total: Ref, *, num_patches: int, tiling: PatchTiling
) -> None:
    for image in range(tiling.images):
        patches = patches_inside(x[image], step.part, 0, num_patches)
        assigned = patches_inside(assignment[image], step.part, 1, num_patches)
        found = dot(assigned, normalize(patches, norm[...]), NN)
        if tiling.tiles == 1:
            z[image] = found.astype(z.dtype)
            continue
        total[...] = jnp.where(step.part == 0, found, total[...] + found)
    if tiling.tiles > 1:

        def write() -> None:
            z[0] = total[...].astype(z.dtype)

        at_tile(tiling.tiles - 1, step, tiling, write)


def _gather_backward(
    step: Step, x: Ref, assignment: Ref, norm: Ref, dz: Ref, g: Ref, *outs: Ref, num_patches: int, tiling: PatchTiling
) -> None:
    dx, d_assignment, d_norm = outs
    for image in range(tiling.images):
        patches = patches_inside(x[image], step.part, 0, num_patches)
        assigned = patches_inside(assignment[image], step.part, 1, num_patches)
        d_assignment[image] = dot(dz[image], normalize(patches, norm[...]), NT).astype(d_assignment.dtype)
        d_gathered = norm_gradient(patches, dot(assigned, dz[image], TN), norm, d_norm)
        dx[image] = (g[image].astype(jnp.float32) + d_gathered).astype(dx.dtype)


def _spilled(shape: AttentionShape, tiling: PatchTiling) -> int:
    """Returns the bytes of one image's patches and of all clusters that leave registers, at most."""
    clusters = vector_bytes((tiling.images, shape.attended, shape.channels), jnp.float32)
    return spilled_by_norm(tiling, shape.channels) + clusters


def _assignment_block(shape: AttentionShape, tiling: PatchTiling) -> Block:
    spec = pl.BlockSpec((tiling.images, shape.attended, tiling.patches), lambda image, tile: (image, 0, tile))
    return Block(jax.ShapeDtypeStruct((shape.images, shape.attended, shape.patches), shape.dtype), spec)


def _cost(patches: Block, assignment: Block, forwards: int) -> pl.CostEstimate:
    x, assigned = patches.array, assignment.array
    return pl.CostEstimate(
        flops=forwards * 2 * assigned.size * x.shape[2],
        transcendentals=0,
        bytes_accessed=forwards * (x.size + assigned.size) * x.dtype.itemsize,
    )
