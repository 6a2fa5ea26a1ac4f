"""Preparation of batches ahead of their consumer, in threads or worker processes, with Grain.

A worker process never starts a JAX backend, leaves Ctrl-C to its parent, and dies with it, however that ends.
"""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from paca_jax.errors import UserError

# Batches in preparation at once without workers; more threads would only wait for Python's global lock.
_THREADS = min(4, os.cpu_count() or 1)
# Smaller arrays go through a pipe, larger ones through shared memory.
_SHARED_BYTES = 1 << 16


class Source(Protocol):
    """Random access to batches by step."""

    def __getitem__(self, step: int) -> dict[str, np.ndarray]: ...


class Batches(Iterator[dict[str, np.ndarray]]):
    """An iterator over batches that are prepared ahead; `close()` stops the preparation."""

    def __init__(self, iterator: Any) -> None:
        self._iterator = iterator
        if iterator is not None:
            with _interrupts_blocked():
                iterator.start_prefetch()

    def __next__(self) -> dict[str, np.ndarray]:
        """Returns the next batch.

        Raises:
            StopIteration: there are no more batches, or `close` was called.
            UserError: raised by the source, or a worker process was killed.
        """
        if self._iterator is None:
            raise StopIteration
        batch = None
        try:
            batch = next(self._iterator)
        except RuntimeError as error:
            if "terminated unexpectedly" not in str(error):
                raise
            raise UserError(
                f"Expected the data workers to keep running, one was killed ({' '.join(str(error).split())}). If memory or "
                "/dev/shm is full, use fewer workers or a smaller batch."
            ) from error
        finally:
            if batch is None:
                self.close()
        return batch

    def close(self) -> None:
        """Stops the threads or worker processes; harmless when called again."""
        iterator, self._iterator = self._iterator, None
        if iterator is not None:
            iterator.close()

    def __del__(self) -> None:
        self.close()


def iterate(source: Source, start: int, stop: int, num_workers: int) -> Batches:
    """Iterates over `source[start]`, ..., `source[stop - 1]`, prepared ahead.

    Args:
        source: the batches; with workers it is pickled.
        start: the first step.
        stop: the step to stop before; there are no batches if it is not above `start`.
        num_workers: worker processes; 0 uses threads.

    Returns:
        The iterator; it has begun to prepare batches.
    """
    if stop <= start:
        return Batches(None)
    import grain

    num_workers = min(num_workers, stop - start)
    steps = grain.MapDataset.range(start, stop).map(source.__getitem__)
    if num_workers == 0:
        return Batches(iter(steps.to_iter_dataset(grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=_THREADS))))
    _let_grain_read_flags()
    batches = steps.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1))
    batches = grain.experimental.WithOptionsIterDataset(batches, grain.experimental.DatasetOptions(min_shm_size=_SHARED_BYTES))
    batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=num_workers), worker_init_fn=_start_worker).map(_own)
    return Batches(iter(grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=1)))


def _own(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Copies a batch out of shared memory, ahead of the consumer, and frees the shared memory.

    Shared memory that is left at exit is reported as a leak, and Grain keeps the last dict.
    """
    arrays = {key: value if type(value) is np.ndarray else np.array(value) for key, value in batch.items()}
    batch.clear()
    return arrays


def _let_grain_read_flags() -> None:
    """Marks absl's flags as parsed: Grain reads them, and nothing has parsed them in a notebook or a test."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """A context whose new threads, and the processes that they start, get no SIGINT: Ctrl-C is the main thread's."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(index: int, count: int) -> None:
    """Sets up a worker process; see the module's docstring."""
    del index, count
    threading.Thread(target=_die_with_parent, args=(os.getppid(),), daemon=True).start()


def _die_with_parent(parent: int) -> None:
    """Ends this process once its parent is gone; runs in a thread."""
    process = multiprocessing.parent_process()
    while process is not None and os.getppid() == parent:
        if multiprocessing.connection.wait([process.sentinel], timeout=1):
            break
    os._exit(1)
