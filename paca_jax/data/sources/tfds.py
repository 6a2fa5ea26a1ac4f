"""Data sets of TFDS that are prepared as ArrayRecord.

They are opened from their files alone: no builder code runs, nothing is downloaded and TensorFlow is not imported.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from paca_jax.data.sources.dataset import Dataset, quoted
from paca_jax.data.sources.metadata import published_classes
from paca_jax.errors import UserError


class _Opened(NamedTuple):
    """The open files of a split, and how to decode a record."""

    records: Any  # random access to serialized tf.train.Example
    parse: Any  # bytes -> tf.train.Example
    fields: dict[str, str]  # feature -> the list of the Example that holds its value, if it is not decoded
    sequences: dict[str, dict[str, "_Leaf"]]  # feature -> the leaves of its elements, if it is a sequence of dicts of numbers
    decoder: Any  # TFDS's decoder of the other features, or None
    class_names: tuple[str, ...] | None


class _Leaf(NamedTuple):
    """A number, or an array of fixed shape, in each element of a sequence."""

    kind: str  # the list of the Example that holds it
    dtype: np.dtype
    shape: tuple[int, ...]


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
        len(self)

    @functools.cached_property
    def _opened(self) -> _Opened:
        return _open(self.name, self.split, self.data_dir, self.features)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_opened"}

    def __len__(self) -> int:
        return len(self._opened.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns example `index`; see `Dataset`."""
        records, parse, fields, sequences, decoder, _ = self._opened
        if not 0 <= index < len(records):
            raise IndexError(f"{self.name} {self.split} has examples 0 to {len(records) - 1}, not {index}")
        try:
            record = records[index]
        except RuntimeError as error:  # array_record raises it for every problem with a file
            raise UserError(
                f"Expected intact files of data set {self.name!r}, reading split {self.split!r} failed with: "
                f"{' '.join(str(error).split())}. Prepare the data set again."
            ) from error
        values = parse(record).features.feature
        example: dict[str, Any] = {name: getattr(values[name], kind).value[0] for name, kind in fields.items()}
        for name, leaves in sequences.items():
            example[name] = {
                leaf: np.array(getattr(values[f"{name}/{leaf}"], kind).value, dtype).reshape(-1, *shape)
                for leaf, (kind, dtype, shape) in leaves.items()
            }
        if decoder is not None:
            example.update(decoder.deserialize_example_np(record))
        return example

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


def find_builder(name: str, data_dir: str | None) -> Any:
    """Returns TFDS's builder of a prepared data set, made from its files; None if there are none.

    Args:
        name: as for `open_dataset`.
        data_dir: as for `open_dataset`.

    Raises:
        UserError: `name` does not look like the name of a data set.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import read_only_builder

    try:
        return read_only_builder.builder_from_files(name, **({} if data_dir is None else {"data_dir": data_dir}))
    except tfds.core.DatasetNotFoundError:
        return None
    except ValueError as error:  # TFDS raises it for a malformed name
        raise UserError(
            f"Expected a data set's name such as 'imagenet2012' or 'coco/2017', got {name!r}. Correct dataset.name."
        ) from error


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
    masks = [feature for feature in images if _has_names(info.features[feature])]
    named = "label" if "label" in labels else next(iter(masks), None)
    sequences = {feature: _leaves(info.features[feature]) for feature in features}
    sequences = {feature: leaves for feature, leaves in sequences.items() if leaves}
    objects = next((feature for feature in sequences if "label" in sequences[feature]), None)
    others = {feature: info.features[feature] for feature in features if feature not in fields.keys() | sequences.keys()}
    names = info.features[named] if named else info.features[objects].feature["label"] if objects else None
    source = builder.as_data_source(
        split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES, file_format="array_record"
    )
    return _Opened(
        records=source.data_source,
        parse=tf_example_pb2.Example.FromString,
        fields=fields,
        sequences=sequences,
        decoder=tfds.features.FeaturesDict(others) if others else None,
        class_names=published_classes(name) if names is None else tuple(names.names),
    )


def _has_names(feature: Any) -> bool:
    """Returns whether a feature is a mask whose classes have names."""
    import tensorflow_datasets as tfds

    return isinstance(feature, tfds.features.LabeledImage) and bool(feature.num_classes)


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
        leaves[name] = _Leaf(kind, np.dtype(leaf.np_dtype), tuple(leaf.shape))
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
    except ValueError as error:  # TFDS raises it for an unknown name, a malformed slice, and a slice that ends before it starts
        raise UserError(f"{expected}, got {split!r}. Correct the split.") from error
    if length <= 0:
        raise UserError(f"{expected}, got {split!r}, which has no examples. Correct the split.")
