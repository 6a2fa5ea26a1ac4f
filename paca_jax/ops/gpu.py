"""What operations need of a GPU."""

import jax

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
