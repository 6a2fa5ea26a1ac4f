"""The backward kernel of patch-to-cluster attention: it computes scores and their softmax anew."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from paca_jax.ops.attention.tpu_steps import Rows, cost, head_slices, keys_and_values, softmax
from paca_jax.ops.norm.reference import normalize
from paca_jax.ops.pallas.common import NN, NT, SHARES, TN, Ref, dot, whole
from paca_jax.ops.pallas.patches import MEMORY, Tiling, at_tile, image_spec, inside, norm_gradient, patch_spec


def backward(
    patches: Float[Array, "B N C"],
    clusters: Float[Array, "B M C"],
    share: Float[Array, "B"],
    weights: Rows,
    g: Float[Array, "B N C"],
    *,
    num_heads: int,
    tiling: Tiling,
    interpret: bool,
) -> tuple[Float[Array, "B N C"], Float[Array, "B M C"], Rows]:
    """Returns the gradients of patches, clusters and, in float32 and summed over images, of the weights."""
    rows, attended = weights.query.shape[0], clusters.shape[1]
    kept = pltpu.VMEM((tiling.images, rows, attended), patches.dtype)
    summed = pltpu.VMEM((rows, attended), jnp.float32)
    spec = patch_spec(patches, tiling)
    of_weights = [jax.ShapeDtypeStruct(weight.shape, jnp.float32) for weight in weights]
    call: Any = pl.pallas_call(
        partial(_kernel, num_heads=num_heads, num_patches=patches.shape[1], tiling=tiling),
        grid=(patches.shape[0] // tiling.images, tiling.tiles),
        in_specs=[spec, image_spec(clusters, tiling), spec, SHARES, *map(whole, weights)],
        out_specs=[spec, image_spec(clusters, tiling), *map(whole, weights)],
        out_shape=[*(jax.ShapeDtypeStruct(array.shape, array.dtype) for array in (patches, clusters)), *of_weights],
        scratch_shapes=[kept, kept, summed, summed],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("arbitrary", "arbitrary"), vmem_limit_bytes=MEMORY),
        cost_estimate=cost(patches, clusters, num_heads, forwards=2),
        name="cluster_attention_backward",
        interpret=interpret,
    )
    d_patches, d_clusters, *d_weights = call(patches, clusters, g, share, *weights)
    return d_patches, d_clusters, Rows(*d_weights)


def _kernel(x: Ref, z: Ref, g: Ref, share: Ref, *refs: Ref, num_heads: int, num_patches: int, tiling: Tiling) -> None:
    count = len(Rows._fields)
    weights, (dx, dz), d_weights = Rows(*refs[:count]), refs[count : count + 2], Rows(*refs[count + 2 : -4])
    keys, values, d_keys, d_values = refs[-4:]
    first, tile = pl.program_id(0) * tiling.images, pl.program_id(1)

    @pl.when((pl.program_id(0) == 0) & (tile == 0))
    def _() -> None:
        for total in d_weights:
            total[...] = jnp.zeros_like(total)

    def start_sums() -> None:
        d_keys[...] = jnp.zeros_like(d_keys)
        d_values[...] = jnp.zeros_like(d_values)

    keys_and_values(z, weights, keys, values, tiling)
    if tiling.tiles > 1:
        at_tile(0, tiling, start_sums)
    for image in range(tiling.images):
        own, own_g = (inside(ref[image], tile, 0, num_patches) for ref in (x, g))
        normal, own_share = normalize(own, weights.norm[...]), share[first + image]
        branch_g = (own_g * own_share).astype(g.dtype)
        found = _patches_gradient(normal, branch_g, keys.at[image], values.at[image], weights, d_weights, num_heads)
        d_branch = norm_gradient(own, found[0], weights.norm, d_weights.norm)
        dx[image] = (own_g.astype(jnp.float32) + d_branch).astype(dx.dtype)
        if tiling.tiles > 1:
            d_keys[...] += found[1]
            d_values[...] += found[2]
        else:
            dz[image] = _clusters_gradient(z[image], found[1], found[2], weights, d_weights).astype(dz.dtype)
    if tiling.tiles > 1:

        @pl.when(tile == tiling.tiles - 1)
        def _() -> None:
            dz[0] = _clusters_gradient(z[0], d_keys[...], d_values[...], weights, d_weights).astype(dz.dtype)


def _patches_gradient(
    x: Float[Array, "N C"],
    g: Float[Array, "N C"],
    keys: Ref,
    values: Ref,
    weights: Rows,
    d_weights: Rows,
    num_heads: int,
) -> tuple[Float[Array, "N C"], Float[Array, "R M"], Float[Array, "R M"]]:
    """Returns the gradients of patches, keys and values, and adds those of the weights that meet patches."""
    heads = head_slices(weights, num_heads)
    query = (dot(weights.query[...], x, NT) + weights.query_bias[...]).astype(x.dtype)
    d_attended = dot(weights.out[...], g, NT).astype(x.dtype)

    scores = [dot(keys[head], query[head], TN) for head in heads]
    d_shares = [dot(values[head], d_attended[head], TN) for head in heads]
    shares = [softmax(score) for score in scores]
    rounded = [share.astype(x.dtype) for share in shares]
    d_scores = [
        (share * (d - jnp.sum(share * d, axis=0, keepdims=True))).astype(x.dtype)
        for share, d in zip(shares, d_shares, strict=True)
    ]
    attended = [dot(values[head], share, NN).astype(x.dtype) for head, share in zip(heads, rounded, strict=True)]
    d_values = [dot(d_attended[head], share, NT) for head, share in zip(heads, rounded, strict=True)]
    d_query = jnp.concatenate([dot(keys[head], d, NN) for head, d in zip(heads, d_scores, strict=True)])
    d_keys = [dot(query[head], d, NT) for head, d in zip(heads, d_scores, strict=True)]

    d_weights.query[...] += dot(d_query.astype(x.dtype), x, NN)
    d_weights.query_bias[...] += jnp.sum(d_query, axis=1, keepdims=True)
    d_weights.out[...] += dot(jnp.concatenate(attended), g, NN)
    d_weights.out_bias[...] += jnp.sum(g.astype(jnp.float32), axis=0, keepdims=True)
    dx = dot(d_query.astype(x.dtype), weights.query[...], TN)
    return dx, jnp.concatenate(d_keys), jnp.concatenate(d_values)


def _clusters_gradient(
    z: Float[Array, "M C"], d_keys: Float[Array, "R M"], d_values: Float[Array, "R M"], weights: Rows, d_weights: Rows
) -> Float[Array, "M C"]:
    """Returns the gradient of clusters, and adds those of the weights that meet them."""
    normal = normalize(z, weights.attended_norm[...])
    d_weights.key_bias[...] += jnp.sum(d_keys, axis=1, keepdims=True)
    d_weights.value_bias[...] += jnp.sum(d_values, axis=1, keepdims=True)
    d_keys, d_values = d_keys.astype(z.dtype), d_values.astype(z.dtype)
    d_weights.key[...] += dot(d_keys, normal, NN)
    d_weights.value[...] += dot(d_values, normal, NN)
    d_normal = dot(d_keys, weights.key[...], TN) + dot(d_values, weights.value[...], TN)
    return norm_gradient(z, d_normal, weights.attended_norm, d_weights.attended_norm)
