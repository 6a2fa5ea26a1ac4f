"""Data sets by name."""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

from paca_jax.data.sources.coco.folder import CocoFolder
from paca_jax.data.sources.dataset import Dataset, quoted
from paca_jax.data.sources.image_folder import ImageFolder
from paca_jax.data.sources.instance_maps import FEATURES, InstanceMaps
from paca_jax.data.sources.mask_folder import Ade20kFolder, MaskFolder
from paca_jax.data.sources.metadata import PUBLISHED, DatasetMetadata
from paca_jax.data.sources.tfds import TfdsDataset
from paca_jax.errors import UserError
from paca_jax.fields import check_value
from paca_jax.paths import user_path

# The data sets that are folders, by the features of their examples. All other names are those of TFDS.
_FOLDERS: dict[str, dict[tuple[str, str], Callable[..., Dataset]]] = {
    ImageFolder.name: {("image", "label"): ImageFolder, ("image", "mask"): MaskFolder},
    Ade20kFolder.name: {("image", "mask"): Ade20kFolder},
    CocoFolder.name: {
        ("image", "objects"): CocoFolder,
        ("image", "boxes"): functools.partial(CocoFolder, boxes_only=True),
    },
}


def open_dataset(
    name: str,
    split: str,
    data_dir: str | None = None,
    features: Sequence[str] = ("image", "label"),
    skip_missing: bool = False,
) -> Dataset:
    """Opens one split of a TFDS data set that is prepared as ArrayRecord, or of a folder of images, masks or objects.

    Args:
        name: "name", "name/config" or "name/config:version" as in TFDS; "folder" for a folder of images, "ade20k" for the
            folder `ADEChallengeData2016`, "coco" for a folder with annotations in COCO's format.
        split: "train", "train[:90%]", "train+test", ...; the splits of folders are listed at `ImageFolder`, `MaskFolder` and
            `CocoFolder`.
        data_dir: the folder of data sets, by default TFDS's own (`TFDS_DATA_DIR` or `~/tensorflow_datasets`); or the folder of
            images. `~` is expanded.
        features: the features of an example: the default for classification, the image and its mask ("mask" in a folder) for
            segmentation, ("image", "objects") for detection, which opens an `ObjectDataset`, or ("image", "boxes") for "coco"
            with the box of every object as its mask.
        skip_missing: whether images that the annotations of "coco" list and that do not exist are left out and counted in the
            log, rather than refused.

    Returns:
        Raw examples with random access; they can be pickled.

    Raises:
        UserError: the data set is missing, is prepared in another format, or does not have one of the features or the split; or
            the folder is not laid out as the modules `image_folder`, `mask_folder` (with masks) or `coco.layout` (with
            objects) describe.
    """
    check_value("the name of a data set", name, str)
    check_value("the split", split, str)
    check_value("features", tuple(features) if isinstance(features, list) else features, tuple[str, ...])
    data_dir = None if data_dir is None else os.fspath(user_path(data_dir))
    if name not in _FOLDERS:
        if set(features) == {"image", "objects"}:
            return InstanceMaps(TfdsDataset(name, split, data_dir, FEATURES))
        return TfdsDataset(name, split, data_dir, features)
    options: dict[str, Any] = {"skip_missing": skip_missing} if name == CocoFolder.name else {}
    for known, dataset in _FOLDERS[name].items():
        if set(known).issuperset(features):
            return dataset(split, data_dir, **options)
    expected = " or ".join(" and ".join(map(repr, known)) for known in _FOLDERS[name])
    raise UserError(f"Expected features of the data set {name!r}, {expected}, got {quoted(features)}. Correct them.")


def describe_dataset(
    name: str,
    split: str,
    data_dir: str | None = None,
    features: Sequence[str] = ("image", "label"),
    skip_missing: bool = False,
) -> DatasetMetadata | Dataset:
    """Returns the class names and the length of a split: from a table for published data sets, else from its files.

    Arguments and errors are those of `open_dataset`.
    """
    published = PUBLISHED.get((name, split)) if isinstance(name, str) and isinstance(split, str) else None
    return published or open_dataset(name, split, data_dir, features, skip_missing)
