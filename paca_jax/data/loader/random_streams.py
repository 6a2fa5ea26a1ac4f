"""Random streams of the data: one for the order of each epoch and one for each example in it, all decided by the seed."""

import functools
from typing import Any

import numpy as np

# The second half of Philox's key, which makes the streams of one seed independent.
_ORDER, _AUGMENTATION, _BATCH_ORDER = 1, 2, 3


class Streams:
    """The random streams of the examples: one generator that is moved from stream to stream.

    Moving it takes a tenth of the time of making a new one.
    """

    def __init__(self, seed: int) -> None:
        """Makes the generator, which must not be shared between threads."""
        self._bits = _philox(seed, _AUGMENTATION, 0, 0)
        self._state: Any = self._bits.state
        self._generator = np.random.Generator(self._bits)

    def at(self, epoch: int, index: int) -> np.random.Generator:
        """Returns the generator at the start of an example's stream; it is valid until the next call."""
        self._state["state"]["counter"][:] = (0, 0, epoch, index)
        self._bits.state = self._state
        return self._generator


@functools.lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, length: int) -> np.ndarray:
    """Returns the order of the examples in an epoch."""
    return np.random.Generator(_philox(seed, _ORDER, epoch, 0)).permutation(length)


def batch_order_stream(seed: int, epoch: int) -> np.random.Generator:
    """Returns the stream that shuffles the bucketed batches of an epoch."""
    return np.random.Generator(_philox(seed, _BATCH_ORDER, epoch, 0))


def _philox(seed: int, purpose: int, epoch: int, index: int) -> np.random.Philox:
    key = np.array([seed % 2**64, purpose], np.uint64)
    return np.random.Philox(key=key, counter=np.array([0, 0, epoch, index], np.uint64))
