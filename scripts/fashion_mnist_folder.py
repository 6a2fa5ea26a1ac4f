r"""Writes all 70,000 images of Fashion-MNIST as a folder of PNG files, one sub-folder per class.

    python scripts/fashion_mnist_folder.py SOURCE TARGET

SOURCE holds the four files that are published, `train-images-idx3-ubyte.gz` and so on (Debian's package dataset-fashion-mnist
puts them into /usr/share/datasets/fashion-mnist). Then, without TensorFlow:

    python main.py --config=configs/fashion_mnist.py --config.dataset.name=folder --config.dataset.data_dir=TARGET \
        --config.dataset.eval_split=validation --workdir=runs/fashion_mnist_folder
"""

import argparse
import gzip
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot")
_JOBS = 64


def read(source: Path, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images (N, 28, 28) and the labels (N,) of a kind, "train" or "t10k"."""
    images, labels = (
        gzip.decompress((source / f"{kind}-{name}-ubyte.gz").read_bytes()) for name in ("images-idx3", "labels-idx1")
    )
    return np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28), np.frombuffer(labels, np.uint8, offset=8)


def write(folder: Path, numbers: Sequence[int], images: np.ndarray, labels: np.ndarray) -> None:
    """Writes images into the folders of their classes, named by their numbers."""
    for number, image, label in zip(numbers, images, labels, strict=True):
        Image.fromarray(image).save(folder / NAMES[label] / f"{number:05}.png")


def main() -> None:
    """Writes `train` and `val`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="SOURCE")
    parser.add_argument("target", type=Path, metavar="TARGET")
    args = parser.parse_args()
    with ProcessPoolExecutor() as pool:
        for kind, split in (("train", "train"), ("t10k", "val")):
            images, labels = read(args.source, kind)
            for name in NAMES:
                (args.target / split / name).mkdir(parents=True, exist_ok=True)
            parts = [range(len(images))[k::_JOBS] for k in range(_JOBS)]
            jobs = [
                pool.submit(write, args.target / split, part, images[part.start :: _JOBS], labels[part.start :: _JOBS])
                for part in parts
            ]
            for job in jobs:
                job.result()


if __name__ == "__main__":
    main()
