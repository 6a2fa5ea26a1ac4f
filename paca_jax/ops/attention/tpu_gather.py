"""Gathering clusters from the LayerNorm of patches in two TPU kernels, which read patches and assignment once."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from paca_jax.ops.implementation import Interpreter
from paca_jax.ops.norm.reference import normalize
from paca_jax.ops.pallas.limits import SMALLEST_VMEM
from paca_jax.ops.pallas.patches import PatchTiling, at_tile, image_spec, norm_gradient, patch_spec, patches_inside
from paca_jax.ops.pallas.registers import NN, NT, TN, dot
from paca_jax.ops.pallas.specs import Ref, whole


def gather(
    patches: Float[Array, "B N C"],
    assignment: Float[Array, "B M N"],
    norm: Float[Array, "2 C"],
    *,
    tiling: PatchTiling,
    interpret: Interpreter,
) -> Float[Array, "B M C"]:
    """Returns the means of normalized patches, weighted by their assignment, in the type of `patches`."""
    (batch, _, channels), clusters = patches.shape, assignment.shape[1]
    out = jax.ShapeDtypeStruct((batch, clusters, channels), patches.dtype)
    call: Any = pl.pallas_call(
        partial(_gather, num_patches=patches.shape[1], tiling=tiling),
        grid=(batch // tiling.images, tiling.tiles),
        in_specs=[patch_spec(patches, tiling), _assignment_spec(assignment, tiling), whole(norm)],
        out_specs=image_spec(out, tiling),
        out_shape=out,
        scratch_shapes=[pltpu.VMEM(out.shape[1:], jnp.float32)],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=SMALLEST_VMEM),
        cost_estimate=_cost(patches, assignment, forwards=1),
        name="gather_clusters",
        interpret=interpret,
    )
    return call(patches, assignment, norm)


def gather_backward(
    patches: Float[Array, "B N C"],
    assignment: Float[Array, "B M N"],
    norm: Float[Array, "2 C"],
    d_clusters: Float[Array, "B M C"],
    d_patches: Float[Array, "B N C"],
    *,
    tiling: PatchTiling,
    interpret: Interpreter,
) -> tuple[Float[Array, "B N C"], Float[Array, "B M N"], Float[Array, "2 C"]]:
    """Returns the gradients of patches (added to `d_patches`), of the assignment and, in float32, of the norm."""
    spec, assigned = patch_spec(patches, tiling), _assignment_spec(assignment, tiling)
    outs = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in (patches, assignment, norm)]
    call: Any = pl.pallas_call(
        partial(_gather_backward, num_patches=patches.shape[1], tiling=tiling),
        grid=(patches.shape[0] // tiling.images, tiling.tiles),
        in_specs=[spec, assigned, whole(norm), image_spec(d_clusters, tiling), spec],
        out_specs=[spec, assigned, whole(norm)],
        out_shape=outs,
        compiler_params=pltpu.CompilerParams(dimension_semantics=("arbitrary", "arbitrary"), vmem_limit_bytes=SMALLEST_VMEM),
        cost_estimate=_cost(patches, assignment, forwards=2),
        name="gather_clusters_backward",
        interpret=interpret,
    )
    return call(patches, assignment, norm, d_clusters, d_patches)


def _gather(x: Ref, assignment: Ref, norm: Ref, z: Ref, total: Ref, *, num_patches: int, tiling: PatchTiling) -> None:
    tile = pl.program_id(1)
    for image in range(tiling.images):
        patches = patches_inside(x[image], tile, 0, num_patches)
        assigned = patches_inside(assignment[image], tile, 1, num_patches)
        found = dot(assigned, normalize(patches, norm[...]), NN)
        if tiling.tiles == 1:
            z[image] = found.astype(z.dtype)
            continue
        total[...] = jnp.where(tile == 0, found, total[...] + found)
    if tiling.tiles > 1:

        def write() -> None:
            z[0] = total[...].astype(z.dtype)

        at_tile(tiling.tiles - 1, tiling, write)


def _gather_backward(
    x: Ref, assignment: Ref, norm: Ref, dz: Ref, g: Ref, *outs: Ref, num_patches: int, tiling: PatchTiling
) -> None:
    dx, d_assignment, d_norm = outs
    tile = pl.program_id(1)

    @pl.when((pl.program_id(0) == 0) & (tile == 0))
    def _() -> None:
        d_norm[...] = jnp.zeros_like(d_norm)

    for image in range(tiling.images):
        patches = patches_inside(x[image], tile, 0, num_patches)
        assigned = patches_inside(assignment[image], tile, 1, num_patches)
        d_assignment[image] = dot(dz[image], normalize(patches, norm[...]), NT).astype(d_assignment.dtype)
        d_gathered = norm_gradient(patches, dot(assigned, dz[image], TN), norm, d_norm)
        dx[image] = (g[image].astype(jnp.float32) + d_gathered).astype(dx.dtype)


def _assignment_spec(assignment: Float[Array, "B M N"], tiling: PatchTiling) -> pl.BlockSpec:
    block = (tiling.images, assignment.shape[1], tiling.patches)
    return pl.BlockSpec(block, lambda image, tile: (image, 0, tile))


def _cost(patches: Array, assignment: Array, forwards: int) -> pl.CostEstimate:
    return pl.CostEstimate(
        flops=forwards * 2 * assignment.size * patches.shape[2],
        transcendentals=0,
        bytes_accessed=forwards * (patches.size + assignment.size) * patches.dtype.itemsize,
    )
