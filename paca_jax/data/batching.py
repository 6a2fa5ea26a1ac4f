"""Batches as a function of the seed and the step alone.

The examples of training stand in one endless line: epoch after epoch, each a permutation of the data set that (seed, epoch)
decides. Batch s is the examples at positions s * batch_size, ... of that line, and what a transform draws at random is decided
by (seed, epoch, index of the example). So a run resumes at any step without a saved position, and neither the number of
processes nor that of workers changes what is trained on.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paca_jax.data.dataset import Dataset
from paca_jax.data.images import ImageError
from paca_jax.data.workers import Batches, iterate
from paca_jax.errors import UserError

# An example of the line: its epoch, and its index in the data set. None is a row that pads the last batch.
Place = tuple[int, int] | None
Transform = Callable[[dict[str, Any], np.random.Generator], dict[str, Any]]

# The second half of the key of Philox, so that the streams of one seed are independent.
_ORDER, _AUGMENTATION = 1, 2


def train_batches(
    dataset: Dataset,
    transform: Transform,
    *,
    batch_size: int,
    seed: int,
    start_step: int,
    num_steps: int,
    rows: Sequence[int] | None = None,
    num_workers: int = 0,
    skip_corrupt: bool = False,
) -> Batches:
    """Iterates over the batches of steps `start_step` to `num_steps` - 1.

    Args:
      dataset: the raw examples.
      transform: (example, rng) -> dict of arrays, of the same names, shapes and types for every example; `rng` may be used
        during the call only. With workers it is pickled.
      batch_size: examples in a step, over all processes.
      seed: decides the order and what `rng` draws.
      start_step: the first step; a resumed run gives the step that it goes on with.
      num_steps: the step to stop before.
      rows: the rows of every batch that this process reads, ascending; None for all. They need not be contiguous, and several
        processes may read the same ones.
      num_workers: worker processes of this process; 0 uses threads. With workers a script needs `if __name__ == "__main__"`, as
        they import its main module.
      skip_corrupt: whether a row whose image cannot be decoded becomes zeros of mask 0 rather than an error.

    Returns:
      An iterator over dicts of numpy arrays, each with a leading axis of `rows` in their order: what the transform returned,
      and "mask", float32, 1 for a row that counts and 0 for one that does not. Call its `close()` when leaving early.

    Raises:
      UserError: at once, where a number or the rows are out of their range; while iterating, where an image cannot be decoded
        or a file of the data set is damaged.
    """
    rows = _checked_rows(dataset, batch_size, rows, num_workers)
    if start_step < 0:
        raise UserError(f"Expected start_step to be 0 or more, got {start_step}; correct it.")
    places = _TrainPlaces(len(dataset), batch_size, rows, seed)
    source = _Source(dataset, transform, places, seed, skip_corrupt)
    return iterate(source, start_step, num_steps, num_workers)


def eval_batches(
    dataset: Dataset,
    transform: Transform,
    *,
    batch_size: int,
    rows: Sequence[int] | None = None,
    num_workers: int = 0,
    skip_corrupt: bool = False,
) -> Batches:
    """Iterates over every example once, in the data set's order; the last batch is padded with zeros of mask 0.

    Every process gets the same number of batches. Arguments, batches and errors are those of `train_batches`; the `rng` of the
    transform is decided by the example's index alone.
    """
    rows = _checked_rows(dataset, batch_size, rows, num_workers)
    places = _EvalPlaces(len(dataset), batch_size, rows)
    source = _Source(dataset, transform, places, 0, skip_corrupt)
    return iterate(source, 0, -(-len(dataset) // batch_size), num_workers)


@dataclass(frozen=True)
class _TrainPlaces:
    """The places of this process's rows in the batch of a step."""

    length: int
    batch_size: int
    rows: Sequence[int]
    seed: int

    def __call__(self, step: int) -> list[Place]:
        places: list[Place] = []
        for row in self.rows:
            epoch, offset = divmod(step * self.batch_size + row, self.length)
            places.append((epoch, int(_permutation(self.seed, epoch, self.length)[offset])))
        return places


@dataclass(frozen=True)
class _EvalPlaces:
    """The places of this process's rows in a batch of the evaluation."""

    length: int
    batch_size: int
    rows: Sequence[int]

    def __call__(self, step: int) -> list[Place]:
        indices = (step * self.batch_size + row for row in self.rows)
        return [(0, index) if index < self.length else None for index in indices]


@dataclass(frozen=True)
class _Source:
    """Random access to batches: `source[step]` is this process's part of the batch of a step."""

    dataset: Dataset
    transform: Transform
    places: Callable[[int], list[Place]]
    seed: int
    skip_corrupt: bool

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        streams = _Streams(self.seed)
        rows = [None if place is None else self._row(*place, streams) for place in self.places(step)]
        valid = [row is not None for row in rows]
        if not all(valid):
            blank = self._blank(rows)
            rows = [blank if row is None else row for row in rows]
        batch = {key: np.stack([row[key] for row in rows if row is not None]) for key in rows[0] or {}}
        if "mask" in batch:
            raise ValueError("a transform must not return 'mask', which is the name of the rows' validity; rename it")
        batch["mask"] = np.asarray(valid, np.float32)
        return batch

    def _row(self, epoch: int, index: int, streams: "_Streams") -> dict[str, Any] | None:
        example = self.dataset[index]
        try:
            return self.transform(example, streams.at(epoch, index))
        except ImageError as error:
            if self.skip_corrupt:
                return None
            raise UserError(
                f"Expected every image of data set {self.dataset.name!r}, split {self.dataset.split!r}, to be readable, got a "
                f"corrupt one at {self.dataset.where(index)}; replace it, or skip and count such images with "
                "dataset.skip_corrupt=True."
            ) from error

    def _blank(self, rows: list[dict[str, Any] | None]) -> dict[str, Any]:
        """A row of zeros, shaped like a row of this batch or else like the first readable example's."""
        like = next((row for row in rows if row is not None), None)
        streams = _Streams(self.seed)
        for index in range(len(self.dataset) if like is None else 0):
            try:
                like = self.transform(self.dataset[index], streams.at(0, index))
                break
            except ImageError:
                continue
        if like is None:
            raise UserError(
                f"Expected readable images in data set {self.dataset.name!r}, split {self.dataset.split!r}, got only corrupt "
                "ones; prepare the data set anew."
            )
        return {key: np.zeros_like(value) for key, value in like.items()}


class _Streams:
    """The random stream of each example: one generator, set to a place rather than made anew (a tenth of the time)."""

    def __init__(self, seed: int) -> None:
        self._bits = _philox(seed, _AUGMENTATION, 0, 0)
        self._state: Any = self._bits.state
        self._generator = np.random.Generator(self._bits)

    def at(self, epoch: int, index: int) -> np.random.Generator:
        self._state["state"]["counter"][:] = (0, 0, epoch, index)
        self._bits.state = self._state
        return self._generator


def _philox(seed: int, purpose: int, epoch: int, index: int) -> np.random.Philox:
    key = np.array([seed % 2**64, purpose], np.uint64)
    return np.random.Philox(key=key, counter=np.array([0, 0, epoch, index], np.uint64))


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, length: int) -> np.ndarray:
    """The order of the examples in an epoch."""
    return np.random.Generator(_philox(seed, _ORDER, epoch, 0)).permutation(length)


def _checked_rows(dataset: Dataset, batch_size: int, rows: Sequence[int] | None, num_workers: int) -> Sequence[int]:
    """Returns the rows of this process, having checked the numbers."""
    if batch_size < 1:
        raise UserError(f"Expected batch_size to be 1 or more, got {batch_size}; correct it.")
    rows = range(batch_size) if rows is None else tuple(int(row) for row in rows)
    ascending = all(low < high for low, high in itertools.pairwise(rows))
    if not rows or not ascending or rows[0] < 0 or rows[-1] >= batch_size:
        raise UserError(
            f"Expected rows to be numbers from 0 to {batch_size - 1} in ascending order, got {list(rows)}; correct them."
        )
    if num_workers < 0:
        raise UserError(f"Expected num_workers to be 0 or more, got {num_workers}; correct it.")
    if len(dataset) == 0:
        raise UserError(
            f"Expected examples in data set {dataset.name!r}, split {dataset.split!r}, got none; correct the split."
        )
    return rows
