"""The answers of a model to pictures: prepared one by one, computed together."""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from paca_jax import data, explain
from paca_jax.checkpoints.loading import Loaded
from paca_jax.errors import UserError, check
from paca_jax.models import Detector, Segmentor
from paca_jax.serve.limits import Limits, RefusedError
from paca_jax.serve.upload import decode_upload
from paca_jax.tasks.classification.prediction import classify_images
from paca_jax.tasks.detection.prediction import detect_in_views
from paca_jax.tasks.prediction import area_entries, class_entries, known_class_names, make_predictor, object_entries
from paca_jax.tasks.segmentation.prediction import segment_views
from paca_jax.tasks.segmentation.views import Viewing

# Compiled programs beyond this number are forgotten, so that pictures of ever new shapes do not fill the memory.
MOST_PROGRAMS = 64
# The pixels of the pictures whose label maps are computed together.
_MOST_PIXELS = 1 << 24


class View(NamedTuple):
    """What the model sees of a picture.

    Attributes:
        arrays: by name.
        group: pictures of one group can be computed together.
        most: the largest number of pictures that are.
    """

    arrays: dict[str, np.ndarray]
    group: Hashable
    most: int


class Answering:
    """The answers of a classifier; those of other models are subclasses.

    Attributes:
        task: what the model does.
        classes: the names of its classes.
        has_clusters: whether `explore` has something to show.
    """

    task = "classification"

    def __init__(self, loaded: Loaded, limits: Limits, effects: bool) -> None:
        self.name: str = loaded.recipe["name"]
        self.classes = known_class_names(loaded)
        self.has_clusters = "clusters" in make_predictor(loaded).kinds
        self._model: Any = loaded.model
        self._variables, self._limits, self._effects = loaded.variables, limits, effects
        self._channels: int = self._model.config.image_channels
        self._programs = set[Hashable]()

    def prepare(self, content: bytes) -> View:
        """Returns the view of an uploaded picture.

        Raises:
            RefusedError: if it cannot be decoded, or has a shape for which its view would be too large.
        """
        picture = decode_upload(content, self._channels, self._limits)
        with _refusing_shapes():
            return self._view(picture)

    def compute(self, views: list[View]) -> list[Any]:
        """Returns the output for each of several views of one group.

        The batch is padded to a power of two, so that few programs are compiled.

        Raises:
            UserError: if one of them is not finite.
        """
        rows = min(1 << (len(views) - 1).bit_length(), views[0].most)
        padded = [*views, *[views[-1]] * (rows - len(views))]
        self._remember((views[0].group, rows))
        return self._compute({name: np.stack([view.arrays[name] for view in padded]) for name in views[0].arrays})[: len(views)]

    def entries(self, output: Any) -> list[dict[str, Any]]:
        """Returns the entries of an output, as `paca predict` writes them."""
        return class_entries(output, self.classes)

    def explore(self, contents: list[bytes]) -> list[str]:
        """Returns the page of an explorer for each uploaded picture.

        Raises:
            RefusedError: as `prepare`.
            UserError: if an answer is not finite.
        """
        return [self._explore(decode_upload(content, self._channels, self._limits)) for content in contents]

    def warm_up(self) -> None:
        """Compiles the programs for a picture that the model sees without resizing: of a classifier, for all pictures."""
        view = self._view(Image.new("RGB" if self._channels == 3 else "L", self._usual_size()))
        rows = 1
        while rows < 2 * view.most:
            self.compute([view] * min(rows, view.most))
            rows *= 2

    def _explore(self, picture: Image.Image) -> str:
        with _refusing_shapes():
            shape = data.preprocess(picture, self._model).shape
        self._remember(("explorer", shape))
        return explain.explorer(self._model, self._variables, picture, self.classes, effects=self._effects).html

    def _remember(self, program: Hashable) -> None:
        if len(self._programs | {program}) > MOST_PROGRAMS:
            jax.clear_caches()
            self._programs.clear()
        self._programs.add(program)

    def _usual_size(self) -> tuple[int, int]:
        return self._model.config.image_size, self._model.config.image_size

    def _view(self, picture: Image.Image) -> View:
        return View({"image": data.preprocess(picture, self._model)}, None, self._limits.batch_size)

    def _compute(self, arrays: dict[str, np.ndarray]) -> list[Any]:
        return list(classify_images(self._model, self._variables, arrays["image"]))


class _OfWholePictures(Answering):
    def _usual_size(self) -> tuple[int, int]:
        short = self._model.config.short_side
        return min(4 * short // 3, self._model.config.long_side), short


class SegmentationAnswering(_OfWholePictures):
    """The answers of a segmentor."""

    task = "segmentation"

    def entries(self, output: Any) -> list[dict[str, Any]]:
        """Returns the entries of a label map."""
        return area_entries(output, self.classes)

    def mask(self, output: Any) -> bytes:
        """Returns a label map as a PNG file, whose indices are the classes."""
        return explain.mask_png(output, len(self.classes))

    def _view(self, picture: Image.Image) -> View:
        transform = data.eval_transform(self._model.config)
        size = (picture.height, picture.width)
        group = transform.group(size)
        most = max(1, _MOST_PIXELS // int(np.prod(transform.label_shape(group))))
        arrays = transform.view(picture) | {"original_size": np.array(size, np.int32)}
        return View(arrays, group, min(most, self._limits.batch_size))

    def _compute(self, arrays: dict[str, np.ndarray]) -> list[Any]:
        sizes = arrays.pop("original_size")
        transform = data.eval_transform(self._model.config)
        return list(segment_views(self._model, self._variables, arrays, sizes, transform, Viewing()))


class DetectionAnswering(_OfWholePictures):
    """The answers of a detector."""

    task = "detection"

    def entries(self, output: Any) -> list[dict[str, Any]]:
        """Returns the entries of the objects."""
        boxes, scores, labels = (output[name][output["valid"]] for name in ("boxes", "scores", "labels"))
        return object_entries(boxes, scores, labels, self.classes)

    def _view(self, picture: Image.Image) -> View:
        arrays = data.eval_transform(self._model.config).view(picture)
        return View(arrays, arrays["image"].shape, self._limits.batch_size)

    def _compute(self, arrays: dict[str, np.ndarray]) -> list[Any]:
        return list(detect_in_views(self._model, self._variables, arrays))


@contextmanager
def _refusing_shapes() -> Iterator[None]:
    """Refuses a picture that is too large for memory once it is resized."""
    try:
        yield
    except UserError as error:
        raise RefusedError(413, str(error)) from error


def make_answering(loaded: Loaded, limits: Limits, effects: bool) -> Answering:
    """Returns the answers of a model of any task.

    Args:
        loaded: the model.
        limits: the limits of its server.
        effects: whether the pages of explorers have the answers without each cluster.

    Raises:
        UserError: if it has no classes.
    """
    classes = loaded.model.config.num_classes
    check(classes > 0, "Expected a model with a classifier, got one without (num_classes=0). Choose one with classes.")
    kinds: dict[type, type[Answering]] = {Segmentor: SegmentationAnswering, Detector: DetectionAnswering}
    return kinds.get(type(loaded.model), Answering)(loaded, limits, effects)
