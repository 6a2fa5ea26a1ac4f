"""The interface of every data set: random access to raw examples."""

import abc
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from paca_jax.data.codecs.images import ImageError, ImageKindError, image_size
from paca_jax.fields import check_value

# Files that are read at once if only their headers are wanted: remote files are slow one by one.
READERS = 16
# A message names at most this many classes.
_NAMED_CLASSES = 10


class Dataset(abc.ABC):
    """One split of a data set; `dataset[i]` is example i, a dict of its features.

    Images and masks come as the bytes of their encoded files, and `label` as an int. Data sets can be pickled. A copy opens its
    files at its first use, so that a worker process inherits no open file.

    Attributes:
        name: the data set's name, as given.
        split: the split, as given.
    """

    name: str
    split: str

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns example `index`.

        Raises:
            IndexError: the split has no such example.
            UserError: the file that holds it is missing or damaged.
        """

    @property
    @abc.abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes in label order."""

    @property
    def num_classes(self) -> int:
        """The number of classes; errors as for `class_names`."""
        return len(self.class_names)

    def unseen_classes(self) -> tuple[str, ...]:
        """Returns the names of the classes that no example shows, as far as that is known without decoding: none by default.

        Training logs them as it starts.
        """
        return ()

    def where(self, index: int) -> str:
        """Returns a description of an example for messages."""
        return f"index {index}"


def quoted(names: Iterable[str]) -> str:
    """Returns names quoted and separated by commas, for messages."""
    return ", ".join(repr(name) for name in names) or "none"


def counted_names(names: Sequence[str], total: int) -> str:
    """Returns "2 of 80 classes, 'a', 'b'" for messages; a long list of names is cut short."""
    listed = quoted(names[:_NAMED_CLASSES]) + (" and others" if len(names) > _NAMED_CLASSES else "")
    return f"{len(names)} of {total} classes, {listed}"


def image_sizes(dataset: Dataset) -> list[tuple[int, int] | None]:
    """Returns the (height, width) in pixels of every example's image once it is upright; see `image_size`.

    Args:
        dataset: raw examples with the bytes of an image file as `image`.

    Returns:
        One entry per example, in order; None if the file does not begin like an image.

    Raises:
        ImageKindError: (a UserError) an image is too large.
        UserError: `dataset` is no data set.
    """
    check_value("dataset", dataset, Dataset)

    def size(index: int) -> tuple[int, int] | None:
        try:
            return image_size(dataset[index]["image"])
        except ImageError:
            return None
        except ImageKindError as error:
            raise ImageKindError(f"{dataset.where(index)}: {error}") from error

    with ThreadPoolExecutor(READERS) as readers:
        return list(readers.map(size, range(len(dataset))))
