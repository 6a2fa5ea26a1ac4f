"""Draws the pictures of clusters of the documentation, from two trained models and their test images.

    make demo                                                        # runs/fashion_mnist
    python -m scripts.run_notebooks notebooks/segmentation.ipynb     # runs/datasets and runs/segmentation
    python -m scripts.draw_clusters runs docs

RUNS is the folder with `fashion_mnist`, `segmentation` and `datasets`. OUTPUT_FOLDER receives `clusters.png` and
`clusters_scenes.png`. The test images are spread evenly over the test set, not chosen by their looks.
"""

from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
from PIL import Image

import paca_jax
from paca_jax import data, explain
from paca_jax.command_line import Parser, command_line
from paca_jax.files import write_file

SHIPPED = Path(__file__).resolve().parent.parent / "datasets"
GARMENTS, SCENES = 3, 2  # the number of images


def draw(runs: Path, output: Path) -> Iterator[Path]:
    """Writes the pictures, and yields their paths."""
    model, variables = paca_jax.load(runs / "fashion_mnist")
    garments = data.open_dataset("fashion_mnist_small", "test", str(SHIPPED))
    examples = [garments[index] for index in _spread(len(garments), GARMENTS)]
    pictures = [data.decode_image(example["image"], 3) for example in examples]
    images = jnp.stack([paca_jax.preprocess(picture, model) for picture in pictures])
    labels = [int(example["label"]) for example in examples]
    sheet = explain.cluster_sheet(model, variables, pictures, images, garments.class_names, labels, order="sharpness")
    yield _written(sheet, output / "clusters.png")

    model, variables = paca_jax.load(runs / "segmentation")
    scenes = data.open_dataset("scenes", "test", str(runs / "datasets"), ("image", "mask"))
    pictures = [data.decode_image(scenes[index]["image"], 3) for index in _spread(len(scenes), SCENES)]
    yield _written(explain.sheet(model, variables, pictures, scenes.class_names), output / "clusters_scenes.png")


def _spread(length: int, count: int) -> range:
    return range(0, length, length // count)[:count]


def _written(sheet: Image.Image, path: Path) -> Path:
    write_file(path, explain.to_png(sheet))
    return path


def main() -> None:
    """Runs the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("runs", metavar="RUNS", type=Path)
    parser.add_argument("output", metavar="OUTPUT_FOLDER", type=Path)
    arguments = parser.parse_args()
    with command_line():
        print(*draw(arguments.runs, arguments.output), sep="\n")


if __name__ == "__main__":
    main()
