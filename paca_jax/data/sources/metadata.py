"""What is known of published data sets without their files."""

from dataclasses import dataclass

from paca_jax.data.class_names import ADE20K_CLASSES, COCO_CLASSES, IMAGENET_SYNSETS


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


# "coco" is COCO 2017 and "ade20k" the folder `ADEChallengeData2016`, whose validation set TFDS's `scene_parse150` calls "test".
PUBLISHED: dict[tuple[str, str], DatasetFacts] = {
    ("imagenet2012", "train"): DatasetFacts(IMAGENET_SYNSETS, 1_281_167),
    ("imagenet2012", "validation"): DatasetFacts(IMAGENET_SYNSETS, 50_000),
    ("coco", "train"): DatasetFacts(COCO_CLASSES, 117_266),  # with annotations
    ("coco", "train_all"): DatasetFacts(COCO_CLASSES, 118_287),
    ("coco", "validation"): DatasetFacts(COCO_CLASSES, 5_000),
    ("ade20k", "train"): DatasetFacts(ADE20K_CLASSES, 20_210),
    ("ade20k", "validation"): DatasetFacts(ADE20K_CLASSES, 2_000),
    ("scene_parse150", "train"): DatasetFacts(ADE20K_CLASSES, 20_210),
    ("scene_parse150", "test"): DatasetFacts(ADE20K_CLASSES, 2_000),
}


def zero_is_unlabeled(name: str) -> bool:
    """Returns whether masks of a data set write class c as c + 1 and no class as 0, as ADE20K's do."""
    return published_classes(name) is ADE20K_CLASSES


def published_classes(name: str) -> tuple[str, ...] | None:
    """Returns the names of the classes of a data set that TFDS has without them, None of others.

    Args:
      name: "name", "name/config" or "name:version".
    """
    plain = name.split(":")[0].split("/")[0]
    return next((facts.class_names for (known, _), facts in PUBLISHED.items() if known == plain), None)
