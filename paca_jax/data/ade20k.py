"""The names of the 150 classes of ADE20K's scene parsing benchmark in label order (Zhou et al., 2017).

Origin of `ade20k_classes.txt`: one of the words of each class in the benchmark's `objectInfo150.txt`, as papers use them.
"""

from importlib import resources

# Class c has the value c + 1 in the benchmark's masks, where 0 stands for none of them.
ADE20K_CLASSES: tuple[str, ...] = tuple(
    resources.files(__package__).joinpath("ade20k_classes.txt").read_text("utf-8").splitlines()
)
