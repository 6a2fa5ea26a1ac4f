"""LayerNorm in two TPU kernels, which read patches once and write them in the layout that the other kernels take."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from paca_jax.ops.implementation import Interpreter
from paca_jax.ops.norm.reference import NormWeights, normalize, stack
from paca_jax.ops.pallas.limits import SMALLEST_VMEM, type_refusal
from paca_jax.ops.pallas.patches import PatchTiling, norm_gradient, patch_spec, patches_inside, tile_patches
from paca_jax.ops.pallas.specs import Ref, whole


def refusal(x: Float[Array, "B N C"]) -> str | None:
    """Returns why the kernels do not take these patches, or None if they do."""
    if tile_patches(x) is None:
        return f"patches of {x.shape[-1]} channels do not fit into the chip's vector memory"
    return type_refusal(x.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def fused_layer_norm(x: Float[Array, "B N C"], weights: NormWeights, interpret: Interpreter = False) -> Float[Array, "B N C"]:
    """Returns `ops.layer_norm`. The backward pass needs the arguments only.

    Args:
        x: patches.
        weights: in float32.
        interpret: how `pallas_call` interprets the kernels on any device; False compiles them for a TPU.
    """
    return _forward(x, weights, interpret)[0]


def _forward(x: Array, weights: NormWeights, interpret: Interpreter) -> tuple[Array, tuple[Array, NormWeights]]:
    y = _call(_normalize, "layer_norm", "parallel", (x,), stack(weights), [x], interpret)
    return y[0], (x, weights)


def _backward(interpret: Interpreter, saved: tuple[Array, NormWeights], dy: Array) -> tuple[Array, NormWeights]:
    x, weights = saved
    norm = stack(weights)
    dx, d_norm = _call(_normalize_backward, "layer_norm_backward", "arbitrary", (x, dy), norm, [x, norm], interpret)
    return dx, NormWeights(*d_norm)


fused_layer_norm.defvjp(_forward, _backward)


def _call(
    kernel: Any, name: str, order: Any, patches: tuple[Array, ...], norm: Array, like: list[Array], interpret: Interpreter
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
        compiler_params=pltpu.CompilerParams(dimension_semantics=(order, order), vmem_limit_bytes=SMALLEST_VMEM),
        cost_estimate=pl.CostEstimate(
            flops=0, transcendentals=0, bytes_accessed=(len(patches) + 1) * x.size * x.dtype.itemsize
        ),
        name=name,
        interpret=interpret,
    )(*patches, norm)


def _normalize(x: Ref, norm: Ref, y: Ref, *, num_patches: int, tiling: PatchTiling) -> None:
    for image in range(tiling.images):
        y[image] = normalize(x[image], norm[...])


def _normalize_backward(x: Ref, dy: Ref, norm: Ref, dx: Ref, d_norm: Ref, *, num_patches: int, tiling: PatchTiling) -> None:
    tile = pl.program_id(1)

    @pl.when((pl.program_id(0) == 0) & (tile == 0))
    def _() -> None:
        d_norm[...] = jnp.zeros_like(d_norm)

    for image in range(tiling.images):
        patches, gradient = (patches_inside(ref[image], tile, 0, num_patches) for ref in (x, dy))
        dx[image] = norm_gradient(patches, gradient.astype(jnp.float32), norm, d_norm).astype(dx.dtype)
