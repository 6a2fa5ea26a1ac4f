"""What is known of a data set without its files, for planning a run where the data are not."""

from dataclasses import dataclass

from paca_jax.data.dataset import Dataset
from paca_jax.data.imagenet import IMAGENET_SYNSETS
from paca_jax.data.sources import open_dataset


@dataclass(frozen=True)
class DatasetFacts:
    """A split without its examples.

    Attributes:
      class_names: the names of the classes, in label order.
      length: the number of examples.
    """

    class_names: tuple[str, ...]
    length: int

    def __len__(self) -> int:
        return self.length


_PUBLISHED = {
    ("imagenet2012", "train"): DatasetFacts(IMAGENET_SYNSETS, 1_281_167),
    ("imagenet2012", "validation"): DatasetFacts(IMAGENET_SYNSETS, 50_000),
}


def describe_dataset(name: str, split: str, data_dir: str | None = None) -> DatasetFacts | Dataset:
    """Returns what is known of a split: from a table for published data sets, else from its files.

    Arguments and errors are those of `open_dataset`.
    """
    return _PUBLISHED.get((name, split)) or open_dataset(name, split, data_dir)
