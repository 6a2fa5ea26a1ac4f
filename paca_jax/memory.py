"""Memory of a CPU that steps use again."""

import ctypes
import platform

import jax

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Lets a step on a CPU find the memory that the step before it has freed; call it before JAX computes anything.

    XLA asks for a step's temporaries anew each time, as one piece. The C library takes so large a piece from the system, page
    by page, and gives it back afterwards, which took up to a third of a training step's time (benchmarks/RESULTS.md). From here
    on what is freed stays with the process. One thread must ask for the pieces, so steps run in the thread that calls them.
    Other devices than CPUs, and other C libraries than glibc, are left as they are.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    if jax.default_backend() == "cpu":
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, -1)
