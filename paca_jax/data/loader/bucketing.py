"""Training batches of one shape each, where pictures differ in size.

Every shape compiles once, so there are few, and all rows of a batch are padded to one of them. Which one an example needs
follows from what is known of it and what is drawn for it, and (seed, epoch, index) decides what is drawn; so every process can
tell the shapes of a whole epoch without reading a picture. The permutation of an epoch is dealt into batches of one height and
width, and these come in a random order. What is left over of each shape is mixed: fewer batches an epoch than there are shapes,
and the one that completes an epoch with the next one's first examples. A mixed batch has the largest picture shape of its rows;
a picture that lies the other way is made smaller until it fits. Every example comes once an epoch.
"""

import functools
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from paca_jax.data.loader.random_streams import Streams, dealing_stream, permutation


class Shape(NamedTuple):
    """What the pictures and the objects of a batch are padded to.

    Attributes:
      height: of the pictures, in pixels.
      width: of the pictures, in pixels.
      objects: rows for the objects of a picture.
    """

    height: int
    width: int
    objects: int


# (index of an example, its random stream) -> the shape that it needs.
ShapeOf = Callable[[int, np.random.Generator], Shape]

_LOCK = threading.Lock()


@dataclass(frozen=True, eq=False)
class DealtPlaces:
    """The places in the line of training where batches are dealt by shape.

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
        """The (epoch, index) of this process's rows in the batch of a step."""
        return [self._place(step, row)[:2] for row in self.rows]

    def shape(self, step: int) -> Shape:
        """The shape of the batch of a step, which all processes agree on."""
        shapes = [self._place(step, row)[2] for row in range(self.batch_size)]
        height, width, _ = max(shapes, key=lambda shape: (shape.height * shape.width, shape.width))
        return Shape(height, width, max(shape.objects for shape in shapes))

    def alike(self, step: int) -> Iterable[int]:
        """All examples whose objects fit into the batch of a step; their pictures can be made to fit."""
        _, shapes = self._epoch(step * self.batch_size // self.length)
        return np.flatnonzero(shapes[:, 2] <= self.shape(step).objects).tolist()

    def _place(self, step: int, row: int) -> tuple[int, int, Shape]:
        """The epoch and the index of an example, and the shape that it needs."""
        epoch, offset = divmod(step * self.batch_size + row, self.length)
        order, shapes = self._epoch(epoch)
        index = int(order[offset])
        return epoch, index, Shape(*shapes[index].tolist())

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        with _LOCK:  # one thread deals an epoch, the others wait for it
            return _dealt(self, epoch)


@functools.lru_cache(maxsize=4)
def _dealt(places: DealtPlaces, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the order of an epoch, and the (examples, 3) shapes that the examples need in it."""
    streams = Streams(places.seed)
    shapes = np.array([places.shape_of(index, streams.at(epoch, index)) for index in range(places.length)])
    order = permutation(places.seed, epoch, places.length)
    size = places.batch_size
    taken = min(-epoch * places.length % size, places.length)  # complete the batch that the epoch before has begun
    _, group = np.unique(shapes[:, :2], axis=0, return_inverse=True)
    batches, left_over = [np.empty((0, size), np.int64)], [np.empty(0, np.int64)]
    for number in range(group.max() + 1):
        members = order[taken:][group[order[taken:]] == number]
        whole = len(members) // size * size
        batches.append(members[:whole].reshape(-1, size))
        left_over.append(members[whole:])
    rest = np.concatenate(left_over)
    mixed = len(rest) // size * size
    batches.append(rest[:mixed].reshape(-1, size))
    shuffled = dealing_stream(places.seed, epoch).permutation(np.concatenate(batches))
    return np.concatenate([order[:taken], shuffled.ravel(), rest[mixed:]]), shapes
