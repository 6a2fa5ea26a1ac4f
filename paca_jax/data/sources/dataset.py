"""What every data set is to the rest of the library: random access to raw examples."""

import abc
from collections.abc import Iterable
from typing import Any


class Dataset(abc.ABC):
    """One split of a data set; `dataset[i]` is example i, a dict of its features.

    The image named `image` and masks come as the bytes of their encoded files, and `label` as an int. Data sets can be pickled,
    and a copy opens its files anew at its first use, so that a worker process inherits no open file.

    Attributes:
      name: the data set's name as it was asked for.
      split: the split as it was asked for.
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

    def where(self, index: int) -> str:
        """Returns what to call an example in a message."""
        return f"index {index}"


def quoted(names: Iterable[str]) -> str:
    """Returns names as a message lists them."""
    return ", ".join(repr(name) for name in names) or "none"
