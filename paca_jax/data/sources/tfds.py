"""Opening data sets: those of TFDS, prepared as ArrayRecord, and folders of images.

A data set of TFDS is opened from its files alone: no builder code runs, nothing is downloaded and TensorFlow is not imported.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from paca_jax.data.sources.coco import CocoDataset
from paca_jax.data.sources.dataset import Dataset, quoted
from paca_jax.data.sources.image_folder import FolderDataset
from paca_jax.data.sources.instance_maps import FEATURES, InstanceMaps
from paca_jax.data.sources.mask_folder import Ade20k, FolderOfMasks
from paca_jax.data.sources.metadata import PUBLISHED, DatasetFacts, published_classes
from paca_jax.errors import UserError

# The data sets that are folders, by the features that an example has.
_FOLDERS: dict[str, dict[tuple[str, str], Callable[[str, str | None], Dataset]]] = {
    FolderDataset.name: {("image", "label"): FolderDataset, ("image", "mask"): FolderOfMasks},
    Ade20k.name: {("image", "mask"): Ade20k},
    CocoDataset.name: {("image", "objects"): CocoDataset},
}


class _Opened(NamedTuple):
    """The open files of a split and what is needed to decode a record."""

    records: Any  # random access to serialized tf.train.Example
    parse: Any  # bytes -> tf.train.Example
    fields: dict[str, str]  # feature -> the list of the Example that holds its value, for features that are taken as they are
    sequences: dict[str, dict[str, "_Leaf"]]  # feature -> what each element of it is made of, for sequences of numbers
    decoder: Any  # TFDS's decoder of the other features, or None
    class_names: tuple[str, ...] | None


class _Leaf(NamedTuple):
    """A number, or an array of a fixed shape, of each element of a sequence."""

    kind: str  # the list of the Example that holds it
    dtype: np.dtype
    shape: tuple[int, ...]


class TfdsDataset(Dataset):
    """One split of a data set of TFDS.

    Images, masks among them, come as the bytes of their encoded files; sequences of dicts of numbers as dicts of arrays, an
    element a row; features besides these and labels as TFDS decodes them.
    Pickling keeps the arguments only.

    Attributes:
      name: the data set's name as it was asked for.
      split: the TFDS split string.
      data_dir: the folder of data sets, None for TFDS's default.
      features: the names of the features that an example has.
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
        except RuntimeError as error:  # what array_record raises for every problem with a file
            raise UserError(
                f"Expected intact files of data set {self.name!r}, reading split {self.split!r} failed with: "
                f"{' '.join(str(error).split())}; prepare the data set anew."
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

        They are those of `label`, else of a mask of TFDS's type LabeledImage, else those that a sequence of objects has as
        `label`, else the published ones of a known data set.

        Raises:
          UserError: none of the features has names.
        """
        if self._opened.class_names is None:
            raise UserError(
                f"Expected data set {self.name!r} to name its classes, none of its features {quoted(self.features)} does; for "
                "classification add 'label' to the features, for segmentation prepare the masks as TFDS's LabeledImage."
            )
        return self._opened.class_names


def open_dataset(name: str, split: str, data_dir: str | None = None, features: Sequence[str] = ("image", "label")) -> Dataset:
    """Opens one split of a TFDS data set that is prepared as ArrayRecord, or of a folder of images, masks or objects.

    Args:
      name: "name", "name/config" or "name/config:version" as TFDS writes it; "folder" for a folder of images, "ade20k" for the
        folder `ADEChallengeData2016`, "coco" for a folder with annotations in COCO's format.
      split: "train", "train[:90%]", "train+test", ...; for a folder as `FolderDataset`, `FolderOfMasks` and
        `CocoDataset` have them.
      data_dir: the folder of data sets, by default TFDS's own (`TFDS_DATA_DIR` or `~/tensorflow_datasets`); or the folder of
        images.
      features: the features that an example shall have: classification needs the default, segmentation the image and its mask
        ("mask" of a folder), detection ("image", "objects"), which opens an `ObjectDataset`.

    Returns:
      A random-access source of raw examples; it can be pickled.

    Raises:
      UserError: the data set is missing, is prepared in another format, or lacks one of the features or the split; or the
        folder is not laid out as the modules `image_folder`, `mask_folder` (with masks) or `coco` (with objects) describe.
    """
    if name not in _FOLDERS:
        if set(features) == {"image", "objects"}:
            return InstanceMaps(TfdsDataset(name, split, data_dir, FEATURES))
        return TfdsDataset(name, split, data_dir, features)
    for known, dataset in _FOLDERS[name].items():
        if set(known).issuperset(features):
            return dataset(split, data_dir)
    expected = " or ".join(" and ".join(map(repr, known)) for known in _FOLDERS[name])
    raise UserError(f"Expected features of the data set {name!r}, {expected}, got {quoted(features)}; correct them.")


def describe_dataset(
    name: str, split: str, data_dir: str | None = None, features: Sequence[str] = ("image", "label")
) -> DatasetFacts | Dataset:
    """Returns what is known of a split: from a table for published data sets, else from its files.

    Arguments and errors are those of `open_dataset`.
    """
    return PUBLISHED.get((name, split)) or open_dataset(name, split, data_dir, features)


def find_builder(name: str, data_dir: str | None) -> Any:
    """Returns TFDS's builder of a prepared data set, made from its files, or None where there are none.

    Args:
      name: as for `open_dataset`.
      data_dir: as for `open_dataset`.

    Raises:
      UserError: `name` is not written like a data set's name.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import read_only_builder

    try:
        return read_only_builder.builder_from_files(name, **({} if data_dir is None else {"data_dir": data_dir}))
    except tfds.core.DatasetNotFoundError:
        return None
    except ValueError as error:  # TFDS's answer to a malformed name
        raise UserError(
            f"Expected a data set's name such as 'imagenet2012' or 'coco/2017', got {name!r}; correct dataset.name."
        ) from error


def check_format(name: str, builder: Any) -> None:
    """Refuses a prepared data set that is not ArrayRecord.

    Args:
      name: the data set's name, for the message.
      builder: what `find_builder` returned.

    Raises:
      UserError: it is prepared in another format; the message tells how to convert it.
    """
    formats = sorted(available.value for available in builder.info.available_file_formats())
    if "array_record" not in formats:
        raise UserError(
            f"Expected data set {name!r} to be prepared as array_record, {builder.data_dir} holds {quoted(formats)}; "
            f"convert it with: python -m paca_jax.data.convert_records {builder.data_dir}"
        )


def _open(name: str, split: str, data_dir: str | None, features: tuple[str, ...]) -> _Opened:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.proto import tf_example_pb2

    builder = find_builder(name, data_dir)
    if builder is None:
        where = f"in {data_dir}" if data_dir else "in TFDS's default folder"
        option = f" --data_dir {data_dir}" if data_dir else ""
        raise UserError(
            f"Expected data set {name!r} {where}, found none; prepare it with: python -m paca_jax.data.prepare {name}{option}"
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
    """Whether a feature is a mask whose classes are known."""
    import tensorflow_datasets as tfds

    return isinstance(feature, tfds.features.LabeledImage) and bool(feature.num_classes)


def _leaves(feature: Any) -> dict[str, _Leaf]:
    """What the elements of a sequence of dicts of numbers are made of; nothing of another feature."""
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
            f"Expected data set {name!r} to have {quoted(wanted)}, it has {quoted(sorted(available))}, lacking "
            f"{quoted(missing)}; choose another data set."
        )
    for feature, kind in (("image", tfds.features.Image), ("label", tfds.features.ClassLabel)):
        if feature in wanted and not isinstance(available[feature], kind):
            raise UserError(
                f"Expected the feature {feature!r} of data set {name!r} to be of type {kind.__name__}, it is of type "
                f"{type(available[feature]).__name__}; choose another data set."
            )


def _check_split(name: str, split: str, splits: Any) -> None:
    expected = f"Expected one of the splits of data set {name!r}, {quoted(splits)}, or a slice such as 'train[:90%]'"
    try:
        length = sum(instruction.take for instruction in splits[split].file_instructions)
    except ValueError as error:  # TFDS's answer to an unknown name, a malformed slice, and a slice that ends before it starts
        raise UserError(f"{expected}, got {split!r}; correct the split.") from error
    if length <= 0:
        raise UserError(f"{expected}, got {split!r}, which has no examples; correct the split.")
