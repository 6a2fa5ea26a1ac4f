"""The forward kernel of patch-to-cluster attention.

Maps are held transposed, channels or clusters by patches: heads are then groups of whole rows, few clusters leave few rows
empty, and a softmax over clusters reduces over rows, without moving values between the lanes of a register. Products of one
kind stand together for all heads, so that one head's sums run while another head's products do.
"""

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
from paca_jax.ops.pallas.patches import PatchTiling, image_spec, patch_spec
from paca_jax.ops.pallas.registers import NN, NT, TN, dot
from paca_jax.ops.pallas.specs import IMAGE_SCALARS, Ref, whole


def forward(
    patches: Float[Array, "B N C"],
    clusters: Float[Array, "B M C"],
    drop_path_scale: Float[Array, "B"],
    parameters: HeadParameters,
    *,
    num_heads: int,
    tiling: PatchTiling,
    interpret: Interpreter,
) -> Float[Array, "B N C"]:
    """Returns patches plus their attention. Kernels of `parameters` are in the type of `patches`, the rest in float32."""
    kept = pltpu.VMEM((tiling.images, parameters.query.shape[0], clusters.shape[1]), patches.dtype)
    call: Any = pl.pallas_call(
        partial(_kernel, num_heads=num_heads, tiling=tiling),
        grid=(patches.shape[0] // tiling.images, tiling.tiles),
        in_specs=[patch_spec(patches, tiling), image_spec(clusters, tiling), IMAGE_SCALARS, *map(whole, parameters)],
        out_specs=patch_spec(patches, tiling),
        out_shape=jax.ShapeDtypeStruct(patches.shape, patches.dtype),
        scratch_shapes=[kept, kept],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=SMALLEST_VMEM),
        cost_estimate=attention_cost(patches, clusters, num_heads, forwards=1),
        name="cluster_attention",
        interpret=interpret,
    )
    return call(patches, clusters, drop_path_scale, *parameters)


def _kernel(x: Ref, z: Ref, drop_path_scale: Ref, *refs: Ref, num_heads: int, tiling: PatchTiling) -> None:
    parameters, (out, keys, values) = HeadParameters(*refs[:-3]), refs[-3:]
    first = pl.program_id(0) * tiling.images
    keys_and_values(z, parameters, keys, values, tiling)
    heads = head_slices(parameters, num_heads)
    for image in range(tiling.images):
        normal = normalize(x[image], parameters.norm[...])
        query = (dot(parameters.query[...], normal, NT) + parameters.query_bias[...]).astype(x.dtype)
        scores = [dot(keys[image, head], query[head], TN) for head in heads]
        weights = [softmax(score).astype(x.dtype) for score in scores]
        attended = [dot(values[image, head], weight, NN).astype(x.dtype) for head, weight in zip(heads, weights, strict=True)]
        projected = dot(jnp.concatenate(attended), parameters.out[...], TN) + parameters.out_bias[...]
        out[image] = (x[image].astype(jnp.float32) + drop_path_scale[first + image] * projected).astype(x.dtype)
