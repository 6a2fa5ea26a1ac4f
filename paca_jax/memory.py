"""Reuse of memory by steps on a CPU."""

import ctypes
import platform

import jax

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Makes steps on a CPU reuse the memory that earlier steps have freed. Call it before JAX computes anything.

    XLA allocates the temporaries of each step as one block. The C library takes such a large block from the system, page by
    page, and returns it afterwards, which took up to a third of the time of a training step (benchmarks/RESULTS.md). After this
    call freed memory stays with the process. All blocks must be allocated by one thread, so steps run in the thread that calls
    them. Nothing changes for devices other than CPUs and C libraries other than glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    if jax.default_backend() == "cpu":
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, -1)
