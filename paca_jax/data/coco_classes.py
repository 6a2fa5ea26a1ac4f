"""The names of COCO's 80 classes in label order, which is the order of their category ids (Lin et al., 2014).

Origin of `coco_classes.txt`: the names in `annotations/instances_val2017.json`.
"""

from importlib import resources

COCO_CLASSES: tuple[str, ...] = tuple(resources.files(__package__).joinpath("coco_classes.txt").read_text("utf-8").splitlines())
