"""Convolution clustering in two TPU kernels, from patches to their assignment."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from paca_jax.ops.clustering.reference import ClusteringWeights, assign_patches
from paca_jax.ops.clustering.tpu_backward import backward
from paca_jax.ops.clustering.tpu_forward import forward
from paca_jax.ops.clustering.tpu_tiling import MAX_REACH, ClusteringTiling, tile_clustering
from paca_jax.ops.implementation import Interpreter
from paca_jax.ops.norm.reference import NormWeights, stack
from paca_jax.ops.pallas.limits import memory_refusal, type_refusal

_WEIGHT_BYTES = 4 * 2**20  # of a v4's 16 MiB of vector memory, for weights and their gradients


def refusal(x: Float[Array, "B H W C"], weights: ClusteringWeights) -> str | None:
    """Returns why the kernels do not take these arrays, or None if they do."""
    window, itemsize = len(weights.depthwise), x.dtype.itemsize
    if window // 2 > MAX_REACH:
        return f"a window of {window} patches is wider than {2 * MAX_REACH + 1}"
    steps = tile_clustering(x, window).refusal(itemsize)
    needed = (weights.pointwise.size + weights.project.size) * (itemsize + 4)
    return type_refusal(x.dtype) or steps or memory_refusal("its weights", needed, _WEIGHT_BYTES)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def fused_clustering(
    x: Float[Array, "B H W C"], norm: NormWeights, weights: ClusteringWeights, interpret: Interpreter = False
) -> Float[Array, "B M N"]:
    """Returns `ops.conv_clustering`. The backward pass needs the arguments and the assignment.

    Products multiply in the type of `x` (those of the convolution in float32) and sum in float32. Everything between them is
    float32.

    Args:
        x: patches.
        norm: in float32.
        weights: in float32.
        interpret: how `pallas_call` interprets the kernels on any device; False compiles them for a TPU.
    """
    return _forward(x, norm, weights, interpret)[0]


_Saved = tuple[Array, NormWeights, ClusteringWeights, Array]


def _forward(x: Array, norm: NormWeights, weights: ClusteringWeights, interpret: Interpreter) -> tuple[Array, _Saved]:
    tiling = tile_clustering(x, len(weights.depthwise))
    y = forward(_rows(x, tiling), *_operands(x, norm, weights), tiling=tiling, interpret=interpret)
    if tiling.chunks > 1:
        y = assign_patches(_maps(y, tiling).reshape(len(x), tiling.image_patches, -1))
    return y, (x, norm, weights, y)


def _backward(interpret: Interpreter, saved: _Saved, dy: Array) -> tuple[Array, NormWeights, ClusteringWeights]:
    x, norm, weights, y = saved
    tiling = tile_clustering(x, len(weights.depthwise))
    if tiling.chunks == 1:
        gradients = [y, dy]
    else:
        products = y.astype(jnp.float32) * dy
        dlogits = jnp.swapaxes(products - y * jnp.sum(products, 2, keepdims=True), 1, 2)
        gradients = [_rows(dlogits.reshape(*x.shape[:3], -1).astype(x.dtype), tiling)]
    dx, dnorm, dvectors, dpointwise, dproject = backward(
        _rows(x, tiling), gradients, *_operands(x, norm, weights), tiling=tiling, interpret=interpret
    )
    *taps, depthwise_bias, pointwise_bias = dvectors.sum(1)
    dweights = ClusteringWeights(
        jnp.stack(taps).reshape(weights.depthwise.shape), depthwise_bias, dpointwise, pointwise_bias, dproject
    )
    return _maps(dx, tiling), NormWeights(*dnorm), dweights


fused_clustering.defvjp(_forward, _backward)


def _operands(x: Array, norm: NormWeights, weights: ClusteringWeights) -> tuple[Array, Array, Array, Array]:
    """Returns the parameters in the layout of the kernels."""
    channels = x.shape[-1]
    vectors = [weights.depthwise.reshape(-1, channels), weights.depthwise_bias[None], weights.pointwise_bias[None]]
    dense = weights.pointwise.astype(x.dtype), weights.project.astype(x.dtype)
    return stack(norm), jnp.concatenate(vectors).astype(jnp.float32), *dense


def _rows(x: Float[Array, "B H W C"], tiling: ClusteringTiling) -> Float[Array, "N W C"]:
    """Returns all rows of all images, padded to whole steps."""
    more = tiling.chunks * tiling.rows - tiling.height
    return jnp.pad(x, ((0, 0), (0, more), (0, 0), (0, 0))).reshape(-1, *x.shape[2:])


def _maps(rows: Float[Array, "N W C"], tiling: ClusteringTiling) -> Float[Array, "B H W C"]:
    return rows.reshape(tiling.batch, -1, *rows.shape[1:])[:, : tiling.height]
