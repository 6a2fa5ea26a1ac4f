"""A residual depthwise MLP in two TPU kernels; the hidden maps never leave the chip."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from paca_jax.ops.implementation import Interpreter
from paca_jax.ops.mlp.reference import MlpWeights
from paca_jax.ops.mlp.tpu_backward import backward
from paca_jax.ops.mlp.tpu_forward import forward
from paca_jax.ops.mlp.tpu_steps import BIAS1, BIAS2, TAPS
from paca_jax.ops.mlp.tpu_tiling import MlpTiling, tile_mlp
from paca_jax.ops.norm.reference import NormWeights, stack
from paca_jax.ops.pallas.limits import memory_refusal, type_refusal
from paca_jax.ops.pallas.registers import LANES, round_up

_WEIGHT_BYTES = 13 * 2**20  # of a v4's 16 MiB of vector memory, for weights and their gradients


def refusal(x: Float[Array, "B H W C"], weights: MlpWeights) -> str | None:
    """Returns why the kernels do not take these arrays, or None if they do. Maps may have any size.

    The chip holds both matrices, and both of their gradients twice in float32.
    """
    needed = weights.kernel1.size * (2 * x.dtype.itemsize + 4 * 4)
    return type_refusal(x.dtype) or memory_refusal("its weights", needed, _WEIGHT_BYTES)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def fused_mlp(
    x: Float[Array, "B H W C"],
    drop_path_scale: Float[Array, "B"],
    norm: NormWeights,
    weights: MlpWeights,
    shortcut: bool,
    interpret: Interpreter = False,
) -> Float[Array, "B H W C"]:
    """Returns `ops.residual_mlp`. The backward pass needs the arguments only, and recomputes the hidden maps.

    Products multiply in the type of `x` and sum in float32. Everything between them is float32.

    Args:
        x: patches.
        drop_path_scale: in float32. It has no gradient.
        norm: in float32.
        weights: in float32.
        shortcut: whether the convolution adds its own input.
        interpret: how `pallas_call` interprets the kernels on any device; False compiles them for a TPU.
    """
    return _forward(x, drop_path_scale, norm, weights, shortcut, interpret)[0]


_Saved = tuple[Array, Array, NormWeights, MlpWeights]


def _forward(
    x: Array, drop_path_scale: Array, norm: NormWeights, weights: MlpWeights, shortcut: bool, interpret: Interpreter
) -> tuple[Array, _Saved]:
    tiling, padded = tile_mlp(x), _pad_hidden(weights)
    y = forward(
        _patches(x, tiling),
        _pad_batch(drop_path_scale, tiling),
        stack(norm),
        _by_tile(padded.kernel1, x.dtype),
        _vectors(padded, shortcut),
        padded.kernel2.reshape(-1, LANES, x.shape[-1]).astype(x.dtype),
        padded.bias2[None].astype(jnp.float32),
        tiling=tiling,
        interpret=interpret,
    )
    return _maps(y, tiling, x.shape), (x, drop_path_scale, norm, weights)


def _backward(shortcut: bool, interpret: Interpreter, saved: _Saved, dy: Array) -> _Saved:
    x, drop_path_scale, norm, weights = saved
    tiling, padded = tile_mlp(x), _pad_hidden(weights)
    dx, dnorm, dkernel1, dtransposed2, dvectors, dbias2 = backward(
        _patches(x, tiling),
        _patches(dy, tiling),
        _pad_batch(drop_path_scale, tiling),
        stack(norm),
        _by_tile(padded.kernel1, x.dtype),
        _vectors(padded, shortcut),
        _by_tile(padded.kernel2.T, x.dtype),
        tiling=tiling,
        interpret=interpret,
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


fused_mlp.defvjp(_forward, _backward)


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


def _patches(x: Float[Array, "B H W C"], tiling: MlpTiling) -> Float[Array, "..."]:
    """Returns patches in the layout of the kernels: whole images, or rows padded to whole registers and whole steps."""
    batch, height, width, channels = x.shape
    images = tiling.batch - batch
    if tiling.packed:
        return jnp.pad(x.reshape(batch, -1, channels), ((0, images), (0, 0), (0, 0)))
    rows, columns = tiling.chunks * tiling.rows - height, tiling.columns - width
    return jnp.pad(x, ((0, images), (0, rows), (0, columns), (0, 0))).reshape(-1, channels)


def _pad_batch(drop_path_scale: Float[Array, "B"], tiling: MlpTiling) -> Float[Array, "P"]:
    return jnp.pad(drop_path_scale, (0, tiling.batch - len(drop_path_scale)))


def _maps(patches: Float[Array, "..."], tiling: MlpTiling, shape: tuple[int, ...]) -> Float[Array, "B H W C"]:
    if tiling.packed:
        return patches[: shape[0]].reshape(shape)
    maps = patches.reshape(tiling.batch, tiling.chunks * tiling.rows, tiling.columns, -1)
    return maps[tuple(map(slice, shape))]
