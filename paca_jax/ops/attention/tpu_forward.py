"""The forward kernel of patch-to-cluster attention.

Maps are held transposed, channels or clusters by patches: heads are then groups of whole rows, few clusters leave few rows
empty, and a softmax over clusters reduces over rows, without moving values between the lanes of a register. Products of one
kind stand together for several heads, so that one head's sums run while another head's products do.
"""

from functools import partial

import jax.numpy as jnp
from jax.experimental.pallas import tpu as pltpu

from paca_jax.ops.attention.tpu_steps import AttentionShape, HeadParameters, head_groups, keys_and_values, softmax
from paca_jax.ops.attention.tpu_tiling import AttentionTiling, spilled_by_attention
from paca_jax.ops.norm.reference import normalize
from paca_jax.ops.pallas.blocks import Ref, image_scalars
from paca_jax.ops.pallas.kernel import Kernel, Step
from paca_jax.ops.pallas.registers import NN, NT, TN, dot


def forward_kernel(shape: AttentionShape, tiling: AttentionTiling) -> Kernel:
    """Returns the kernel from patches, clusters, drop-path scales and parameters to patches plus their attention.

    Kernels of the parameters are in the type of the patches, the rest in float32.
    """
    patches, clusters = shape.patch_block(tiling), shape.attended_block(tiling)
    kept = pltpu.VMEM((tiling.images, shape.rows, shape.attended), shape.dtype)
    return Kernel(
        name="cluster_attention",
        body=partial(_body, num_heads=shape.num_heads, tiling=tiling),
        grid=tiling.grid(shape.images),
        operands=[patches, clusters, image_scalars(shape.images), *shape.parameter_blocks(shape.dtype)],
        results=[patches],
        cost=shape.cost(forwards=1),
        scratch=[kept, kept],
        spilled=spilled_by_attention(shape, tiling),
        in_order=True,
    )


def _body(step: Step, x: Ref, z: Ref, drop_path_scale: Ref, *refs: Ref, num_heads: int, tiling: AttentionTiling) -> None:
    parameters, (out, keys, values) = HeadParameters(*refs[:-3]), refs[-3:]
    first = step.image * tiling.images
    keys_and_values(step, z, parameters, keys, values, tiling)
    for image in range(tiling.images):
        normal = normalize(x[image], parameters.norm[...])
        query = (dot(parameters.query[...], normal, NT) + parameters.query_bias[...]).astype(x.dtype)
        attended = []
        for heads in head_groups(parameters, num_heads, tiling.heads):
            scores = [dot(keys[image, head], query[head], TN) for head in heads]
            weights = [softmax(score).astype(x.dtype) for score in scores]
            found = (dot(values[image, head], weight, NN) for head, weight in zip(heads, weights, strict=True))
            attended += [part.astype(x.dtype) for part in found]
        projected = dot(jnp.concatenate(attended), parameters.out[...], TN) + parameters.out_bias[...]
        out[image] = (x[image].astype(jnp.float32) + drop_path_scale[first + image] * projected).astype(x.dtype)
