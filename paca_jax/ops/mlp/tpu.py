"""A residual depthwise MLP in two TPU kernels; the hidden maps never leave the chip."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from paca_jax.ops.mlp.reference import MlpWeights
from paca_jax.ops.mlp.tpu_backward import backward_kernel
from paca_jax.ops.mlp.tpu_forward import forward_kernel
from paca_jax.ops.mlp.tpu_steps import BIAS1, BIAS2, TAPS
from paca_jax.ops.mlp.tpu_tiling import MlpTiling, mlp_tilings
from paca_jax.ops.norm.reference import NormWeights, stack
from paca_jax.ops.pallas.cores import Core, target_core, type_refusal
from paca_jax.ops.pallas.kernel import Fit, Kernel, first_fit
from paca_jax.ops.pallas.registers import LANES, round_up


class _Plan(NamedTuple):
    """How kernels are cut, and what they are compiled for."""

    shortcut: bool
    tiling: MlpTiling
    core: Core


def refusal(x: Float[Array, "B H W C"], weights: MlpWeights) -> str | None:
    """Returns why the kernels do not take these arrays on the target's cores, or None if they do. Maps may have any size."""
    return type_refusal(x.dtype) or fit(x, weights, target_core()).refusal()


def fused_mlp(
    x: Float[Array, "B H W C"],
    drop_path_scale: Float[Array, "B"],
    norm: NormWeights,
    weights: MlpWeights,
    shortcut: bool,
    core: Core,
) -> Float[Array, "B H W C"]:
    """Returns `ops.residual_mlp`. The backward pass needs the arguments only, and recomputes the hidden maps.

    Products multiply in the type of `x` and sum in float32. Everything between them is float32.

    Args:
        x: patches.
        drop_path_scale: in float32. It has no gradient.
        norm: in float32.
        weights: in float32.
        shortcut: whether the convolution adds its own input.
        core: the cores that the kernels are compiled for.

    Raises:
        ValueError: if the sizes do not fit (see `refusal`).
    """
    plan = _Plan(shortcut, fit(x, weights, core).found(), core)
    return _residual_mlp(x, drop_path_scale, norm, weights, plan)


def fit(x: Array, weights: MlpWeights, core: Core) -> Fit[MlpTiling]:
    """Returns how the kernels are cut for these arrays."""
    tiles = math.ceil(weights.kernel1.shape[1] / LANES)

    def kernels(tiling: MlpTiling) -> list[Kernel]:
        return [make(tiling, x.shape[-1], tiles, x.dtype) for make in (forward_kernel, backward_kernel)]

    return first_fit(mlp_tilings(x), kernels, core)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _residual_mlp(x: Array, drop_path_scale: Array, norm: NormWeights, weights: MlpWeights, plan: _Plan) -> Array:
    return _forward(x, drop_path_scale, norm, weights, plan)[0]


_Saved = tuple[Array, Array, NormWeights, MlpWeights]


def _forward(x: Array, drop_path_scale: Array, norm: NormWeights, weights: MlpWeights, plan: _Plan) -> tuple[Array, _Saved]:
    shortcut, tiling, core = plan
    padded = _pad_hidden(weights)
    kernel1 = _by_tile(padded.kernel1, x.dtype)
    (y,) = forward_kernel(tiling, x.shape[-1], len(kernel1), x.dtype)(
        core,
        *_blocks(x, tiling),
        _pad_batch(drop_path_scale, tiling),
        stack(norm),
        kernel1,
        _vectors(padded, shortcut),
        padded.kernel2.reshape(-1, LANES, x.shape[-1]).astype(x.dtype),
        padded.bias2[None].astype(jnp.float32),
    )
    return _maps(y, tiling, x.shape), (x, drop_path_scale, norm, weights)


def _backward(plan: _Plan, saved: _Saved, dy: Array) -> _Saved:
    shortcut, tiling, core = plan
    x, drop_path_scale, norm, weights = saved
    padded = _pad_hidden(weights)
    kernel1 = _by_tile(padded.kernel1, x.dtype)
    dx, dnorm, dkernel1, dtransposed2, dvectors, dbias2 = backward_kernel(tiling, x.shape[-1], len(kernel1), x.dtype)(
        core,
        *_blocks(x, tiling),
        *_blocks(dy, tiling),
        _pad_batch(drop_path_scale, tiling),
        stack(norm),
        kernel1,
        _vectors(padded, shortcut),
        _by_tile(padded.kernel2.T, x.dtype),
    )
    rows = dvectors.sum(2).transpose(1, 0, 2).reshape(dvectors.shape[1], -1)
    dweights = MlpWeights(
        kernel1=_from_tiles(dkernel1),
        bias1=rows[BIAS1],
        depthwise=rows[:TAPS].reshape(3, 3, 1, -1),
        depthwise_bias=rows[BIAS2],
        kernel2=_from_tiles(dtransposed2).T,
        bias2=dbias2.sum(0),
    )
    cut = [d[tuple(map(slice, weight.shape))].astype(weight.dtype) for d, weight in zip(dweights, weights, strict=True)]
    return _maps(dx, tiling, x.shape), jnp.zeros_like(drop_path_scale), NormWeights(*dnorm.sum(1)), MlpWeights(*cut)


_residual_mlp.defvjp(_forward, _backward)


def _pad_hidden(weights: MlpWeights) -> MlpWeights:
    """Pads the hidden channels with zeros to whole registers."""
    hidden = weights.kernel1.shape[1]
    more = (0, round_up(hidden, LANES) - hidden)
    return weights._replace(
        kernel1=jnp.pad(weights.kernel1, ((0, 0), more)),
        bias1=jnp.pad(weights.bias1, more),
        depthwise=jnp.pad(weights.depthwise, ((0, 0), (0, 0), (0, 0), more)),
        depthwise_bias=jnp.pad(weights.depthwise_bias, more),
        kernel2=jnp.pad(weights.kernel2, (more, (0, 0))),
    )


def _vectors(weights: MlpWeights, shortcut: bool) -> Float[Array, "T V L"]:
    taps = weights.depthwise.reshape(TAPS, -1).astype(jnp.float32)
    if shortcut:
        taps = taps.at[TAPS // 2].add(1.0)
    return _by_tile(jnp.concatenate([taps, weights.depthwise_bias[None], weights.bias1[None]]), jnp.float32)


def _by_tile(array: Float[Array, "R D"], dtype: DTypeLike) -> Float[Array, "T R L"]:
    return array.astype(dtype).reshape(array.shape[0], -1, LANES).transpose(1, 0, 2)


def _from_tiles(array: Float[Array, "T R L"]) -> Float[Array, "R D"]:
    return array.transpose(1, 0, 2).reshape(array.shape[1], -1)


def _blocks(x: Float[Array, "B H W C"], tiling: MlpTiling) -> list[Float[Array, "..."]]:
    """Returns patches, once for each of their blocks: whole images, or rows padded to whole registers and whole steps."""
    batch, height, width, channels = x.shape
    images = tiling.batch - batch
    if tiling.packed:
        return [jnp.pad(x.reshape(batch, -1, channels), ((0, images), (0, 0), (0, 0)))]
    rows, columns = tiling.chunks * tiling.rows - height, tiling.columns - width
    return [jnp.pad(x, ((0, images), (0, rows), (0, columns), (0, 0))).reshape(-1, channels)] * tiling.blocks


def _pad_batch(drop_path_scale: Float[Array, "B"], tiling: MlpTiling) -> Float[Array, "P"]:
    return jnp.pad(drop_path_scale, (0, tiling.batch - len(drop_path_scale)))


def _maps(patches: Float[Array, "..."], tiling: MlpTiling, shape: tuple[int, ...]) -> Float[Array, "B H W C"]:
    if tiling.packed:
        return patches[: shape[0]].reshape(shape)
    maps = patches.reshape(tiling.batch, tiling.chunks * tiling.rows, tiling.columns, -1)
    return maps[tuple(map(slice, shape))]
