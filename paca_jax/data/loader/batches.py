"""Batches as a function of the seed and the step alone.

The examples of training stand in one endless line: epoch after epoch, each a permutation of the data set that (seed, epoch)
decides. Batch s is the examples at positions s * batch_size, ... of that line, and what a transform draws at random is decided
by (seed, epoch, index of the example). So a run resumes at any step without a saved position, and neither the number of
processes nor that of workers changes what is trained on. Where pictures differ in size, `dealing` brings those of one shape
together.
"""

import itertools
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from paca_jax.data.codecs.images import ImageError
from paca_jax.data.loader.bucketing import DealtPlaces, Shape, ShapeOf
from paca_jax.data.loader.random_streams import Streams, permutation
from paca_jax.data.loader.workers import Batches, iterate
from paca_jax.data.sources.dataset import Dataset
from paca_jax.errors import UserError

# An example of the line: its epoch, and its index in the data set. None is a row that pads the last batch.
Place = tuple[int, int] | None
Transform = Callable[..., dict[str, Any]]


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
    shape_of: ShapeOf | None = None,
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
      skip_corrupt: whether a row whose image cannot be decoded becomes zeros with `valid` 0 rather than an error.
      shape_of: the shape that an example needs when it is augmented from a stream; with workers it is pickled. Batches are then
        bucketed by shape (see `bucketing`), and the transform is called as (example, rng, shape of the batch).
        None, the default, is for transforms whose results all have one shape.

    Returns:
      An iterator over dicts of numpy arrays, each with a leading axis of `rows` in their order: what the transform returned,
      and "valid", float32, 1 for a row that counts and 0 for one that does not. Call its `close()` when leaving early.

    Raises:
      UserError: at once, where a number or the rows are out of their range; while iterating, where an image cannot be decoded,
        a file of the data set is damaged or the transform refuses an example, which is then named.
    """
    rows = _checked_rows(dataset, batch_size, rows, num_workers)
    if start_step < 0:
        raise UserError(f"Expected start_step to be 0 or more, got {start_step}; correct it.")
    line = len(dataset), batch_size, rows, seed
    places = _TrainPlaces(*line) if shape_of is None else DealtPlaces(*line, shape_of)
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
    groups: Sequence[Hashable] | None = None,
) -> Batches:
    """Iterates over every example once, in the data set's order or group by group.

    Every process gets the same number of batches, of the same shapes. The last batch, or with groups the last one of each, is
    padded with zeros, `valid` 0. Other arguments, batches and errors are those of `train_batches`; the `rng` of the transform
    is decided by the example's index alone.

    Args:
      dataset: the raw examples.
      transform: as for `train_batches`; with groups the shapes need to agree within each group only.
      batch_size: examples in a batch, over all processes.
      rows: as for `train_batches`.
      num_workers: as for `train_batches`.
      skip_corrupt: as for `train_batches`.
      groups: the group of each example, None for one whose image cannot be decoded. A batch has examples of one group; groups
        come in the order of their first examples. None, the default, makes all examples one group.
    """
    rows = _checked_rows(dataset, batch_size, rows, num_workers)
    if groups is None:
        groups = [0] * len(dataset)
    elif len(groups) != len(dataset):
        raise ValueError(f"groups must have one entry for each of the {len(dataset)} examples, not {len(groups)}")
    places = _EvalPlaces.of(groups, batch_size, rows)
    source = _Source(dataset, transform, places, 0, skip_corrupt)
    return iterate(source, 0, len(places.lines), num_workers)


class _Places(Protocol):
    """Which examples the rows of this process are."""

    def __call__(self, step: int) -> list[Place]:
        """The places of this process's rows in the batch of a step."""

    def shape(self, step: int) -> Shape | None:
        """The shape that the transform shall give this step's rows, None where it is not told."""

    def alike(self, step: int) -> Iterable[int]:
        """All examples of the data set, those first that have the shapes of this step's rows."""


@dataclass(frozen=True)
class _TrainPlaces:
    """The places in the endless line of training."""

    length: int
    batch_size: int
    rows: Sequence[int]
    seed: int

    def __call__(self, step: int) -> list[Place]:
        places: list[Place] = []
        for row in self.rows:
            epoch, offset = divmod(step * self.batch_size + row, self.length)
            places.append((epoch, int(permutation(self.seed, epoch, self.length)[offset])))
        return places

    def shape(self, step: int) -> None:
        del step

    def alike(self, step: int) -> Iterable[int]:
        del step
        return range(self.length)


@dataclass(frozen=True)
class _EvalPlaces:
    """The places in an evaluation.

    Attributes:
      lines: (steps, batch_size), the indices of the examples in each batch; -1 pads.
      group_of_line: (steps,), the number of each batch's group.
      rows: the rows of this process.
    """

    lines: np.ndarray
    group_of_line: np.ndarray
    rows: Sequence[int]

    @classmethod
    def of(cls, groups: Sequence[Hashable], batch_size: int, rows: Sequence[int]) -> "_EvalPlaces":
        """Orders the examples by group; those without one join the first."""
        first = next((group for group in groups if group is not None), None)
        members: dict[Hashable, list[int]] = {first: []}
        for index, group in enumerate(groups):
            members.setdefault(first if group is None else group, []).append(index)
        lines = [_in_batches(indices, batch_size) for indices in members.values()]
        group_of_line = np.repeat(np.arange(len(lines)), [len(of_group) for of_group in lines])
        return cls(np.concatenate(lines), group_of_line, rows)

    def __call__(self, step: int) -> list[Place]:
        indices = self.lines[step, list(self.rows)].tolist()
        return [(0, index) if index >= 0 else None for index in indices]

    def shape(self, step: int) -> None:
        del step

    def alike(self, step: int) -> Iterable[int]:
        same = self.group_of_line == self.group_of_line[step]
        indices = np.concatenate([self.lines[same].ravel(), self.lines[~same].ravel()])
        return indices[indices >= 0].tolist()


@dataclass(frozen=True)
class _Source:
    """Random access to batches: `source[step]` is this process's part of the batch of a step."""

    dataset: Dataset
    transform: Transform
    places: _Places
    seed: int
    skip_corrupt: bool

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        streams, shape = Streams(self.seed), self.places.shape(step)
        rows = [None if place is None else self._row(*place, streams, shape) for place in self.places(step)]
        valid = [row is not None for row in rows]
        if not all(valid):
            blank = self._blank(step, rows)
            rows = [blank if row is None else row for row in rows]
        batch = {key: np.stack([row[key] for row in rows if row is not None]) for key in rows[0] or {}}
        if "valid" in batch:
            raise ValueError("a transform must not return 'valid', the name of the rows that count; rename it")
        batch["valid"] = np.asarray(valid, np.float32)
        return batch

    def _row(self, epoch: int, index: int, streams: Streams, shape: Shape | None) -> dict[str, Any] | None:
        """The transformed example; None where it cannot be decoded and is to be skipped."""
        example = self.dataset[index]
        where = self.dataset.where(index)
        of = f"of data set {self.dataset.name!r}, split {self.dataset.split!r}"
        try:
            return self.transform(example, streams.at(epoch, index), *(() if shape is None else (shape,)))
        except ImageError as error:
            if self.skip_corrupt:
                return None
            raise UserError(
                f"Expected every image {of}, to be readable, got a corrupt one at {where}; replace it, or skip and count such "
                "images with dataset.skip_corrupt=True."
            ) from error
        except UserError as error:
            raise UserError(f"{where} {of}: {error}") from error

    def _blank(self, step: int, rows: list[dict[str, Any] | None]) -> dict[str, Any]:
        """A row of zeros, shaped like a row of this batch or else like the first readable example that is alike."""
        like = next((row for row in rows if row is not None), None)
        streams = Streams(self.seed)
        for index in () if like is not None else self.places.alike(step):
            like = self._row(0, index, streams, self.places.shape(step))
            if like is not None:
                break
        if like is None:
            raise UserError(
                f"Expected readable images in data set {self.dataset.name!r}, split {self.dataset.split!r}, got only corrupt "
                "ones; prepare the data set anew."
            )
        return {key: np.zeros_like(value) for key, value in like.items()}


def _in_batches(indices: Sequence[int], batch_size: int) -> np.ndarray:
    """Indices as rows of `batch_size`, the last one padded with -1."""
    padded = np.full(-(-len(indices) // batch_size) * batch_size, -1, np.int64)
    padded[: len(indices)] = indices
    return padded.reshape(-1, batch_size)


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
