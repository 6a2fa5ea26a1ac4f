"""A residual depthwise MLP in two TPU kernels, whose hidden maps never leave the chip."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from paca_jax.ops.mlp.tpu_backward import backward
from paca_jax.ops.mlp.tpu_forward import forward
from paca_jax.ops.mlp.tpu_steps import BIAS1, BIAS2
from paca_jax.ops.mlp.tpu_tiling import Tiling, tile
from paca_jax.ops.norm.reference import NormWeights, stack
from paca_jax.ops.pallas.common import LANES, round_up


class MlpWeights(NamedTuple):
    """The parameters of a depthwise MLP: two dense layers, and the 3x3 convolution between them."""

    kernel1: Float[Array, "C D"]
    bias1: Float[Array, "D"]
    depthwise: Float[Array, "3 3 1 D"]
    depthwise_bias: Float[Array, "D"]
    kernel2: Float[Array, "D C"]
    bias2: Float[Array, "C"]


_MEMORY = 13 * 2**20  # bytes of a v4 chip's 16 MiB of vector memory that weights and their gradients may take


def fits(x: Float[Array, "B H W C"], weights: MlpWeights) -> bool:
    """Whether the kernels take arrays of this type and these sizes: maps of any size, weights that the chip can hold.

    It holds both matrices, and both gradients twice in float32.
    """
    if x.dtype not in (jnp.bfloat16, jnp.float32):
        return False
    return weights.kernel1.size * (2 * x.dtype.itemsize + 4 * 4) <= _MEMORY


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def fused_mlp(
    x: Float[Array, "B H W C"],
    share: Float[Array, "B"],
    norm: NormWeights,
    weights: MlpWeights,
    shortcut: bool,
    interpret: bool = False,
) -> Float[Array, "B H W C"]:
    """Returns `ops.residual_mlp`; its gradient keeps `x` alone.

    Products multiply in the type of `x` and sum in float32; what lies between them is float32.

    Args:
        x: patches.
        share: factor of each image's branch, in float32; it has no gradient.
        norm: in float32.
        weights: in float32.
        shortcut: whether the convolution adds its own input.
        interpret: whether JAX interprets the kernels, on any device, rather than compile them for a TPU.
    """
    return _forward(x, share, norm, weights, shortcut, interpret)[0]


_Kept = tuple[Array, Array, NormWeights, MlpWeights]


def _forward(
    x: Array, share: Array, norm: NormWeights, weights: MlpWeights, shortcut: bool, interpret: bool
) -> tuple[Array, _Kept]:
    tiling, padded = tile(x), _pad_hidden(weights)
    y = forward(
        _patches(x, tiling),
        _shares(share, tiling),
        stack(norm),
        _by_tile(padded.kernel1, x.dtype),
        _vectors(padded, shortcut),
        padded.kernel2.reshape(-1, LANES, x.shape[-1]).astype(x.dtype),
        padded.bias2[None].astype(jnp.float32),
        tiling=tiling,
        interpret=interpret,
    )
    return _maps(y, tiling, x.shape), (x, share, norm, weights)


def _backward(shortcut: bool, interpret: bool, kept: _Kept, dy: Array) -> _Kept:
    x, share, norm, weights = kept
    tiling, padded = tile(x), _pad_hidden(weights)
    dx, dnorm, dkernel1, dtransposed2, dvectors, dbias2 = backward(
        _patches(x, tiling),
        _patches(dy, tiling),
        _shares(share, tiling),
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
        depthwise=rows[:9].reshape(3, 3, 1, -1),
        depthwise_bias=rows[BIAS2],
        kernel2=_from_tiles(dtransposed2).T,
        bias2=dbias2.sum(0),
    )
    cut = [d[tuple(map(slice, weight.shape))].astype(weight.dtype) for d, weight in zip(dweights, weights, strict=True)]
    return _maps(dx, tiling, x.shape), jnp.zeros_like(share), NormWeights(*dnorm.sum(1)), MlpWeights(*cut)


fused_mlp.defvjp(_forward, _backward)


def _pad_hidden(weights: MlpWeights) -> MlpWeights:
    """Adds zeros until hidden channels fill lanes."""
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
    taps = weights.depthwise.reshape(9, -1).astype(jnp.float32)
    if shortcut:
        taps = taps.at[4].add(1.0)
    return _by_tile(jnp.concatenate([taps, weights.depthwise_bias[None], weights.bias1[None]]), jnp.float32)


def _by_tile(array: Float[Array, "R D"], dtype: jnp.dtype) -> Float[Array, "T R L"]:
    return array.astype(dtype).reshape(array.shape[0], -1, LANES).transpose(1, 0, 2)


def _from_tiles(array: Float[Array, "T R L"]) -> Float[Array, "R D"]:
    return array.transpose(1, 0, 2).reshape(array.shape[1], -1)


def _patches(x: Float[Array, "B H W C"], tiling: Tiling) -> Float[Array, "..."]:
    """Returns patches as the kernels take them: padded to whole steps and whole registers, or rows of whole images."""
    batch, height, width, channels = x.shape
    images = tiling.batch - batch
    if tiling.packed:
        return jnp.pad(x.reshape(batch, -1, channels), ((0, images), (0, 0), (0, 0)))
    rows, columns = tiling.chunks * tiling.rows - height, tiling.columns - width
    return jnp.pad(x, ((0, images), (0, rows), (0, columns), (0, 0))).reshape(-1, channels)


def _shares(share: Float[Array, "B"], tiling: Tiling) -> Float[Array, "B"]:
    return jnp.pad(share, (0, tiling.batch - len(share)))


def _maps(patches: Float[Array, "..."], tiling: Tiling, shape: tuple[int, ...]) -> Float[Array, "B H W C"]:
    if tiling.packed:
        return patches[: shape[0]].reshape(shape)
    maps = patches.reshape(tiling.batch, tiling.chunks * tiling.rows, tiling.columns, -1)
    return maps[tuple(map(slice, shape))]
