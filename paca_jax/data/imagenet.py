"""The names of ImageNet-1k's 1000 classes in label order.

Origin of `imagenet_classes.txt`: the synset ids of TFDS's `imagenet2012` in its order (sorted, the usual label order), each
with the words of that synset in WordNet 3.0 (its licence is `LICENSE.wordnet`).
"""

from collections.abc import Sequence
from importlib import resources

_LINES = resources.files(__package__).joinpath("imagenet_classes.txt").read_text("utf-8").splitlines()

# The WordNet ids, such as "n01440764".
IMAGENET_SYNSETS: tuple[str, ...] = tuple(line.split(" ", 1)[0] for line in _LINES)
# The words, such as "tench, Tinca tinca". Not unique: "crane" is a bird and a machine,
# and two synsets begin with "maillot".
IMAGENET_CLASSES: tuple[str, ...] = tuple(line.split(" ", 1)[1] for line in _LINES)


def readable_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """Returns ImageNet's words where the names are its WordNet ids in label order; any other names as they are."""
    return IMAGENET_CLASSES if tuple(class_names) == IMAGENET_SYNSETS else tuple(class_names)
