"""How the kernels for a GPU are launched, by Triton."""

from jax.experimental.pallas import triton

_WARPS = 4
ELEMENTS = 16 * 32 * _WARPS  # that a program treats at once: 16 for each of its threads
PARAMS = triton.CompilerParams(num_warps=_WARPS, num_stages=1)
