r"""Writes all 70,000 images of Fashion-MNIST as a folder of PNG files, one sub-folder per class.

    python -m scripts.fashion_mnist_folder SOURCE TARGET

SOURCE holds the four files that are published, `train-images-idx3-ubyte.gz` and so on (Debian's package dataset-fashion-mnist
puts them into /usr/share/datasets/fashion-mnist). Then, without TensorFlow:

    python main.py --config=configs/fashion_mnist.py --config.dataset.name=folder --config.dataset.data_dir=TARGET \
        --config.dataset.eval_split=validation --workdir=runs/fashion_mnist_folder
"""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from paca_jax.command_line import Parser, command_line
from scripts.build_fashion_mnist import FILES, read_split

NAMES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot")
FOLDERS = {"train": "train", "test": "val"}
_JOBS = 64


def write(folder: Path, numbers: Sequence[int], images: np.ndarray, labels: np.ndarray) -> None:
    """Writes images into the folders of their classes, named by their numbers."""
    for number, image, label in zip(numbers, images, labels, strict=True):
        Image.fromarray(image).save(folder / NAMES[label] / f"{number:05}.png")


def main(argv: Sequence[str] | None = None) -> None:
    """Writes `train` and `val`."""
    parser = Parser("fashion_mnist_folder", __doc__)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="the folder with the published files")
    parser.add_argument("target", type=Path, metavar="TARGET", help="the folder to write to")
    args = parser.parse_args(argv)
    splits = {split: read_split(args.source, split) for split in FILES}
    with ProcessPoolExecutor() as pool:
        for split, (images, labels) in splits.items():
            folder = args.target / FOLDERS[split]
            for name in NAMES:
                (folder / name).mkdir(parents=True, exist_ok=True)
            parts = [slice(first, None, _JOBS) for first in range(_JOBS)]
            numbers = range(len(images))
            for job in [pool.submit(write, folder, numbers[part], images[part], labels[part]) for part in parts]:
                job.result()


if __name__ == "__main__":
    with command_line():
        main()
