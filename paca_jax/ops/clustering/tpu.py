"""Convolution clustering in two TPU kernels, from patches to their assignment."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from paca_jax.ops.clustering.reference import ClusteringWeights, assign_patches
from paca_jax.ops.clustering.tpu_backward import backward_kernel
from paca_jax.ops.clustering.tpu_forward import forward_kernel
from paca_jax.ops.clustering.tpu_tiling import MAX_REACH, ClusteringTiling, clustering_tilings
from paca_jax.ops.norm.reference import NormWeights, stack
from paca_jax.ops.pallas.cores import Core, target_core, type_refusal
from paca_jax.ops.pallas.kernel import Fit, Kernel, first_fit


class _Plan(NamedTuple):
    """How kernels are cut, and what they are compiled for."""

    tiling: ClusteringTiling
    core: Core


def refusal(x: Float[Array, "B H W C"], weights: ClusteringWeights) -> str | None:
    """Returns why the kernels do not take these arrays on the target's cores, or None if they do."""
    window = len(weights.depthwise)
    if window // 2 > MAX_REACH:
        return f"a window of {window} patches is wider than {2 * MAX_REACH + 1}"
    return type_refusal(x.dtype) or fit(x, weights, target_core()).refusal()


def fused_clustering(
    x: Float[Array, "B H W C"], norm: NormWeights, weights: ClusteringWeights, core: Core
) -> Float[Array, "B M N"]:
    """Returns `ops.conv_clustering`. The backward pass needs the arguments and the assignment.

    Products multiply in the type of `x` (those of the convolution in float32) and sum in float32. Everything between them is
    float32.

    Args:
        x: patches.
        norm: in float32.
        weights: in float32.
        core: the cores that the kernels are compiled for.

    Raises:
        ValueError: if the sizes do not fit (see `refusal`).
    """
    return _cluster(x, norm, weights, _Plan(fit(x, weights, core).found(), core))


def fit(x: Array, weights: ClusteringWeights, core: Core) -> Fit[ClusteringTiling]:
    """Returns how the kernels are cut for these arrays."""

    def kernels(tiling: ClusteringTiling) -> list[Kernel]:
        return [make(tiling, weights.project.shape, x.dtype) for make in (forward_kernel, backward_kernel)]

    return first_fit(clustering_tilings(x, len(weights.depthwise)), kernels, core)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _cluster(x: Array, norm: NormWeights, weights: ClusteringWeights, plan: _Plan) -> Array:
    return _forward(x, norm, weights, plan)[0]


_Saved = tuple[Array, NormWeights, ClusteringWeights, Array]


def _forward(x: Array, norm: NormWeights, weights: ClusteringWeights, plan: _Plan) -> tuple[Array, _Saved]:
    tiling, core = plan
    kernel = forward_kernel(tiling, weights.project.shape, x.dtype)
    (y,) = kernel(core, *_blocks(x, tiling), *_operands(x, norm, weights))
    if tiling.chunks > 1:
        y = assign_patches(_maps(y, tiling).reshape(len(x), tiling.image_patches, -1))
    return y, (x, norm, weights, y)


def _backward(plan: _Plan, saved: _Saved, dy: Array) -> tuple[Array, NormWeights, ClusteringWeights]:
    tiling, core = plan
    x, norm, weights, y = saved
    if tiling.chunks == 1:
        gradients = [y, dy]
    else:
        products = y.astype(jnp.float32) * dy
        dlogits = jnp.swapaxes(products - y * jnp.sum(products, 2, keepdims=True), 1, 2)
        gradients = _blocks(dlogits.reshape(*x.shape[:3], -1).astype(x.dtype), tiling)
    kernel = backward_kernel(tiling, weights.project.shape, x.dtype)
    dx, dnorm, dvectors, dpointwise, dproject = kernel(core, *_blocks(x, tiling), *gradients, *_operands(x, norm, weights))
    *taps, depthwise_bias, pointwise_bias = dvectors.sum(1)
    dweights = ClusteringWeights(
        jnp.stack(taps).reshape(weights.depthwise.shape), depthwise_bias, dpointwise, pointwise_bias, dproject
    )
    return _maps(dx, tiling), NormWeights(*dnorm), dweights


_cluster.defvjp(_forward, _backward)


def _operands(x: Array, norm: NormWeights, weights: ClusteringWeights) -> tuple[Array, Array, Array, Array]:
    """Returns the parameters in the layout of the kernels."""
    channels = x.shape[-1]
    vectors = [weights.depthwise.reshape(-1, channels), weights.depthwise_bias[None], weights.pointwise_bias[None]]
    dense = weights.pointwise.astype(x.dtype), weights.project.astype(x.dtype)
    return stack(norm), jnp.concatenate(vectors).astype(jnp.float32), *dense


def _blocks(x: Float[Array, "B H W C"], tiling: ClusteringTiling) -> list[Float[Array, "N W C"]]:
    """Returns all rows of all images, padded to whole steps, once for each of their blocks."""
    more = tiling.chunks * tiling.rows - tiling.height
    return [jnp.pad(x, ((0, 0), (0, more), (0, 0), (0, 0))).reshape(-1, *x.shape[2:])] * tiling.blocks


def _maps(rows: Float[Array, "N W C"], tiling: ClusteringTiling) -> Float[Array, "B H W C"]:
    return rows.reshape(tiling.batch, -1, *rows.shape[1:])[:, : tiling.height]
