"""Convolution clustering in two TPU kernels, from patches to their assignment."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from paca_jax.ops.attention.reference import assign_patches
from paca_jax.ops.clustering.tpu_backward import backward
from paca_jax.ops.clustering.tpu_forward import forward
from paca_jax.ops.clustering.tpu_tiling import MAX_REACH, Tiling, tile
from paca_jax.ops.norm.reference import NormWeights, stack


class ClusteringWeights(NamedTuple):
    """The parameters of convolution clustering: a depthwise convolution and two dense layers, the last without bias."""

    depthwise: Float[Array, "K K 1 C"]
    depthwise_bias: Float[Array, "C"]
    pointwise: Float[Array, "C C"]
    pointwise_bias: Float[Array, "C"]
    project: Float[Array, "C M"]


_MEMORY = 4 * 2**20  # bytes of a v4 chip's 16 MiB of vector memory that weights and their gradients may take


def fits(x: Float[Array, "B H W C"], weights: ClusteringWeights) -> bool:
    """Whether the kernels take arrays of this type and these sizes: windows, rows and weights that the chip can hold."""
    window = len(weights.depthwise)
    if x.dtype not in (jnp.bfloat16, jnp.float32) or window // 2 > MAX_REACH or not tile(x, window).holds(x.dtype.itemsize):
        return False
    return (weights.pointwise.size + weights.project.size) * (x.dtype.itemsize + 4) <= _MEMORY


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def fused_clustering(
    x: Float[Array, "B H W C"], norm: NormWeights, weights: ClusteringWeights, interpret: bool = False
) -> Float[Array, "B M N"]:
    """Returns `ops.conv_clustering`; its gradient keeps `x` and what it returns.

    Products multiply in the type of `x`, those of the convolution in float32, and sum in float32; so is what lies between.

    Args:
        x: patches.
        norm: in float32.
        weights: in float32.
        interpret: whether JAX interprets the kernels, on any device, rather than compile them for a TPU.
    """
    return _forward(x, norm, weights, interpret)[0]


_Kept = tuple[Array, NormWeights, ClusteringWeights, Array]


def _forward(x: Array, norm: NormWeights, weights: ClusteringWeights, interpret: bool) -> tuple[Array, _Kept]:
    tiling = tile(x, len(weights.depthwise))
    y = forward(_lines(x, tiling), *_operands(x, norm, weights), tiling=tiling, interpret=interpret)
    if tiling.chunks > 1:
        y = assign_patches(_maps(y, tiling).reshape(len(x), tiling.patches, -1))
    return y, (x, norm, weights, y)


def _backward(interpret: bool, kept: _Kept, dy: Array) -> tuple[Array, NormWeights, ClusteringWeights]:
    x, norm, weights, y = kept
    tiling = tile(x, len(weights.depthwise))
    if tiling.chunks == 1:
        gradients = [y, dy]
    else:
        products = y.astype(jnp.float32) * dy
        dlogits = jnp.swapaxes(products - y * jnp.sum(products, 2, keepdims=True), 1, 2)
        gradients = [_lines(dlogits.reshape(*x.shape[:3], -1).astype(x.dtype), tiling)]
    dx, dnorm, dvectors, dpointwise, dproject = backward(
        _lines(x, tiling), gradients, *_operands(x, norm, weights), tiling=tiling, interpret=interpret
    )
    *taps, depthwise_bias, pointwise_bias = dvectors.sum(1)
    dweights = ClusteringWeights(
        jnp.stack(taps).reshape(weights.depthwise.shape), depthwise_bias, dpointwise, pointwise_bias, dproject
    )
    return _maps(dx, tiling), NormWeights(*dnorm), dweights


fused_clustering.defvjp(_forward, _backward)


def _operands(x: Array, norm: NormWeights, weights: ClusteringWeights) -> tuple[Array, Array, Array, Array]:
    """Returns the parameters as kernels take them."""
    channels = x.shape[-1]
    vectors = [weights.depthwise.reshape(-1, channels), weights.depthwise_bias[None], weights.pointwise_bias[None]]
    dense = weights.pointwise.astype(x.dtype), weights.project.astype(x.dtype)
    return stack(norm), jnp.concatenate(vectors).astype(jnp.float32), *dense


def _lines(x: Float[Array, "B H W C"], tiling: Tiling) -> Float[Array, "N W C"]:
    """Returns all rows of all images, padded to whole steps."""
    more = tiling.chunks * tiling.rows - tiling.height
    return jnp.pad(x, ((0, 0), (0, more), (0, 0), (0, 0))).reshape(-1, *x.shape[2:])


def _maps(lines: Float[Array, "N W C"], tiling: Tiling) -> Float[Array, "B H W C"]:
    return lines.reshape(tiling.batch, -1, *lines.shape[1:])[:, : tiling.height]
