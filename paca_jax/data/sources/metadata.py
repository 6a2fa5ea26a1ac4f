"""Metadata of published data sets, which need no files."""

from dataclasses import dataclass

from paca_jax.data.class_names import ADE20K_CLASSES, COCO_CLASSES, IMAGENET_SYNSETS
from paca_jax.fields import check_value


@dataclass(frozen=True)
class DatasetMetadata:
    """The metadata of a split.

    Attributes:
        class_names: the names of the classes, in label order.
        length: the number of examples.
    """

    class_names: tuple[str, ...]
    length: int

    def __len__(self) -> int:
        return self.length


# "coco" is COCO 2017 and "ade20k" the folder `ADEChallengeData2016`, whose validation set TFDS's `scene_parse150` calls "test".
PUBLISHED: dict[tuple[str, str], DatasetMetadata] = {
    ("imagenet2012", "train"): DatasetMetadata(IMAGENET_SYNSETS, 1_281_167),
    ("imagenet2012", "validation"): DatasetMetadata(IMAGENET_SYNSETS, 50_000),
    ("coco", "train"): DatasetMetadata(COCO_CLASSES, 117_266),  # with annotations
    ("coco", "train_all"): DatasetMetadata(COCO_CLASSES, 118_287),
    ("coco", "validation"): DatasetMetadata(COCO_CLASSES, 5_000),
    ("ade20k", "train"): DatasetMetadata(ADE20K_CLASSES, 20_210),
    ("ade20k", "validation"): DatasetMetadata(ADE20K_CLASSES, 2_000),
    ("scene_parse150", "train"): DatasetMetadata(ADE20K_CLASSES, 20_210),
    ("scene_parse150", "test"): DatasetMetadata(ADE20K_CLASSES, 2_000),
}


def zero_is_unlabeled(name: str) -> bool:
    """Returns whether the masks of a data set store class c as c + 1, and 0 for no class, as ADE20K's do."""
    return published_classes(name) is ADE20K_CLASSES


def published_classes(name: str) -> tuple[str, ...] | None:
    """Returns the class names of a published data set, some of which TFDS does not have; None for other data sets.

    Args:
        name: "name", "name/config" or "name:version".
    """
    check_value("the name of a data set", name, str)
    plain = name.split(":")[0].split("/")[0]
    return next((metadata.class_names for (known, _), metadata in PUBLISHED.items() if known == plain), None)
