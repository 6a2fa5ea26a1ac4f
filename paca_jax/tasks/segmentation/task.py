"""Semantic segmentation: a class for every pixel."""

import functools
from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree
from ml_collections import ConfigDict
from PIL import Image

from paca_jax import data, explain, ops
from paca_jax.errors import UserError, check
from paca_jax.models import Segmentor, SegmentorConfig
from paca_jax.tasks.base import LossOutput, Task
from paca_jax.tasks.segmentation.loss import segmentation_loss
from paca_jax.tasks.segmentation.metrics import SegmentationMetrics, confusion_matrix
from paca_jax.tasks.segmentation.prediction import segment, segment_picture
from paca_jax.tasks.segmentation.views import Viewing

REPORT_EXAMPLES = 6


class Segmentation(Task):
    """A class for every pixel; see `segmentation_loss` and `SegmentationMetrics`.

    Training batches have `image` (B, S, S, C) and `label` (B, S, S), uint8, cropped and augmented, and `valid` (B,). The
    pictures of an evaluation batch are padded to the same shapes.
    """

    best_metric = "miou"
    model: Segmentor
    _report_file = "segments.png"

    def __init__(self, config: ConfigDict, model_overrides: dict[str, Any], without_data: bool) -> None:
        """Opens the data set and makes the model.

        Args:
            config: the config of the run.
            model_overrides: the options of the model that the config sets.
            without_data: whether a published data set may be missing; then there are no batches.
        """
        dataset, test = config.dataset, config.test
        super().__init__(
            config,
            without_data,
            features=("image", dataset.mask_feature),
            model_kind=SegmentorConfig,
            model_example="a segmentor such as 'pacahead_tiny'",
            model_options={"short_side": config.short_side, "long_side": config.long_side, **model_overrides},
        )
        check(
            len(self.class_names) > 1,
            f"Expected two or more classes to tell apart, got {', '.join(self.class_names)!r} alone. Name the background as a "
            "class, too.",
        )
        channels = self.model.config.image_channels
        self.image_shape = (config.image_size, config.image_size, channels)
        self.example = {
            "image": jax.ShapeDtypeStruct(self.image_shape, jnp.uint8),
            "label": jax.ShapeDtypeStruct(self.image_shape[:2], jnp.uint8),
            "valid": jax.ShapeDtypeStruct((), jnp.float32),
        }
        self._viewing = Viewing(test.flip, test.window, test.window_stride)
        ignore_zero = data.zero_is_unlabeled(dataset.name) if dataset.ignore_zero is None else dataset.ignore_zero
        label_options = {"ignore_zero": ignore_zero, "mask_feature": dataset.mask_feature}
        self._train_transform = data.SegmentationTrainTransform(
            config.image_size,
            len(self.class_names),
            channels,
            config.short_side,
            config.long_side,
            resize_range=tuple(config.augment.resize_range),
            category_limit=config.augment.category_limit,
            flip=config.augment.flip,
            photometric=config.augment.photometric,
            **label_options,
        )
        self._eval_transform = data.eval_transform(
            self.model.config, scales=tuple(test.scales), size_multiple=test.size_multiple, **label_options
        )

    @functools.cached_property
    def _eval_groups(self) -> list[Hashable]:
        sizes = data.image_sizes(self._eval_set)
        return [None if size is None else self._eval_group(index, size) for index, size in enumerate(sizes)]

    def _eval_group(self, index: int, size: tuple[int, int]) -> Hashable:
        try:
            return self._eval_transform.group(size)
        except UserError as error:
            raise UserError(f"{self._eval_set.where(index)}: {error}") from error

    def augment(self, batch: dict[str, Array], rng: jax.Array) -> dict[str, Array]:
        """Returns the batch with normalized images; all else was done on the host."""
        del rng
        return batch | {"image": ops.normalize(batch["image"])}

    def loss(self, variables: dict[str, PyTree], batch: dict[str, Array], rng: jax.Array) -> LossOutput:
        """Returns the cross-entropy of an augmented batch, and its pixel accuracy."""
        return segmentation_loss(self.model, variables, batch, rng, train_backbone=not self._config.freeze_backbone)

    def evaluate(self, variables: dict[str, PyTree], batch: dict[str, Array]) -> SegmentationMetrics:
        """Returns the confusion matrix of the pixels of a batch."""
        label, sizes = batch["label"], batch["label_size"]
        found = segment(self.model, variables, batch, sizes, (label.shape[1], label.shape[2]), self._viewing)
        valid = batch["valid"] > 0
        nonfinite = found[:, 0, 0] == data.IGNORED
        counted = (label != data.IGNORED) & (valid & ~nonfinite)[:, None, None]
        confusion = confusion_matrix(label, found, counted, len(self.class_names))
        ignored = jnp.sum(jnp.where(valid, sizes[:, 0] * sizes[:, 1], 0)) - jnp.sum(counted)
        return SegmentationMetrics.single_from_model_output(
            confusion=confusion, ignored=ignored, nonfinite=nonfinite, mask=batch["valid"]
        )

    def summarize(self, total: SegmentationMetrics) -> dict[str, float]:
        """Returns the metrics over the evaluation set, and logs which classes they leave out."""
        found, names = super().summarize(total), self.class_names
        self._check_finite(found.pop("nonfinite_fraction") == 0)
        count = len(names)
        _, true, _ = total.miou.parts()
        absent = [name for name, pixels in zip(names, true, strict=True) if pixels == 0]
        if absent:
            is_likely = len(absent) == 1 and found["ignored_fraction"] > 0 and not self._eval_transform.ignore_zero
            cause = f" {data.likely_cause(absent, names, ignore_zero=False)}" if is_likely else ""
            self._log_once(
                f"mIoU is over {found['classes_counted']:.0f} of {count} classes, mean accuracy over {count - len(absent)}. "
                f"No pixel of the evaluation set is of {data.counted_names(absent, count)}.{cause}"
            )
        return found

    def _draw_report(self, variables: dict[str, PyTree]) -> Image.Image:
        """Returns a sheet of evaluation images, their predicted classes, and the true ones."""
        drawn = (self._segments(variables, index) for index in self._report_examples(REPORT_EXAMPLES))
        return explain.segment_sheet([row for row in drawn if row is not None], self.class_names)

    def _segments(self, variables: dict[str, PyTree], index: int) -> explain.Segments | None:
        """Returns a row of the report; None if the example cannot be decoded, which `skip_corrupt` allows."""
        example = self._eval_set[index]
        try:
            picture = data.decode_image(example["image"], self.image_shape[-1])
            truth = self._eval_transform(example)["label"]
        except data.ImageError:
            return None
        found = segment_picture(self.model, variables, picture, self._eval_transform, self._viewing)
        return explain.Segments(picture, found, truth[: found.shape[0], : found.shape[1]])
