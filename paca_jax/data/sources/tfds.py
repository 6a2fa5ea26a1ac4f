"""Data sets of TFDS that are prepared as ArrayRecord.

They are opened from their files alone: no builder code runs, nothing is downloaded and TensorFlow is not imported.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from paca_jax.data.sources.dataset import Dataset, quoted
from paca_jax.data.sources.metadata import published_classes
from paca_jax.data.sources.tfds_files import Shards, check_format, class_names, find_builder, malformed_errors
from paca_jax.errors import UserError, summary


class _Opened(NamedTuple):
    """The open files of a split, and how to decode a record."""

    shards: Shards
    records: Any  # random access to serialized tf.train.Example
    parse: Any  # bytes -> tf.train.Example
    fields: dict[str, str]  # feature -> the list of the Example that holds its value, if it is not decoded
    labels: dict[str, int]  # feature -> the number of its classes
    sequences: dict[str, dict[str, "_Leaf"]]  # feature -> the leaves of its elements, if it is a sequence of dicts of numbers
    decoder: Any  # TFDS's decoder of the other features, or None
    class_names: tuple[str, ...] | None


class _Leaf(NamedTuple):
    """A number, or an array of fixed shape, in each element of a sequence."""

    kind: str  # the list of the Example that holds it
    dtype: np.dtype
    shape: tuple[int, ...]
    classes: int | None  # if it is a label


class TfdsDataset(Dataset):
    """One split of a data set of TFDS.

    Images and masks come as the bytes of their encoded files, labels as ints, sequences of dicts of numbers as dicts of arrays
    with one row per element, and other features as TFDS decodes them. Pickling keeps the arguments only.

    Attributes:
        name: the data set's name, as given.
        split: the TFDS split string.
        data_dir: the folder of data sets; None for TFDS's default.
        features: the names of an example's features.
    """

    def __init__(
        self, name: str, split: str, data_dir: str | None = None, features: Sequence[str] = ("image", "label")
    ) -> None:
        self.name, self.split, self.data_dir, self.features = name, split, data_dir, tuple(features)
        try:
            differences = self._opened.shards.differences()
        except RuntimeError as error:
            raise self._damaged(summary(error)) from error
        if differences:
            raise self._damaged(differences[0])

    @functools.cached_property
    def _opened(self) -> _Opened:
        return _open(self.name, self.split, self.data_dir, self.features)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_opened"}

    def __len__(self) -> int:
        return len(self._opened.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns example `index`; see `Dataset`."""
        opened = self._opened
        if not 0 <= index < len(opened.records):
            raise IndexError(f"{self.name} {self.split} has examples 0 to {len(opened.records) - 1}, not {index}")
        try:
            record = opened.records[index]
            example = _decode(opened, record)
        except RuntimeError as error:  # array_record raises it for every problem with a file
            raise self._damaged(summary(error)) from error
        except malformed_errors() as error:
            where = f"record of example {index} in {opened.shards.file(index)}"
            raise self._damaged(f"the {where} is no example of this data set ({summary(error)})") from error
        wrong = [(label, count) for labels, count in _labels(opened, example) for label in labels if not 0 <= label < count]
        for label, count in wrong:
            raise UserError(
                f"Expected labels from 0 to {count - 1} in data set {self.name!r}, got {label} in example {index} of split "
                f"{self.split!r} ({opened.shards.file(index)}). Correct the data set, or choose a split with labels."
            )
        return example

    def _damaged(self, reason: str) -> UserError:
        return UserError(
            f"Expected intact files of data set {self.name!r}, reading split {self.split!r} failed with: {reason}. Prepare the "
            "data set again."
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes in label order, as TFDS has them (ImageNet's are WordNet synsets such as `n01440764`).

        They are the names of the feature `label`, else of a mask of TFDS's type LabeledImage, else of the `label` in a sequence
        of objects, else the published names of a known data set.

        Raises:
            UserError: none of the features has names.
        """
        if self._opened.class_names is None:
            raise UserError(
                f"Expected data set {self.name!r} to name its classes, none of its features {quoted(self.features)} does. For "
                "classification add 'label' to the features, for segmentation prepare the masks as TFDS's LabeledImage."
            )
        return self._opened.class_names


def _decode(opened: _Opened, record: bytes) -> dict[str, Any]:
    """Returns the example in a record."""
    values = opened.parse(record).features.feature
    example: dict[str, Any] = {}
    for name, kind in opened.fields.items():
        found = getattr(values[name], kind).value
        if len(found) != 1:
            raise ValueError(f"{len(found)} values of {name!r}")
        example[name] = found[0]
    for name, leaves in opened.sequences.items():
        example[name] = {
            leaf: np.array(getattr(values[f"{name}/{leaf}"], kind).value, dtype).reshape(-1, *shape)
            for leaf, (kind, dtype, shape, _) in leaves.items()
        }
        if len(set(map(len, example[name].values()))) > 1:
            raise ValueError(f"parts of {name!r} of different lengths")
    if opened.decoder is not None:
        example.update(opened.decoder.deserialize_example_np(record))
    return example


def _labels(opened: _Opened, example: dict[str, Any]) -> Iterator[tuple[Sequence[int], int]]:
    """Yields the labels of each feature of an example, and the number of their classes."""
    for name, count in opened.labels.items():
        yield [example[name]], count
    for name, leaves in opened.sequences.items():
        for leaf, (*_, classes) in leaves.items():
            if classes is not None:
                yield example[name][leaf].ravel().tolist(), classes


def _open(name: str, split: str, data_dir: str | None, features: tuple[str, ...]) -> _Opened:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.proto import tf_example_pb2

    builder = find_builder(name, data_dir)
    if builder is None:
        where = f"in {data_dir}" if data_dir else "in TFDS's default folder"
        option = f" --data_dir {data_dir}" if data_dir else ""
        raise UserError(
            f"Expected data set {name!r} {where}, found none. Prepare it with: python -m paca_jax.data.prepare {name}{option}"
        )
    check_format(name, builder)
    info = builder.info
    _check_features(name, info.features, features)
    _check_split(name, split, info.splits)
    labels = [feature for feature in features if isinstance(info.features[feature], tfds.features.ClassLabel)]
    images = [feature for feature in features if isinstance(info.features[feature], tfds.features.Image)]
    fields = dict.fromkeys(labels, "int64_list") | dict.fromkeys(images, "bytes_list")
    sequences = {feature: _leaves(info.features[feature]) for feature in features}
    sequences = {feature: leaves for feature, leaves in sequences.items() if leaves}
    others = {feature: info.features[feature] for feature in features if feature not in fields.keys() | sequences.keys()}
    named = {feature: info.features[feature] for feature in ("label", *images) if feature in features}
    named |= {
        f"{feature}-label": info.features[feature].feature["label"] for feature in sequences if "label" in sequences[feature]
    }
    names = (class_names(builder, key, feature) for key, feature in named.items() if _has_classes(feature))
    source = builder.as_data_source(
        split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES, file_format="array_record"
    )
    return _Opened(
        shards=Shards(builder, split),
        records=source.data_source,
        parse=tf_example_pb2.Example.FromString,
        fields=fields,
        labels={feature: info.features[feature].num_classes for feature in labels if _has_classes(info.features[feature])},
        sequences=sequences,
        decoder=tfds.features.FeaturesDict(others) if others else None,
        class_names=next(names, published_classes(name)),
    )


def _has_classes(feature: Any) -> bool:
    """Returns whether a feature is a label, or a mask, and its classes are known."""
    import tensorflow_datasets as tfds

    kinds = (tfds.features.ClassLabel, tfds.features.LabeledImage)
    return isinstance(feature, kinds) and feature.num_classes is not None


def _leaves(feature: Any) -> dict[str, _Leaf]:
    """Returns the leaves of the elements of a sequence of dicts of numbers; none for any other feature."""
    import tensorflow_datasets as tfds

    if not isinstance(feature, tfds.features.Sequence) or not isinstance(feature.feature, tfds.features.FeaturesDict):
        return {}
    leaves = {}
    for name, leaf in feature.feature.items():
        number = isinstance(leaf, tfds.features.Tensor) and None not in leaf.shape and np.dtype(leaf.np_dtype).kind in "biuf"
        if not number:
            return {}
        kind = "float_list" if np.dtype(leaf.np_dtype).kind == "f" else "int64_list"
        classes = leaf.num_classes if isinstance(leaf, tfds.features.ClassLabel) else None
        leaves[name] = _Leaf(kind, np.dtype(leaf.np_dtype), tuple(leaf.shape), classes)
    return leaves


def _check_features(name: str, available: Any, wanted: tuple[str, ...]) -> None:
    import tensorflow_datasets as tfds

    missing = [feature for feature in wanted if feature not in available]
    if missing:
        raise UserError(
            f"Expected data set {name!r} to have {quoted(wanted)}, it has {quoted(sorted(available))}, missing "
            f"{quoted(missing)}. Choose another data set."
        )
    for feature, kind in (("image", tfds.features.Image), ("label", tfds.features.ClassLabel)):
        if feature in wanted and not isinstance(available[feature], kind):
            raise UserError(
                f"Expected the feature {feature!r} of data set {name!r} to be of type {kind.__name__}, it is of type "
                f"{type(available[feature]).__name__}. Choose another data set."
            )


def _check_split(name: str, split: str, splits: Any) -> None:
    expected = f"Expected one of the splits of data set {name!r}, {quoted(splits)}, or a slice such as 'train[:90%]'"
    try:
        length = sum(instruction.take for instruction in splits[split].file_instructions)
    except (KeyError, ValueError) as error:  # no split at all; an unknown name, a malformed slice, or one that ends too early
        raise UserError(f"{expected}, got {split!r}. Correct the split.") from error
    if length <= 0:
        raise UserError(f"{expected}, got {split!r}, which has no examples. Correct the split.")
