"""The backward kernel of patch-to-cluster attention, which recomputes scores and attention weights."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from paca_jax.ops.attention.tpu_steps import HeadParameters, attention_cost, head_slices, keys_and_values, softmax
from paca_jax.ops.implementation import Interpreter
from paca_jax.ops.norm.reference import normalize
from paca_jax.ops.pallas.limits import SMALLEST_VMEM
from paca_jax.ops.pallas.patches import PatchTiling, at_tile, image_spec, norm_gradient, patch_spec, patches_inside
from paca_jax.ops.pallas.registers import NN, NT, TN, dot
from paca_jax.ops.pallas.specs import IMAGE_SCALARS, Ref, whole


def backward(
    patches: Float[Array, "B N C"],
    clusters: Float[Array, "B M C"],
    drop_path_scale: Float[Array, "B"],
    parameters: HeadParameters,
    g: Float[Array, "B N C"],
    *,
    num_heads: int,
    tiling: PatchTiling,
    interpret: Interpreter,
) -> tuple[Float[Array, "B N C"], Float[Array, "B M C"], HeadParameters]:
    """Returns the gradients of patches, clusters and, in float32 and summed over images, of the parameters."""
    rows, attended = parameters.query.shape[0], clusters.shape[1]
    kept = pltpu.VMEM((tiling.images, rows, attended), patches.dtype)
    summed = pltpu.VMEM((rows, attended), jnp.float32)
    spec = patch_spec(patches, tiling)
    d_shapes = [jax.ShapeDtypeStruct(parameter.shape, jnp.float32) for parameter in parameters]
    call: Any = pl.pallas_call(
        partial(_kernel, num_heads=num_heads, num_patches=patches.shape[1], tiling=tiling),
        grid=(patches.shape[0] // tiling.images, tiling.tiles),
        in_specs=[spec, image_spec(clusters, tiling), spec, IMAGE_SCALARS, *map(whole, parameters)],
        out_specs=[spec, image_spec(clusters, tiling), *map(whole, parameters)],
        out_shape=[*(jax.ShapeDtypeStruct(array.shape, array.dtype) for array in (patches, clusters)), *d_shapes],
        scratch_shapes=[kept, kept, summed, summed],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("arbitrary", "arbitrary"), vmem_limit_bytes=SMALLEST_VMEM),
        cost_estimate=attention_cost(patches, clusters, num_heads, forwards=2),
        name="cluster_attention_backward",
        interpret=interpret,
    )
    d_patches, d_clusters, *d_parameters = call(patches, clusters, g, drop_path_scale, *parameters)
    return d_patches, d_clusters, HeadParameters(*d_parameters)


def _kernel(
    x: Ref, z: Ref, g: Ref, drop_path_scale: Ref, *refs: Ref, num_heads: int, num_patches: int, tiling: PatchTiling
) -> None:
    count = len(HeadParameters._fields)
    parameters, d_parameters = HeadParameters(*refs[:count]), HeadParameters(*refs[count + 2 : -4])
    dx, dz = refs[count : count + 2]
    keys, values, d_keys, d_values = refs[-4:]
    first, tile = pl.program_id(0) * tiling.images, pl.program_id(1)

    @pl.when((pl.program_id(0) == 0) & (tile == 0))
    def _() -> None:
        for total in d_parameters:
            total[...] = jnp.zeros_like(total)

    def start_sums() -> None:
        d_keys[...] = jnp.zeros_like(d_keys)
        d_values[...] = jnp.zeros_like(d_values)

    keys_and_values(z, parameters, keys, values, tiling)
    if tiling.tiles > 1:
        at_tile(0, tiling, start_sums)
    for image in range(tiling.images):
        own, own_g = (patches_inside(ref[image], tile, 0, num_patches) for ref in (x, g))
        normal, scale = normalize(own, parameters.norm[...]), drop_path_scale[first + image]
        branch_g = (own_g * scale).astype(g.dtype)
        found = _patches_gradient(normal, branch_g, keys.at[image], values.at[image], parameters, d_parameters, num_heads)
        d_branch = norm_gradient(own, found[0], parameters.norm, d_parameters.norm)
        dx[image] = (own_g.astype(jnp.float32) + d_branch).astype(dx.dtype)
        if tiling.tiles > 1:
            d_keys[...] += found[1]
            d_values[...] += found[2]
        else:
            dz[image] = _clusters_gradient(z[image], found[1], found[2], parameters, d_parameters).astype(dz.dtype)
    if tiling.tiles > 1:

        @pl.when(tile == tiling.tiles - 1)
        def _() -> None:
            dz[0] = _clusters_gradient(z[0], d_keys[...], d_values[...], parameters, d_parameters).astype(dz.dtype)


def _patches_gradient(
    x: Float[Array, "N C"],
    g: Float[Array, "N C"],
    keys: Ref,
    values: Ref,
    parameters: HeadParameters,
    d_parameters: HeadParameters,
    num_heads: int,
) -> tuple[Float[Array, "N C"], Float[Array, "R M"], Float[Array, "R M"]]:
    """Returns the gradients of patches, keys and values, and adds those of the parameters that meet patches."""
    heads = head_slices(parameters, num_heads)
    query = (dot(parameters.query[...], x, NT) + parameters.query_bias[...]).astype(x.dtype)
    d_attended = dot(parameters.out[...], g, NT).astype(x.dtype)

    scores = [dot(keys[head], query[head], TN) for head in heads]
    d_weights = [dot(values[head], d_attended[head], TN) for head in heads]
    weights = [softmax(score) for score in scores]
    rounded = [weight.astype(x.dtype) for weight in weights]
    d_scores = [
        (weight * (d - jnp.sum(weight * d, axis=0, keepdims=True))).astype(x.dtype)
        for weight, d in zip(weights, d_weights, strict=True)
    ]
    attended = [dot(values[head], weight, NN).astype(x.dtype) for head, weight in zip(heads, rounded, strict=True)]
    d_values = [dot(d_attended[head], weight, NT) for head, weight in zip(heads, rounded, strict=True)]
    d_query = jnp.concatenate([dot(keys[head], d, NN) for head, d in zip(heads, d_scores, strict=True)])
    d_keys = [dot(query[head], d, NT) for head, d in zip(heads, d_scores, strict=True)]

    d_parameters.query[...] += dot(d_query.astype(x.dtype), x, NN)
    d_parameters.query_bias[...] += jnp.sum(d_query, axis=1, keepdims=True)
    d_parameters.out[...] += dot(jnp.concatenate(attended), g, NN)
    d_parameters.out_bias[...] += jnp.sum(g.astype(jnp.float32), axis=0, keepdims=True)
    dx = dot(d_query.astype(x.dtype), parameters.query[...], TN)
    return dx, jnp.concatenate(d_keys), jnp.concatenate(d_values)


def _clusters_gradient(
    z: Float[Array, "M C"],
    d_keys: Float[Array, "R M"],
    d_values: Float[Array, "R M"],
    parameters: HeadParameters,
    d_parameters: HeadParameters,
) -> Float[Array, "M C"]:
    """Returns the gradient of clusters, and adds those of the parameters that meet them."""
    normal = normalize(z, parameters.attended_norm[...])
    d_parameters.key_bias[...] += jnp.sum(d_keys, axis=1, keepdims=True)
    d_parameters.value_bias[...] += jnp.sum(d_values, axis=1, keepdims=True)
    d_keys, d_values = d_keys.astype(z.dtype), d_values.astype(z.dtype)
    d_parameters.key[...] += dot(d_keys, normal, NN)
    d_parameters.value[...] += dot(d_values, normal, NN)
    d_normal = dot(d_keys, parameters.key[...], TN) + dot(d_values, parameters.value[...], TN)
    return norm_gradient(z, d_normal, parameters.attended_norm, d_parameters.attended_norm)
