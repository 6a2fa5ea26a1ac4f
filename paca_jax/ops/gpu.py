"""What operations need of a GPU."""

import jax
import jax.numpy as jnp
from jaxtyping import Shaped

_SMALLEST_CHANNELS = 8  # which one instruction loads, in bfloat16
_OLDEST = (8, 0)  # compute capability, of Ampere


def refusal() -> str | None:
    """Returns why the GPU of this machine runs neither Triton's kernels nor cuDNN's attention, as a clause, or None if it does.

    A GPU that a program is compiled for, but that is not there, is taken for a current one.
    """
    if jax.default_backend() != "gpu":
        return None
    capability = str(getattr(jax.devices()[0], "compute_capability", ""))
    if not capability.replace(".", "", 1).isdecimal():
        return f"the GPU ({jax.devices()[0].device_kind}) is not one of NVIDIA"
    if tuple(map(int, capability.split("."))) < _OLDEST:
        return f"the GPU has compute capability {capability}, and 8.0 is needed"
    return None


def kernel_refusal(x: Shaped[jax.Array, "*R C"], most_channels: int | None = None) -> str | None:
    """Returns why Triton's kernels do not take an array, or do not run on this GPU, as a clause, or None if they do."""
    if x.dtype not in (jnp.bfloat16, jnp.float16, jnp.float32):
        return f"the type is {x.dtype}"
    if x.size >= 2**31:
        return f"{x.size:,} values are more than 32 bits count"
    channels, most = x.shape[-1], "" if most_channels is None else f" up to {most_channels}"
    if channels % _SMALLEST_CHANNELS or (most_channels is not None and channels > most_channels):
        return f"{channels} channels are no multiple of {_SMALLEST_CHANNELS}{most}"
    return refusal()
