"""Bucketing: training batches of one shape each, for pictures that differ in size.

Every shape compiles once, so there are few, and all rows of a batch are padded to one of them. The shape that an example needs
follows from its annotations and from what is drawn for it, and (seed, epoch, index) decides what is drawn. So every process can
compute the shapes of a whole epoch without reading a picture. The permutation of an epoch is sorted into buckets by height and
width, each bucket is cut into batches, and the batches are shuffled. The examples left over in all buckets form mixed batches:
fewer per epoch than there are picture shapes, and one more that is completed by the first examples of the next epoch. A mixed
batch has the largest picture shape of its rows; a picture of the other orientation is shrunk to fit. Every example occurs once
per epoch.
"""

import functools
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from paca_jax.data.loader.random_streams import Streams, batch_order_stream, permutation
from paca_jax.data.transforms.padding import Shape

# (index of an example, its random stream) -> the shape that it needs.
ShapeOf = Callable[[int, np.random.Generator], Shape]

_LOCK = threading.Lock()


@dataclass(frozen=True, eq=False)
class BucketSampler:
    """The examples of every training batch when batches are bucketed by shape.

    Attributes:
        length: examples in the data set.
        batch_size: examples in a batch.
        rows: the rows of this process.
        seed: decides the order, and what is drawn.
        shape_of: the shape that an example needs.
    """

    length: int
    batch_size: int
    rows: Sequence[int]
    seed: int
    shape_of: ShapeOf

    def __call__(self, step: int) -> list[tuple[int, int] | None]:
        """Returns the (epoch, index) of each of this process's rows in the batch of a step."""
        return [self._sample(step, row)[:2] for row in self.rows]

    def shape(self, step: int) -> Shape:
        """Returns the shape of the batch of a step, on which all processes agree."""
        shapes = [self._sample(step, row)[2] for row in range(self.batch_size)]
        height, width, _ = max(shapes, key=lambda shape: (shape.height * shape.width, shape.width))
        return Shape(height, width, max(shape.objects for shape in shapes))

    def alike(self, step: int) -> Iterable[int]:
        """Returns all examples whose objects fit into the batch of a step; their pictures can be shrunk to fit."""
        _, shapes = self._epoch(step * self.batch_size // self.length)
        return np.flatnonzero(shapes[:, 2] <= self.shape(step).objects).tolist()

    def _sample(self, step: int, row: int) -> tuple[int, int, Shape]:
        """Returns the epoch and the index of an example, and the shape that it needs."""
        epoch, offset = divmod(step * self.batch_size + row, self.length)
        order, shapes = self._epoch(epoch)
        index = int(order[offset])
        return epoch, index, Shape(*shapes[index].tolist())

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        with _LOCK:  # one thread computes an epoch, the others wait for it
            return _bucketed(self, epoch)


@functools.lru_cache(maxsize=4)
def _bucketed(sampler: BucketSampler, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the order of an epoch, and the (examples, 3) shapes that the examples need in it."""
    streams = Streams(sampler.seed)
    shapes = np.array([sampler.shape_of(index, streams.at(epoch, index)) for index in range(sampler.length)])
    order = permutation(sampler.seed, epoch, sampler.length)
    size = sampler.batch_size
    taken = min(-epoch * sampler.length % size, sampler.length)  # they complete the last batch of the previous epoch
    _, bucket_of = np.unique(shapes[:, :2], axis=0, return_inverse=True)
    batches, left_over = [np.empty((0, size), np.int64)], [np.empty(0, np.int64)]
    for bucket in range(bucket_of.max() + 1):
        members = order[taken:][bucket_of[order[taken:]] == bucket]
        whole = len(members) // size * size
        batches.append(members[:whole].reshape(-1, size))
        left_over.append(members[whole:])
    rest = np.concatenate(left_over)
    mixed = len(rest) // size * size
    batches.append(rest[:mixed].reshape(-1, size))
    shuffled = batch_order_stream(sampler.seed, epoch).permutation(np.concatenate(batches))
    return np.concatenate([order[:taken], shuffled.ravel(), rest[mixed:]]), shapes
