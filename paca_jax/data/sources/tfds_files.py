"""The files of a prepared TFDS data set, checked before TFDS or array_record opens them."""

import itertools
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from etils import epath

from paca_jax.data.sources.dataset import READERS, quoted
from paca_jax.data.sources.files import read_lines
from paca_jax.errors import UserError, shorten, summary
from paca_jax.files import check_regular, read_json
from paca_jax.paths import is_remote

logger = logging.getLogger(__name__)

INFO = "dataset_info.json"
_FEATURES = "features.json"
_CLASS, _OF_TFDS = "pythonClassName", "tensorflow_datasets."
_MAX_CLASSES = 1_000_000


def find_builder(name: str, data_dir: str | None) -> Any:
    """Returns TFDS's builder of a prepared data set, made from its files; None if there are none.

    Args:
        name: as for `open_dataset`.
        data_dir: as for `open_dataset`.

    Raises:
        UserError: `name` does not look like the name of a data set, or its metadata are damaged.
    """
    from tensorflow_datasets.core import naming, read_only_builder
    from tensorflow_datasets.core.utils import error_utils

    try:
        naming.parse_builder_name_kwargs(name)
    except ValueError as error:
        raise UserError(
            f"Expected a data set's name such as 'imagenet2012' or 'coco/2017', got {name!r}. Correct dataset.name."
        ) from error
    try:
        with error_utils.record_error_context():  # where the function below notes what it looked for
            folder = read_only_builder._find_builder_dir(name, **({} if data_dir is None else {"data_dir": data_dir}))
    except (OSError, ValueError) as error:  # several folders have the data set, or the name of its default config is damaged
        raise UserError(f"Expected one data set {name!r}, got: {summary(error)} Correct that or dataset.data_dir.") from error
    return None if folder is None else open_builder(folder)


def open_builder(folder: epath.PathLike) -> Any:
    """Returns TFDS's builder of a version folder, made from its files.

    Raises:
        UserError: its metadata are missing or damaged or name classes that are not of TFDS, or something in it is neither a
            file nor a folder.
    """
    import tensorflow_datasets as tfds

    folder = epath.Path(folder)
    if not is_remote(folder):
        for entry in os.scandir(folder):
            if not (entry.is_file() or entry.is_dir()) and os.path.exists(entry.path):
                check_regular(entry.path)
    read_json(folder / INFO)
    _check_classes(folder / _FEATURES, read_json(folder / _FEATURES))
    try:
        return tfds.builder_from_directory(folder)
    except malformed_errors() as error:
        raise UserError(
            f"Expected the metadata of a TFDS data set in {folder / INFO} and {folder / _FEATURES}, got others "
            f"({summary(error)}). Prepare the data set again."
        ) from error


def _check_classes(path: epath.Path, value: Any) -> None:
    """Checks that all classes of features that JSON names are of TFDS, which imports the module of whatever it finds there."""
    if isinstance(value, dict):
        name = value.get(_CLASS)
        if name is not None and not str(name).startswith(_OF_TFDS):
            raise UserError(
                f"Expected the features in {path} to be classes of TFDS ({_OF_TFDS}...), got {shorten(repr(name))}. Prepare "
                "the data set with features of TFDS."
            )
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_classes(path, part)


def check_format(name: str, builder: Any) -> None:
    """Raises an error if a prepared data set is not ArrayRecord.

    Args:
        name: the data set's name, for the message.
        builder: the builder that `find_builder` returned.

    Raises:
        UserError: it is prepared in another format; the message says how to convert it.
    """
    formats = sorted(available.value for available in builder.info.available_file_formats())
    if "array_record" not in formats:
        raise UserError(
            f"Expected data set {name!r} to be prepared as array_record, {builder.data_dir} holds {quoted(formats)}. "
            f"Convert it with: python -m paca_jax.data.convert_records {builder.data_dir}"
        )


def class_names(builder: Any, key: str, feature: Any) -> tuple[str, ...]:
    """Returns the names of a feature's classes; the numbers from 0 if they have none.

    Args:
        builder: the builder of the data set.
        key: the feature as its file of names spells it, such as "label" or "objects-label".
        feature: a `ClassLabel` or `LabeledImage` whose number of classes is known.

    Raises:
        UserError: there are no classes, or not as many different names as classes.
    """
    count, path = feature.num_classes, epath.Path(builder.data_dir) / f"{key}.labels.txt"
    if not 0 < count <= _MAX_CLASSES:
        raise UserError(
            f"Expected 1 to {_MAX_CLASSES} classes as the {key!r} of the TFDS data set in {builder.data_dir}, got {count}. "
            "Prepare it again."
        )
    if not path.exists():
        return tuple(feature.names)
    names = tuple(line for line in read_lines(os.fspath(path)) if line)
    if len(set(names)) != count or len(names) != count:
        raise UserError(
            f"Expected the different names of {count} classes in {path}, one on each line, got {len(set(names))} different "
            f"ones on {len(names)} lines. Prepare the data set again."
        )
    return names


def log_interrupted(folder: epath.PathLike) -> None:
    """Logs the parts of versions that interrupted preparations have left in the folder of a data set, which nothing reads."""
    left = sorted(path.name for path in epath.Path(folder).glob("incomplete.*"))
    if left:
        logger.warning("Ignored what interrupted jobs left in %s: %s. Delete it unless one is running.", folder, quoted(left))


class Shards:
    """The files of a split, in the order of its examples."""

    def __init__(self, builder: Any, split: str) -> None:
        """Takes the files from the metadata; opens none."""
        parts = builder.info.splits[split].file_instructions
        self._files = [os.fspath(part.filename) for part in parts]
        self._ends = list(itertools.accumulate(part.take for part in parts))
        # All files of the splits that it is a part of: where they disagree with the metadata, slices begin elsewhere.
        self._lengths = {}
        for info in builder.info.splits.values():
            of_split = dict(zip(map(os.fspath, info.filepaths), info.shard_lengths, strict=True))
            if not of_split.keys().isdisjoint(self._files):
                self._lengths.update(of_split)

    def file(self, index: int) -> str:
        """Returns the file that holds an example."""
        return next(file for file, end in zip(self._files, self._ends, strict=True) if index < end)

    def differences(self) -> Sequence[str]:
        """Returns how the numbers of records in the files differ from those in the metadata.

        Raises:
            RuntimeError: a file is missing or damaged.
        """
        from array_record.python.array_record_module import ArrayRecordReader

        def difference(file: str, length: int) -> str:
            reader = ArrayRecordReader(file)
            found = reader.num_records()
            reader.close()
            return "" if found == length else f"{file} holds {found} records, {INFO} says {length}"

        with ThreadPoolExecutor(READERS) as readers:
            return [text for text in readers.map(difference, self._lengths, self._lengths.values()) if text]


def malformed_errors() -> tuple[type[Exception], ...]:
    """Returns the errors that TFDS raises for metadata and records that are not what it wrote."""
    from google.protobuf import json_format, message

    own = (ValueError, TypeError, AttributeError, KeyError, IndexError, OverflowError, AssertionError, ImportError)
    return (json_format.Error, message.Error, *own)
