"""The class names of ImageNet-1k, ADE20K and COCO, in label order.

Sources:
    `imagenet_classes.txt`: the synset ids of TFDS's `imagenet2012` in its order (sorted, the usual label order), each with the
    words of the synset in WordNet 3.0 (license: `LICENSE.wordnet`).
    `ade20k_classes.txt`: the 150 classes of the scene parsing benchmark (Zhou et al., 2017), each with one of its words in the
    benchmark's `objectInfo150.txt`, as papers use them.
    `coco_classes.txt`: the 80 names in `annotations/instances_val2017.json` in the order of their category ids (Lin et al.,
    2014).
"""

import logging
from collections.abc import Sequence
from importlib import resources

from paca_jax.errors import UserError

logger = logging.getLogger(__name__)


def _lines(file: str) -> tuple[str, ...]:
    return tuple(resources.files(__package__).joinpath(file).read_text("utf-8").splitlines())


# WordNet ids, such as "n01440764".
IMAGENET_SYNSETS: tuple[str, ...] = tuple(line.split(" ", 1)[0] for line in _lines("imagenet_classes.txt"))
# Words, such as "tench, Tinca tinca". Not unique: "crane" is a bird and a machine, and two synsets begin with "maillot".
IMAGENET_CLASSES: tuple[str, ...] = tuple(line.split(" ", 1)[1] for line in _lines("imagenet_classes.txt"))
# The benchmark's masks store class c as c + 1, and 0 for unlabeled pixels.
ADE20K_CLASSES = _lines("ade20k_classes.txt")
COCO_CLASSES = _lines("coco_classes.txt")


def readable_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """Returns ImageNet's words if the names are its WordNet ids in label order, and any other names unchanged.

    Raises:
        UserError: the names are one text rather than several.
    """
    if isinstance(class_names, str | bytes) or not isinstance(class_names, Sequence):
        raise UserError(f"Expected a sequence with the name of each class, got {class_names!r}. Pass a tuple.")
    return IMAGENET_CLASSES if tuple(class_names) == IMAGENET_SYNSETS else tuple(class_names)


def assumed_names(count: int, data_set: str = "ImageNet-1k") -> tuple[str, ...]:
    """Returns names for the classes of a model that does not name them.

    Args:
        count: the number of classes.
        data_set: "ImageNet-1k", "ADE20K" or "COCO".

    Returns:
        The names of the data set if it has as many classes, which a warning says; otherwise "class 0", "class 1" and so on.
    """
    published = {"ImageNet-1k": IMAGENET_CLASSES, "ADE20K": ADE20K_CLASSES, "COCO": COCO_CLASSES}[data_set]
    if len(published) != count:
        return tuple(f"class {index}" for index in range(count))
    logger.warning("The weights do not name their %d classes: takes the names of %s.", count, data_set)
    return published
