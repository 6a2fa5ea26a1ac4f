"""The TFDS builder of the data set `scenes`.

It imports TensorFlow Datasets, so it is imported only to prepare the data set.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from paca_jax.data.codecs.images import decode_image
from paca_jax.data.scenes.compose import Garment, Scene, compose
from paca_jax.data.sources.dataset import Dataset, quoted
from paca_jax.data.sources.registry import open_dataset
from paca_jax.errors import UserError
from paca_jax.paths import shipped

SOURCE = shipped("datasets")
SCENES = {"train": 6000, "test": 300}
GARMENTS = "fashion_mnist_small"
BACKGROUND = "background"
_SEEDS = {"train": 0, "test": 1}
_QUALITY = 90
_DESCRIPTION = (
    "Faded photographs with two to four garments of Fashion-MNIST on them, scaled, turned, tinted and partly covering each "
    "other. `mask` has the class of every pixel (0 where there is only photograph), `instances` the number of its object in "
    "the order of painting, `objects` the visible part of each object: its box, class, number (`id`), pixels (`area`) and "
    "which garment it is (its place in the same split of fashion_mnist_small). Train and test share neither garments nor "
    "photographs."
)


class Sources(NamedTuple):
    """The materials of the scenes of a split.

    Attributes:
        garments: images of clothing.
        class_names: the names of their classes.
        photographs: RGB pixels, by name.
    """

    garments: Sequence[Garment]
    class_names: tuple[str, ...]
    photographs: dict[str, np.ndarray]


class Scenes(tfds.core.GeneratorBasedBuilder):
    """The builder of `scenes`. A scene depends only on its split and its number, not on the number of scenes."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "The first."}  # noqa: RUF012  TFDS reads it from the class

    def __init__(self, *, source: Path = SOURCE, scenes: Mapping[str, int] = SCENES, **options: Any) -> None:
        """Opens the sources.

        Args:
            source: the folder that holds `fashion_mnist_small` and `photographs`.
            scenes: the number of scenes in "train" and "test".
            **options: options of TFDS's builders, such as `data_dir`.

        Raises:
            UserError: garments or photographs are missing.
        """
        self._scenes = scenes
        self._sources = {split: read_sources(source, split) for split in SCENES}
        super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        names = self._sources["train"].class_names
        thing = {
            "bbox": tfds.features.BBoxFeature(),
            "label": tfds.features.ClassLabel(names=names),
            "id": tfds.features.Scalar(np.int64),
            "area": tfds.features.Scalar(np.int64),
            "garment": tfds.features.Scalar(np.int64),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                    "mask": tfds.features.LabeledImage(
                        labels=[BACKGROUND, *names], shape=(None, None, 1), encoding_format="png"
                    ),
                    "instances": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
                    "objects": tfds.features.Sequence(thing),
                    "photograph": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "mask"),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {split: self._generate_examples(split) for split in SCENES}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        garments, _, photographs = self._sources[split]
        for number in range(self._scenes[split]):
            yield number, encode(compose(np.random.default_rng([_SEEDS[split], number]), photographs, garments))


def read_sources(source: Path, split: str) -> Sources:
    """Opens the garments and reads the photographs of a split.

    Args:
        source: the folder that holds `fashion_mnist_small` and `photographs`.
        split: "train" or "test".

    Raises:
        UserError: one of them is missing.
    """
    files = sorted((source / "photographs" / split).glob("*.jpg"))
    there = {GARMENTS: (source / GARMENTS).is_dir(), f"photographs/{split}": bool(files)}
    if not all(there.values()):
        raise UserError(
            f"Expected the materials of scenes in {source}, missing {quoted(name for name in there if not there[name])}. "
            "They come with the repository, not with the installed package: prepare the data set in a checkout."
        )
    garments = open_dataset(GARMENTS, split, str(source))
    return Sources(
        garments=_Garments(garments),
        class_names=garments.class_names,
        photographs={file.stem: np.asarray(decode_image(file.read_bytes(), 3)) for file in files},
    )


def encode(scene: Scene) -> dict[str, Any]:
    """Returns a scene in the form that TFDS takes, with encoded pictures."""
    height, width, _ = scene.image.shape
    mask, instances = np.zeros((2, height, width), np.uint8)
    objects = []
    for number, thing in enumerate(scene.objects, 1):
        mask[thing.visible] = thing.label + 1
        instances[thing.visible] = number
        rows, columns = np.flatnonzero(thing.visible.any(1)), np.flatnonzero(thing.visible.any(0))
        objects.append(
            {
                "bbox": tfds.features.BBox(
                    ymin=rows[0] / height,
                    xmin=columns[0] / width,
                    ymax=(rows[-1] + 1) / height,
                    xmax=(columns[-1] + 1) / width,
                ),
                "label": thing.label,
                "id": number,
                "area": int(thing.visible.sum()),
                "garment": thing.garment,
            }
        )
    return {
        "image": _encoded(scene.image, "JPEG", quality=_QUALITY),
        "mask": _encoded(mask, "PNG", optimize=True),
        "instances": _encoded(instances, "PNG", optimize=True),
        "objects": objects,
        "photograph": scene.photograph,
    }


class _Garments(Sequence[Garment]):
    """The images of a data set, decoded on access."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: Any) -> Any:
        example = self._dataset[index]
        return Garment(np.asarray(decode_image(example["image"], 1)), example["label"])


def _encoded(pixels: np.ndarray, file_format: str, **options: Any) -> io.BytesIO:
    """Returns an encoded image as an open file, the form in which TFDS takes it."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, file_format, **options)
    buffer.seek(0)
    return buffer
