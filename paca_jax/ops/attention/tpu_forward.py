"""The forward kernel of patch-to-cluster attention.

Maps are held transposed, channels or clusters by patches: heads are then groups of whole rows, few clusters leave few rows
empty, and a softmax over clusters reduces over rows, without moving anything between the lanes of a register. Products of one
kind stand together for all heads, so that one head's sums run beside another's products.
"""

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
from paca_jax.ops.pallas.patches import MEMORY, Tiling, image_spec, patch_spec


def forward(
    patches: Float[Array, "B N C"],
    clusters: Float[Array, "B M C"],
    share: Float[Array, "B"],
    weights: Rows,
    *,
    num_heads: int,
    tiling: Tiling,
    interpret: bool,
) -> Float[Array, "B N C"]:
    """Returns patches plus what they gather; `weights` are in the type of `patches`, norms and biases in float32."""
    kept = pltpu.VMEM((tiling.images, weights.query.shape[0], clusters.shape[1]), patches.dtype)
    call: Any = pl.pallas_call(
        partial(_kernel, num_heads=num_heads, tiling=tiling),
        grid=(patches.shape[0] // tiling.images, tiling.tiles),
        in_specs=[patch_spec(patches, tiling), image_spec(clusters, tiling), SHARES, *map(whole, weights)],
        out_specs=patch_spec(patches, tiling),
        out_shape=jax.ShapeDtypeStruct(patches.shape, patches.dtype),
        scratch_shapes=[kept, kept],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=MEMORY),
        cost_estimate=cost(patches, clusters, num_heads, forwards=1),
        name="cluster_attention",
        interpret=interpret,
    )
    return call(patches, clusters, share, *weights)


def _kernel(x: Ref, z: Ref, share: Ref, *refs: Ref, num_heads: int, tiling: Tiling) -> None:
    weights, (out, keys, values) = Rows(*refs[:-3]), refs[-3:]
    first = pl.program_id(0) * tiling.images
    keys_and_values(z, weights, keys, values, tiling)
    heads = head_slices(weights, num_heads)
    for image in range(tiling.images):
        normal = normalize(x[image], weights.norm[...])
        query = (dot(weights.query[...], normal, NT) + weights.query_bias[...]).astype(x.dtype)
        scores = [dot(keys[image, head], query[head], TN) for head in heads]
        shares = [softmax(score).astype(x.dtype) for score in scores]
        attended = [dot(values[image, head], share, NN).astype(x.dtype) for head, share in zip(heads, shares, strict=True)]
        projected = dot(jnp.concatenate(attended), weights.out[...], TN) + weights.out_bias[...]
        out[image] = (x[image].astype(jnp.float32) + share[first + image] * projected).astype(x.dtype)
