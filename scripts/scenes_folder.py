r"""Writes the scenes of the demos as folders: images with masks, and images with objects in COCO's format.

    python -m paca_jax.data.prepare scenes --data_dir=runs/datasets
    python -m scripts.scenes_folder runs/datasets TARGET

Then, without TensorFlow:

    python main.py --config=configs/scenes_segmentation.py --config.dataset.name=folder \
        --config.dataset.data_dir=TARGET/segmentation --config.dataset.eval_split=validation --workdir=runs/scenes_segmentation
    python main.py --config=configs/scenes_detection.py --config.dataset.name=coco \
        --config.dataset.data_dir=TARGET/detection --config.dataset.eval_split=validation --workdir=runs/scenes_detection
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paca_jax.command_line import Parser, command_line
from paca_jax.data import decode_mask, encode_bitmap, open_dataset
from paca_jax.files import write_file
from paca_jax.paths import user_path

FEATURES = ("image", "mask", "instances", "objects")
SPLITS = {"train": "train", "test": "val"}


def write_split(scenes: Sequence[dict[str, Any]], names: Sequence[str], target: Path, split: str) -> None:
    """Writes the scenes of a split.

    Args:
        scenes: the examples of the data set `scenes`, with `FEATURES`.
        names: the names of the classes of objects.
        target: the folder that receives `segmentation` and `detection`.
        split: what the folders call the split.
    """
    images, annotations = [], []
    for number, scene in enumerate(scenes):
        file_name = f"{number:05}.jpg"
        for place in (target / "segmentation" / "images" / split, target / "detection" / split):
            write_file(place / file_name, scene["image"])
        write_file(target / "segmentation" / "masks" / split / f"{number:05}.png", scene["mask"])
        instances = decode_mask(scene["instances"])
        height, width = instances.shape
        images.append({"id": number, "file_name": file_name, "height": height, "width": width})
        for thing, label in zip(scene["objects"]["id"], scene["objects"]["label"], strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(label) + 1,
                    "segmentation": encode_bitmap(instances == thing),  # of which this library computes the box and the area
                }
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_file(target / "detection" / "annotations" / f"{split}.json", json.dumps(content).encode())


def main(argv: Sequence[str] | None = None) -> None:
    """Writes both splits in both forms."""
    parser = Parser("scenes_folder", __doc__)
    parser.add_argument("source", metavar="SOURCE", help="the folder of data sets that holds scenes")
    parser.add_argument("target", metavar="TARGET", help="the folder to write to")
    args = parser.parse_args(argv)
    source, target = user_path(args.source), user_path(args.target)
    for split, name in SPLITS.items():
        scenes = open_dataset("scenes", split, str(source), FEATURES)
        write_split([scenes[index] for index in range(len(scenes))], scenes.class_names[1:], target, name)
    write_file(target / "segmentation" / "classes.txt", "".join(f"{name}\n" for name in scenes.class_names).encode())


if __name__ == "__main__":
    with command_line():
        main()
