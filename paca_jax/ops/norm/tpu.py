"""LayerNorm in two TPU kernels, which read patches once and leave them where other kernels take them."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from paca_jax.ops.norm.reference import NormWeights, normalize, stack
from paca_jax.ops.pallas.common import Ref, whole
from paca_jax.ops.pallas.patches import MEMORY, Tiling, inside, norm_gradient, patch_spec, tile_patches


def fits(x: Float[Array, "B N C"]) -> bool:
    """Whether the kernels take patches of this type and as many channels."""
    return x.dtype in (jnp.bfloat16, jnp.float32) and tile_patches(x) is not None


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def fused_layer_norm(x: Float[Array, "B N C"], weights: NormWeights, interpret: bool = False) -> Float[Array, "B N C"]:
    """Returns `ops.layer_norm`; its gradient keeps the arguments alone.

    Args:
        x: patches.
        weights: in float32.
        interpret: whether JAX interprets the kernels, on any device, rather than compile them for a TPU.
    """
    return _forward(x, weights, interpret)[0]


def _forward(x: Array, weights: NormWeights, interpret: bool) -> tuple[Array, tuple[Array, NormWeights]]:
    y = _call(_normalize, "layer_norm", "parallel", (x,), stack(weights), [x], interpret)
    return y[0], (x, weights)


def _backward(interpret: bool, kept: tuple[Array, NormWeights], dy: Array) -> tuple[Array, NormWeights]:
    x, weights = kept
    norm = stack(weights)
    dx, d_norm = _call(_normalize_backward, "layer_norm_backward", "arbitrary", (x, dy), norm, [x, norm], interpret)
    return dx, NormWeights(*d_norm)


fused_layer_norm.defvjp(_forward, _backward)


def _call(
    kernel: Any, name: str, order: Any, patches: tuple[Array, ...], norm: Array, like: list[Array], interpret: bool
) -> Any:
    x = patches[0]
    tiling = tile_patches(x)
    if tiling is None:
        raise ValueError(f"No tiling fits patches {x.shape}.")
    spec = patch_spec(x, tiling)
    return pl.pallas_call(
        partial(kernel, num_patches=x.shape[1], tiling=tiling),
        grid=(x.shape[0] // tiling.images, tiling.tiles),
        in_specs=[*(spec for _ in patches), whole(norm)],
        out_specs=[spec, whole(norm)][: len(like)],
        out_shape=[jax.ShapeDtypeStruct(array.shape, array.dtype) for array in like],
        compiler_params=pltpu.CompilerParams(dimension_semantics=(order, order), vmem_limit_bytes=MEMORY),
        cost_estimate=pl.CostEstimate(
            flops=0, transcendentals=0, bytes_accessed=(len(patches) + 1) * x.size * x.dtype.itemsize
        ),
        name=name,
        interpret=interpret,
    )(*patches, norm)


def _normalize(x: Ref, norm: Ref, y: Ref, *, num_patches: int, tiling: Tiling) -> None:
    for image in range(tiling.images):
        y[image] = normalize(x[image], norm[...])


def _normalize_backward(x: Ref, dy: Ref, norm: Ref, dx: Ref, d_norm: Ref, *, num_patches: int, tiling: Tiling) -> None:
    tile = pl.program_id(1)

    @pl.when((pl.program_id(0) == 0) & (tile == 0))
    def _() -> None:
        d_norm[...] = jnp.zeros_like(d_norm)

    for image in range(tiling.images):
        patches, gradient = (inside(ref[image], tile, 0, num_patches) for ref in (x, dy))
        dx[image] = norm_gradient(patches, gradient.astype(jnp.float32), norm, d_norm).astype(dx.dtype)
