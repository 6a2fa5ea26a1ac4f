"""Semantic segmentation: a class for every pixel."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from jaxtyping import Array, PyTree
from ml_collections import ConfigDict

from paca_jax import data, explain, ops
from paca_jax.models import SegmentorConfig
from paca_jax.tasks.base import LossOutput, Mergeable, OnDataset
from paca_jax.tasks.segmentation.loss import segmentation_loss
from paca_jax.tasks.segmentation.metrics import SegmentationMetrics, confusion_matrix
from paca_jax.tasks.segmentation.prediction import predict, predict_picture
from paca_jax.tasks.segmentation.views import Viewing

PICTURE_EXAMPLES = 6


class Segmentation(OnDataset, Mergeable):
    """A class for every pixel; see `segmentation_loss` and `SegmentationMetrics`."""

    best_metric = "miou"

    def __init__(self, config: ConfigDict, model_overrides: dict[str, Any], without_data: bool) -> None:
        """Opens the data set and makes the model.

        Args:
            config: the run's config.
            model_overrides: the options of the model that the config sets.
            without_data: whether a published data set need not be there; then there are no batches.
        """
        dataset = config.dataset
        super().__init__(config, ("image", dataset.mask_feature), without_data)
        options = {"short_side": config.short_side, "long_side": config.long_side, **model_overrides}
        self.model = self._make_model(SegmentorConfig, "a segmentor such as 'pacahead_tiny'", options)
        channels = self.model.config.image_channels
        self.image_shape = (config.image_size, config.image_size, channels)
        self.example = {
            "image": jax.ShapeDtypeStruct(self.image_shape, jnp.uint8),
            "label": jax.ShapeDtypeStruct(self.image_shape[:2], jnp.uint8),
            "valid": jax.ShapeDtypeStruct((), jnp.float32),
        }
        test = config.test
        self._viewing = Viewing(test.flip, test.window, test.window_stride)
        common = {
            "num_classes": len(self.class_names),
            "channels": channels,
            "short_side": config.short_side,
            "long_side": config.long_side,
            "ignore_zero": data.zero_is_unlabeled(dataset.name) if dataset.ignore_zero is None else dataset.ignore_zero,
            "mask_feature": dataset.mask_feature,
        }
        self._train_transform = data.SegmentationTrainTransform(
            config.image_size,
            resize_range=tuple(config.augment.resize_range),
            category_limit=config.augment.category_limit,
            flip=config.augment.flip,
            photometric=config.augment.photometric,
            **common,
        )
        self._eval_transform = data.SegmentationEvalTransform(
            scales=tuple(test.scales), size_multiple=test.size_multiple, **common
        )

    def train_batches(self, start_step: int, num_steps: int, rows: Sequence[int]) -> data.Batches:
        """Yields batches of `image` (B, S, S, C) and `label` (B, S, S), uint8, cropped and so on, and `valid` (B,)."""
        return data.train_batches(
            self._train_set,
            self._train_transform,
            seed=self._config.seed,
            start_step=start_step,
            num_steps=num_steps,
            **self._reading(rows),
        )

    def eval_batches(self, rows: Sequence[int]) -> data.Batches:
        """Yields batches of the evaluation set, each of pictures that are padded to the same shapes."""
        return data.eval_batches(self._eval_set, self._eval_transform, groups=self._groups, **self._reading(rows))

    @functools.cached_property
    def _groups(self) -> list[Any]:
        sizes = data.image_sizes(self._eval_set)
        return [None if size is None else self._eval_transform.group(size) for size in sizes]

    def augment(self, batch: dict[str, Array], rng: jax.Array) -> dict[str, Array]:
        """Returns the batch with its images normalized; the rest was done on the host."""
        del rng
        return batch | {"image": ops.normalize(batch["image"])}

    def loss(self, variables: dict[str, PyTree], batch: dict[str, Array], rng: jax.Array) -> LossOutput:
        """Returns the summed cross-entropies, and the number of pixels whose likeliest class is theirs."""
        return segmentation_loss(self.model, variables, batch, rng, train_backbone=not self._config.freeze_backbone)

    def evaluate(self, variables: dict[str, PyTree], batch: dict[str, Array]) -> SegmentationMetrics:
        """Returns the counts of a batch's pixels by true and predicted class."""
        label = batch["label"]
        found = predict(self.model, variables, batch, batch["label_size"], (label.shape[1], label.shape[2]), self._viewing)
        counts = (label != data.IGNORED) & (batch["valid"] > 0)[:, None, None]
        confusion = confusion_matrix(label, found, counts, len(self.class_names))
        return SegmentationMetrics.single_from_model_output(confusion=confusion)

    def report(self, variables: dict[str, PyTree], workdir: epath.Path, remake: bool) -> list[epath.Path]:
        """Writes `segments.png`: evaluation images, what the model makes of them, and the truth."""
        path = workdir / "segments.png"
        if remake or not path.exists():
            chosen = self._pictured(PICTURE_EXAMPLES)
            rows = [row for row in (self._drawn(variables, index) for index in chosen) if row is not None]
            path.write_bytes(explain.to_png(explain.segment_sheet(rows, self.class_names)))
        return [path]

    def _drawn(self, variables: dict[str, PyTree], index: int) -> explain.Segments | None:
        """An example as the report shows it; None where it cannot be decoded, which an evaluation may have left out."""
        example = self._eval_set[index]
        try:
            picture = data.decode_image(example["image"], self.image_shape[-1])
            truth = self._eval_transform(example)["label"]
        except data.ImageError:
            return None
        found = predict_picture(self.model, variables, picture, self._eval_transform, self._viewing)
        return explain.Segments(picture, found, truth[: found.shape[0], : found.shape[1]])
