"""The backward kernel of patch-to-cluster attention, which recomputes scores and attention weights."""

from functools import partial

import jax.numpy as jnp
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from paca_jax.ops.attention.tpu_steps import AttentionShape, HeadParameters, head_groups, keys_and_values, softmax
from paca_jax.ops.attention.tpu_tiling import AttentionTiling, spilled_by_attention
from paca_jax.ops.norm.reference import normalize
from paca_jax.ops.pallas.blocks import Ref, image_scalars
from paca_jax.ops.pallas.kernel import Kernel, Step
from paca_jax.ops.pallas.patches import at_tile, norm_gradient, patches_inside
from paca_jax.ops.pallas.registers import NN, NT, TN, dot


def backward_kernel(shape: AttentionShape, tiling: AttentionTiling) -> Kernel:
    """Returns the kernel that computes the gradients of `forward_kernel`.

    It takes patches, clusters, the gradient of the output, drop-path scales and parameters, and returns the gradients of
    patches, of clusters and, in float32 and summed over images, of the parameters.
    """
    patches, clusters = shape.patch_block(tiling), shape.attended_block(tiling)
    kept = pltpu.VMEM((tiling.images, shape.rows, shape.attended), shape.dtype)
    summed = pltpu.VMEM((shape.rows, shape.attended), jnp.float32)
    return Kernel(
        name="cluster_attention_backward",
        body=partial(_body, num_heads=shape.num_heads, num_patches=shape.patches, tiling=tiling),
        grid=tiling.grid(shape.images),
        operands=[patches, clusters, patches, image_scalars(shape.images), *shape.parameter_blocks(shape.dtype)],
        results=[patches, clusters],
        sums=[block.array for block in shape.parameter_blocks(jnp.float32)],
        cost=shape.cost(forwards=2),
        scratch=[kept, kept, summed, summed],
        spilled=spilled_by_attention(shape, tiling),
    )


def _body(
    step: Step,
    x: Ref,
    z: Ref,
    g: Ref,
    drop_path_scale: Ref,
    *refs: Ref,
    num_heads: int,
    num_patches: int,
    tiling: AttentionTiling,
) -> None:
    count = len(HeadParameters._fields)
    parameters, d_parameters = HeadParameters(*refs[:count]), HeadParameters(*refs[count + 2 : -4])
    dx, dz = refs[count : count + 2]
    keys, values, d_keys, d_values = refs[-4:]
    first, tile = step.image * tiling.images, step.part

    def start_sums() -> None:
        d_keys[...] = jnp.zeros_like(d_keys)
        d_values[...] = jnp.zeros_like(d_values)

    def end_sums(image: int) -> None:
        d_clusters = _clusters_gradient(z[image], d_keys[...], d_values[...], parameters, d_parameters)
        dz[image] = d_clusters.astype(dz.dtype)

    keys_and_values(step, z, parameters, keys, values, tiling)
    if tiling.tiles > 1:
        at_tile(0, step, tiling, start_sums)
    for image in range(tiling.images):
        own, own_g = (patches_inside(ref[image], tile, 0, num_patches) for ref in (x, g))
        normal, scale = normalize(own, parameters.norm[...]), drop_path_scale[first + image]
        branch_g = (own_g * scale).astype(g.dtype)
        kept = (keys.at[image], values.at[image], d_keys, d_values)
        d_normal = _patches_gradient(normal, branch_g, *kept, parameters, d_parameters, num_heads, tiling)
        d_branch = norm_gradient(own, d_normal, parameters.norm, d_parameters.norm)
        dx[image] = (own_g.astype(jnp.float32) + d_branch).astype(dx.dtype)
        if tiling.tiles == 1:
            end_sums(image)
    if tiling.tiles > 1:
        at_tile(tiling.tiles - 1, step, tiling, partial(end_sums, 0))


def _patches_gradient(
    x: Float[Array, "N C"],
    g: Float[Array, "N C"],
    keys: Ref,
    values: Ref,
    d_keys: Ref,
    d_values: Ref,
    parameters: HeadParameters,
    d_parameters: HeadParameters,
    num_heads: int,
    tiling: AttentionTiling,
) -> Float[Array, "N C"]:
    """Returns the gradient of patches, and adds those of the parameters that meet patches.

    Those of keys and values are added, too; if an image is one tile, they are written.
    """
    query = (dot(parameters.query[...], x, NT) + parameters.query_bias[...]).astype(x.dtype)
    d_attended = dot(parameters.out[...], g, NT).astype(x.dtype)
    attended, d_query = [], []
    for heads in head_groups(parameters, num_heads, tiling.heads):
        scores = [dot(keys[head], query[head], TN) for head in heads]
        d_weights = [dot(values[head], d_attended[head], TN) for head in heads]
        weights = [softmax(score) for score in scores]
        rounded = [weight.astype(x.dtype) for weight in weights]
        d_scores = [
            (weight * (d - jnp.sum(weight * d, axis=0, keepdims=True))).astype(x.dtype)
            for weight, d in zip(weights, d_weights, strict=True)
        ]
        attended += [dot(values[head], weight, NN).astype(x.dtype) for head, weight in zip(heads, rounded, strict=True)]
        value_sums = [dot(d_attended[head], weight, NT) for head, weight in zip(heads, rounded, strict=True)]
        d_query += [dot(keys[head], d, NN) for head, d in zip(heads, d_scores, strict=True)]
        key_sums = [dot(query[head], d, NT) for head, d in zip(heads, d_scores, strict=True)]
        rows = slice(heads[0].start, heads[-1].stop)
        for total, found in ((d_values, jnp.concatenate(value_sums)), (d_keys, jnp.concatenate(key_sums))):
            total[rows] = found if tiling.tiles == 1 else total[rows] + found

    d_queries = jnp.concatenate(d_query)
    d_parameters.query[...] += dot(d_queries.astype(x.dtype), x, NN)
    d_parameters.query_bias[...] += jnp.sum(d_queries, axis=1, keepdims=True)
    d_parameters.out[...] += dot(jnp.concatenate(attended), g, NN)
    d_parameters.out_bias[...] += jnp.sum(g.astype(jnp.float32), axis=0, keepdims=True)
    return dot(d_queries.astype(x.dtype), parameters.query[...], TN)


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
