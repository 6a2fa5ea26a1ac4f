"""Builds datasets/fashion_mnist_small from the original IDX files of Fashion-MNIST.

    python -m scripts.build_fashion_mnist IDX_FOLDER OUTPUT_FOLDER

IDX_FOLDER holds the four original files (`train-images-idx3-ubyte.gz`, ...); OUTPUT_FOLDER is the TFDS data folder that
receives `fashion_mnist_small/1.0.0` (the repository's own is `datasets`). The same input gives the same bytes on every run.
"""

import gzip
import io
import math
import os
import tempfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from paca_jax.command_line import Parser, command_line
from paca_jax.errors import UserError

NAME, VERSION, SEED = "fashion_mnist_small", "1.0.0", 0
PER_CLASS = {"train": 1200, "test": 200}
SHARDS = {"train": 4, "test": 1}  # so that no file exceeds 2 MiB
FILES = {"train": "train", "test": "t10k"}
CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
DESCRIPTION = (
    "12,000 training and 2,000 test images of Fashion-MNIST (Zalando SE, MIT license): 1,200 and 200 of each class, drawn at "
    "random from the official splits; `index` is the image's place in its official split."
)
CITATION = """@article{xiao2017fashion,
  title={Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms},
  author={Xiao, Han and Rasul, Kashif and Vollgraf, Roland},
  journal={arXiv:1708.07747},
  year={2017}
}"""


def read_idx(path: Path) -> np.ndarray:
    """Reads one gzipped IDX file of bytes.

    Args:
        path: the `.gz` file.

    Returns:
        A uint8 array of the shape in the file's header.

    Raises:
        UserError: the file is missing, or is not an IDX file of unsigned bytes of the length in its header.
    """
    if not path.is_file():
        raise UserError(f"Expected the original Fashion-MNIST file {path.name} in {path.parent}, found none. Put it there.")
    try:
        data = gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error):
        data = b""
    axes = data[3] if data[:3] == b"\0\0\x08" else 0
    start = 4 + 4 * axes
    shape = tuple(int.from_bytes(data[place : place + 4], "big") for place in range(4, start, 4))
    if axes == 0 or len(data) != start + math.prod(shape):
        raise UserError(f"Expected a gzipped IDX file of bytes, {path} is none or is cut short. Download it again.")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def read_split(source: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images (N, 28, 28) and labels (N,) of an official split, "train" or "test".

    Raises:
        UserError: if a file is missing, damaged, or has other contents than these.
    """
    images, labels = (read_idx(source / f"{FILES[split]}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    if images.shape[1:] != (28, 28) or labels.shape != images.shape[:1] or labels.max(initial=0) >= len(CLASSES):
        raise UserError(
            f"Expected images of 28 x 28 pixels with a label each in {source}, got arrays of shapes {images.shape} and "
            f"{labels.shape} with labels up to {labels.max(initial=0)}. Download them again."
        )
    return images, labels


def png(image: np.ndarray) -> bytes:
    """Returns a (28, 28) uint8 image as the smallest PNG that Pillow can make."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def choose(labels: np.ndarray, per_class: int, rng: np.random.Generator) -> np.ndarray:
    """Returns the indices of `per_class` random examples of each label, in random order."""
    chosen = [rng.choice(np.flatnonzero(labels == c), per_class, replace=False) for c in range(len(CLASSES))]
    return rng.permutation(np.concatenate(chosen))


def write_split(source: Path, folder: Path, split: str) -> tuple[list[int], int]:
    """Writes the ArrayRecord files of one split.

    Args:
        source: the folder of the original IDX files.
        folder: the folder to write into.
        split: "train" or "test".

    Returns:
        The number of examples in each file, and the total number of bytes of the examples.
    """
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.proto import tf_example_pb2

    images, labels = read_split(source, split)
    lengths, size = [], 0
    shards = np.array_split(choose(labels, PER_CLASS[split], np.random.default_rng(SEED)), SHARDS[split])
    for number, indices in enumerate(shards):
        file = folder / f"{NAME}-{split}.array_record-{number:05d}-of-{len(shards):05d}"
        writer = ArrayRecordWriter(str(file), "group_size:1")
        for index in indices.tolist():
            example = tf_example_pb2.Example()
            example.features.feature["image"].bytes_list.value.append(png(images[index]))
            example.features.feature["label"].int64_list.value.append(int(labels[index]))
            example.features.feature["index"].int64_list.value.append(index)
            record = example.SerializeToString(deterministic=True)
            writer.write(record)
            size += len(record)
        writer.close()
        lengths.append(len(indices))
    return lengths, size


def build(source: Path, output: Path) -> Path:
    """Writes the data set.

    Args:
        source: the folder of the original IDX files.
        output: the TFDS data folder to write into.

    Returns:
        The new version folder.

    Raises:
        UserError: a file is missing or damaged, or the version folder exists already.
    """
    import tensorflow_datasets as tfds

    target = output / NAME / VERSION
    if target.exists():
        raise UserError(f"Expected no data set at {target}, found one. Delete it or choose another output folder.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="incomplete.") as temporary:
        folder = Path(temporary) / VERSION
        folder.mkdir()
        splits = []
        for split in FILES:
            lengths, size = write_split(source, folder, split)
            template = tfds.core.ShardedFileTemplate(
                dataset_name=NAME, data_dir=folder, split=split, filetype_suffix="array_record"
            )
            splits.append(tfds.core.SplitInfo(split, lengths, size, template))
        tfds.folder_dataset.write_metadata(
            data_dir=folder,
            features={
                "image": tfds.features.Image(shape=(28, 28, 1), encoding_format="png"),
                "label": tfds.features.ClassLabel(names=list(CLASSES)),
                "index": tfds.features.Scalar(np.int64),
            },
            split_infos=splits,
            version=VERSION,
            check_data=False,
            description=DESCRIPTION,
            homepage="https://github.com/zalandoresearch/fashion-mnist",
            citation=CITATION,
        )
        os.replace(folder, target)
    return target


def main() -> None:
    """Runs the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    with command_line():
        print(build(arguments.source, arguments.output))


if __name__ == "__main__":
    main()
