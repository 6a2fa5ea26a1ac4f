"""The files of a folder with annotations in COCO's format.

    annotations/instances_train2017.json    annotations/instances_val2017.json
    train2017/000000000009.jpg              val2017/000000000139.jpg

The NAME of the training split is `train2017` or `train`; of validation `val2017`, `validation`, `val` or `valid`; of test
`test`. The annotations are `annotations/instances_NAME.json`, `annotations/NAME.json` or `NAME/_annotations.coco.json`. The
images are in `NAME`, `images/NAME`, `images` or the folder itself: the first of these that has one of them. These folders may
be links. A `file_name` may have slashes or backslashes, or be absolute, but must end inside the folder.
"""

import itertools
import logging
import os

import numpy as np
from etils import epath

from paca_jax.data.sources.coco.annotations import CocoFile
from paca_jax.data.sources.coco.image_files import ImageFiles
from paca_jax.data.sources.dataset import quoted
from paca_jax.errors import UserError

logger = logging.getLogger(__name__)

# The possible names of a split in the names of its files.
_NAMES = {
    "train": ("train2017", "train"),
    "train_all": ("train2017", "train"),
    "validation": ("val2017", "validation", "val", "valid"),
    "test": ("test",),
}
_ANNOTATIONS = ("annotations/instances_{}.json", "annotations/{}.json", "{}/_annotations.coco.json")
_IMAGES = ("{}", "images/{}", "images", ".")
# The split "train" leaves out pictures with a smaller side, as mmdetection does.
MIN_SIDE = 32
_LISTED = 3  # missing images in a message


def find_annotations(root: epath.Path, split: str) -> tuple[str, str]:
    """Returns the name of a split in the names of its files, and the path of its annotations.

    Raises:
        UserError: there is no such split, or it has no annotations.
    """
    if split not in _NAMES:
        raise UserError(f"Expected one of the splits {quoted(_NAMES)} of a COCO folder, got {split!r}. Correct the split.")
    for name in _NAMES[split]:
        for pattern in _ANNOTATIONS:
            if (root / pattern.format(name)).exists():
                return name, os.fspath(root / pattern.format(name))
    raise UserError(
        f"Expected the annotations of split {split!r} at {root / _ANNOTATIONS[0].format(_NAMES[split][0])}, found neither that "
        "file nor one of its other names. See docs/own_data.md, and correct dataset.data_dir."
    )


def images_of_split(file: CocoFile, split: str) -> list[int]:
    """Returns the positions of a split's images in its file, after logging how many are left out.

    Raises:
        UserError: there are none.
    """
    if split != "train":
        return list(range(len(file.image_ids)))
    is_empty, is_small = np.diff(file.first) == 0, file.sizes.min(1) < MIN_SIDE
    kept = np.flatnonzero(~is_empty & ~is_small).tolist()
    if not kept:
        raise UserError(
            f"Expected images with annotations and sides of {MIN_SIDE} pixels or more in the COCO file {file.path}, got none. "
            "Give another file."
        )
    if len(kept) < len(is_empty):
        logger.info(
            "Split 'train' leaves out %d of %d images of the COCO file %s: %d without annotations, and %d more with a side "
            "below %d pixels. Split 'train_all' has them.",
            len(is_empty) - len(kept),
            len(is_empty),
            file.path,
            np.count_nonzero(is_empty),
            np.count_nonzero(is_small & ~is_empty),
            MIN_SIDE,
        )
    return kept


def find_images(
    root: epath.Path, name: str, file: CocoFile, images: list[int], skip_missing: bool
) -> tuple[list[int], list[str]]:
    """Looks for the files of images.

    Args:
        root: the folder of the data set.
        name: the name of the split in the names of its files.
        file: the annotations.
        images: the positions of the images in the file.
        skip_missing: whether those that do not exist are left out and counted in the log, rather than refused.

    Returns:
        The positions of the images that exist, and their paths relative to the root.

    Raises:
        UserError: an image is outside the root, or none exists, or not all of them.
    """
    every_name = itertools.chain.from_iterable(_NAMES.values())
    files = ImageFiles(root, {pattern.format(name) for pattern, name in itertools.product(_IMAGES, every_name)})
    names = [file.file_names[image] for image in images]
    folders = [pattern.format(name) for pattern in _IMAGES]
    folder = files.folder_of(names, folders)
    found: dict[int, str] = {}
    missing = []
    for image, given in zip(images, names, strict=True):
        path = files.find(given, folder or folders[0])
        if path is None:
            raise UserError(
                f"Expected every image of the COCO file {file.path} to be inside {root}, got {given!r} as the file_name of "
                f"image {file.image_ids[image]}, which leads out of it. Correct the file_name, or copy the image there."
            )
        if folder is not None and files.has(path):
            found[image] = path
        else:
            missing.append(f"image {file.image_ids[image]} ({path})")
    if folder is None:
        places = quoted(os.fspath(root / place) for place in folders)
        raise UserError(
            f"Expected the image {names[0]} in {places}, found it in none of them, nor any other image of the COCO file "
            f"{file.path}. Put the images there."
        )
    if missing:
        listed = ", ".join(missing[:_LISTED]) + (" and others" if len(missing) > _LISTED else "")
        if not skip_missing:
            raise UserError(
                f"Expected all images of the COCO file {file.path} in {root}, got {len(missing)} of {len(images)} that are "
                f"missing: {listed}. Restore them, or leave them out and count them with dataset.skip_corrupt=True."
            )
        logger.warning(
            "Left out %d of %d images of the COCO file %s that are missing: %s.", len(missing), len(images), file.path, listed
        )
    return list(found), list(found.values())
