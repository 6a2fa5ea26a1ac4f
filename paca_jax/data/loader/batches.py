"""Batches as a function of the seed and the step alone.

Training examples form one endless sequence: epoch after epoch, each a permutation of the data set that (seed, epoch) decides.
Batch s has the examples at positions s * batch_size, ... of that sequence, and (seed, epoch, index of the example) decides what
a transform draws at random. So a run resumes at any step without a saved position, and neither the number of processes nor the
number of workers changes what is trained on. If pictures differ in size, `bucketing` puts those of one shape into one batch.
"""

import itertools
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import numpy as np

from paca_jax.data.codecs.images import ImageError
from paca_jax.data.loader.bucketing import BucketSampler, ShapeOf
from paca_jax.data.loader.random_streams import Streams, permutation
from paca_jax.data.loader.survey import report_unseen_classes
from paca_jax.data.loader.workers import Batches, iterate
from paca_jax.data.sources.dataset import Dataset
from paca_jax.data.transforms.padding import Shape
from paca_jax.errors import UserError, check, shorten
from paca_jax.fields import Range, check_value

# The epoch of an example, and its index in the data set. None is a row that pads the last batch.
Sample = tuple[int, int] | None
Transform = Callable[..., dict[str, Any]]

# Bounds beyond any run that is of use, which keep a slip of a digit from exhausting the machine.
_BatchSize = Annotated[int, Range(1, 2**24)]
_Workers = Annotated[int, Range(0, 512)]
_Step = Annotated[int, Range(0, 10**12)]


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
    """Iterates over the batches of steps `start_step` to `num_steps` - 1, and logs first which classes no example shows.

    Args:
        dataset: the raw examples.
        transform: (example, rng) -> dict of arrays, with the same names, shapes and types for every example; `rng` is valid
            only during the call. With workers, the transform is pickled.
        batch_size: examples per step, over all processes.
        seed: decides the order and what `rng` draws.
        start_step: the first step; for a resumed run, the step to continue with.
        num_steps: the step to stop before.
        rows: the rows of every batch that this process reads, ascending; None for all. They need not be contiguous, and several
            processes may read the same ones.
        num_workers: worker processes of this process; 0 uses threads. With workers, a script needs `if __name__ == "__main__"`,
            because they import its main module.
        skip_corrupt: whether a row whose image cannot be decoded becomes zeros with `valid` 0 rather than an error.
        shape_of: the shape that an example needs when it is augmented from a random stream; with workers, it is pickled.
            Batches are then bucketed by shape (see `bucketing`), and the transform is called as (example, rng, shape of the
            batch). None, the default, is for transforms whose results all have one shape.

    Returns:
        An iterator over dicts of numpy arrays whose leading axis is `rows`, in their order: the stacked results of the
        transform and "valid", float32, 1 for a row that counts and 0 for one that does not. Call its `close()` when leaving
        early.

    Raises:
        UserError: at once, if a number or the rows are out of range, another argument is of another type, or masks show nothing
            to learn; while iterating, if an image cannot be decoded, a file of the data set is damaged or the transform rejects
            an example, which is then named.
    """
    check_value("seed", seed, int)
    check_value("start_step", start_step, _Step)
    check_value("num_steps", num_steps, _Step)
    _check_function("shape_of", shape_of, optional=True)
    rows = _checked_arguments(dataset, transform, batch_size, rows, num_workers, skip_corrupt)
    order = len(dataset), batch_size, rows, seed
    sampler = _TrainSampler(*order) if shape_of is None else BucketSampler(*order, shape_of)
    report_unseen_classes(dataset, transform)
    source = _Source(dataset, transform, sampler, seed, skip_corrupt)
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

    Every process gets the same number of batches, of the same shapes. The last batch, or the last batch of each group, is
    padded with rows of zeros whose `valid` is 0. Other arguments, batches and errors are those of `train_batches`; the
    example's index alone decides the `rng` of the transform.

    Args:
        dataset: the raw examples.
        transform: as for `train_batches`; with groups, the shapes need to agree only within each group.
        batch_size: examples per batch, over all processes.
        rows: as for `train_batches`.
        num_workers: as for `train_batches`.
        skip_corrupt: as for `train_batches`.
        groups: the group of each example, None if its image cannot be decoded. A batch has examples of one group; groups come
            in the order of their first examples. None, the default, makes all examples one group.
    """
    rows = _checked_arguments(dataset, transform, batch_size, rows, num_workers, skip_corrupt)
    if groups is None:
        groups = [0] * len(dataset)
    elif not isinstance(groups, Sequence | np.ndarray) or len(groups) != len(dataset):
        got = len(groups) if isinstance(groups, Sequence | np.ndarray) else type(groups).__name__
        raise UserError(f"Expected groups to have one entry for each of the {len(dataset)} examples, got {got}. Correct them.")
    sampler = _EvalSampler.of(groups, batch_size, rows)
    source = _Source(dataset, transform, sampler, 0, skip_corrupt)
    return iterate(source, 0, len(sampler.batches), num_workers)


class _Sampler(Protocol):
    """The choice of the examples of every batch."""

    def __call__(self, step: int) -> list[Sample]:
        """Returns the samples of this process's rows in the batch of a step."""

    def shape(self, step: int) -> Shape | None:
        """Returns the shape for the transform of this step's rows; None if it takes no shape."""

    def alike(self, step: int) -> Iterable[int]:
        """Returns examples that a row of this step's batch can be modeled on, best first."""


@dataclass(frozen=True)
class _TrainSampler:
    """The endless sequence of training examples."""

    length: int
    batch_size: int
    rows: Sequence[int]
    seed: int

    def __call__(self, step: int) -> list[Sample]:
        samples: list[Sample] = []
        for row in self.rows:
            epoch, offset = divmod(step * self.batch_size + row, self.length)
            samples.append((epoch, int(permutation(self.seed, epoch, self.length)[offset])))
        return samples

    def shape(self, step: int) -> None:
        del step

    def alike(self, step: int) -> Iterable[int]:
        del step
        return range(self.length)


@dataclass(frozen=True)
class _EvalSampler:
    """The examples of every batch of an evaluation.

    Attributes:
        batches: (steps, batch_size), the indices of the examples in each batch; -1 pads.
        group_of_batch: (steps,), the number of each batch's group.
        rows: the rows of this process.
    """

    batches: np.ndarray
    group_of_batch: np.ndarray
    rows: Sequence[int]

    @classmethod
    def of(cls, groups: Sequence[Hashable], batch_size: int, rows: Sequence[int]) -> "_EvalSampler":
        """Orders the examples by group; those without a group join the first."""
        first = next((group for group in groups if group is not None), None)
        members: dict[Hashable, list[int]] = {first: []}
        for index, group in enumerate(groups):
            members.setdefault(first if group is None else group, []).append(index)
        batches = [_in_batches(indices, batch_size) for indices in members.values()]
        group_of_batch = np.repeat(np.arange(len(batches)), [len(of_group) for of_group in batches])
        return cls(np.concatenate(batches), group_of_batch, rows)

    def __call__(self, step: int) -> list[Sample]:
        indices = self.batches[step, list(self.rows)].tolist()
        return [(0, index) if index >= 0 else None for index in indices]

    def shape(self, step: int) -> None:
        del step

    def alike(self, step: int) -> Iterable[int]:
        same = self.group_of_batch == self.group_of_batch[step]
        indices = np.concatenate([self.batches[same].ravel(), self.batches[~same].ravel()])
        return indices[indices >= 0].tolist()


@dataclass(frozen=True)
class _Source:
    """Random access to batches: `source[step]` is this process's part of the batch of a step."""

    dataset: Dataset
    transform: Transform
    sampler: _Sampler
    seed: int
    skip_corrupt: bool

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        streams, shape = Streams(self.seed), self.sampler.shape(step)
        rows = [None if sample is None else self._row(*sample, streams, shape) for sample in self.sampler(step)]
        valid = [row is not None for row in rows]
        if not all(valid):
            blank = self._blank(step, rows)
            rows = [blank if row is None else row for row in rows]
        batch = {key: np.stack([row[key] for row in rows if row is not None]) for key in rows[0] or {}}
        if "valid" in batch:
            raise ValueError("a transform must not return 'valid', the name of the mask of rows that count; rename it")
        batch["valid"] = np.asarray(valid, np.float32)
        return batch

    def _row(self, epoch: int, index: int, streams: Streams, shape: Shape | None) -> dict[str, Any] | None:
        """Returns the transformed example; None if it cannot be decoded and is to be skipped."""
        example = self.dataset[index]
        where = self.dataset.where(index)
        of = f"of data set {self.dataset.name!r}, split {self.dataset.split!r}"
        try:
            return self.transform(example, streams.at(epoch, index), *(() if shape is None else (shape,)))
        except ImageError as error:
            if self.skip_corrupt:
                return None
            raise UserError(
                f"Expected every image {of}, to be readable, got a corrupt one at {where}. Replace it, or skip and count such "
                "images with dataset.skip_corrupt=True."
            ) from error
        except UserError as error:
            raise UserError(f"{where} {of}: {error}") from error

    def _blank(self, step: int, rows: list[dict[str, Any] | None]) -> dict[str, Any]:
        """Returns a row of zeros, shaped like a row of this batch or else like the first readable example of `alike`."""
        like = next((row for row in rows if row is not None), None)
        streams = Streams(self.seed)
        for index in () if like is not None else self.sampler.alike(step):
            like = self._row(0, index, streams, self.sampler.shape(step))
            if like is not None:
                break
        if like is None:
            raise UserError(
                f"Expected readable images in data set {self.dataset.name!r}, split {self.dataset.split!r}, got only corrupt "
                "ones. Prepare the data set again."
            )
        return {key: np.zeros_like(value) for key, value in like.items()}


def _in_batches(indices: Sequence[int], batch_size: int) -> np.ndarray:
    """Returns indices as rows of `batch_size`, the last one padded with -1."""
    padded = np.full(-(-len(indices) // batch_size) * batch_size, -1, np.int64)
    padded[: len(indices)] = indices
    return padded.reshape(-1, batch_size)


def _check_function(name: str, value: Any, optional: bool = False) -> None:
    fits = callable(value) or (optional and value is None)
    check(fits, f"Expected {name} to be a function, got {type(value).__name__}. Pass one.")


def _checked_arguments(
    dataset: Dataset,
    transform: Transform,
    batch_size: int,
    rows: Sequence[int] | None,
    num_workers: int,
    skip_corrupt: bool,
) -> Sequence[int]:
    """Checks the arguments, and returns the rows of this process."""
    check_value("dataset", dataset, Dataset)
    check_value("batch_size", batch_size, _BatchSize)
    check_value("num_workers", num_workers, _Workers)
    check_value("skip_corrupt", skip_corrupt, bool)
    _check_function("transform", transform)
    if rows is None:
        rows = range(batch_size)
    elif not isinstance(rows, range):
        check_value("rows", rows := tuple(rows) if isinstance(rows, Sequence | np.ndarray) else rows, tuple[int, ...])
        rows = tuple(map(int, rows))
    in_range = rows and 0 <= rows[0] <= rows[-1] < batch_size
    if not in_range or any(low >= high for low, high in itertools.pairwise(rows)):
        got = shorten(str(rows))
        raise UserError(f"Expected rows to be numbers from 0 to {batch_size - 1} in ascending order, got {got}. Correct them.")
    if len(dataset) == 0:
        raise UserError(
            f"Expected examples in data set {dataset.name!r}, split {dataset.split!r}, got none. Correct the split."
        )
    return rows
