"""Object detection and instance segmentation."""

import functools
import math
from collections.abc import Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree
from ml_collections import ConfigDict
from PIL import Image

from paca_jax import data, explain, ops
from paca_jax.data.sources.dataset import quoted
from paca_jax.errors import UserError
from paca_jax.models import Detector, DetectorConfig
from paca_jax.sharding import gather_bytes, host_rows
from paca_jax.tasks.base import LossOutput, Task
from paca_jax.tasks.detection.loss import detection_loss
from paca_jax.tasks.detection.metrics import Collected, absent_classes, evaluate
from paca_jax.tasks.detection.prediction import detect, example_to_draw, to_detections

REPORT_EXAMPLES = 6


class Detection(Task):
    """Boxes, classes and masks of objects; see `detection_loss` and `detection.metrics`.

    A training batch has one of a few shapes; those of `example` are the largest images, with up to 32 objects. The pictures of
    an evaluation batch are padded to the same shape.
    """

    best_metric = "box_ap"
    outputs_by_example = True
    model: Detector
    _report_file = "detections.png"

    def __init__(self, config: ConfigDict, model_overrides: dict[str, Any], without_data: bool) -> None:
        """Opens the data set and makes the model.

        Args:
            config: the config of the run.
            model_overrides: the options of the model that the config sets.
            without_data: whether a published data set may be missing; then there are no batches.
        """
        super().__init__(
            config,
            without_data,
            features=("image", "boxes" if config.dataset.boxes_only else "objects"),
            model_kind=DetectorConfig,
            model_example="a detector such as 'mask_rcnn_tiny'",
            model_options={"short_side": config.short_side, "long_side": config.long_side, **model_overrides},
        )
        _check_same_classes(self._train_set.class_names, self._eval_set.class_names)
        augment, channels = config.augment, self.model.config.image_channels
        self._train_transform = data.DetectionTrainTransform(
            tuple(augment.short_sides),
            config.long_side,
            tuple(augment.bucket_sides),
            crop=data.DETR_CROP if augment.detr_crop else None,
            flip=augment.flip,
            channels=channels,
        )
        self._eval_transform = data.eval_transform(self.model.config)
        height, width = self._train_transform.padded_shapes[-1]
        objects = data.object_rows(1)
        self.image_shape = (height, width, channels)
        self.example = {
            "image": jax.ShapeDtypeStruct(self.image_shape, jnp.uint8),
            "size": jax.ShapeDtypeStruct((2,), jnp.int32),
            "boxes": jax.ShapeDtypeStruct((objects, 4), jnp.float32),
            "labels": jax.ShapeDtypeStruct((objects,), jnp.int32),
            "object_valid": jax.ShapeDtypeStruct((objects,), jnp.bool_),
            "masks": jax.ShapeDtypeStruct((objects, height, width // 8), jnp.uint8),
            "valid": jax.ShapeDtypeStruct((), jnp.float32),
        }

    @functools.cached_property
    def _train_shapes(self) -> data.DetectionShapes:
        return data.DetectionShapes.of(self._train_transform, self._train_set)

    @functools.cached_property
    def _eval_groups(self) -> list[Hashable]:
        return [self._eval_transform.group((height, width)) for height, width in self._eval_set.sizes.tolist()]

    def augment(self, batch: dict[str, Array], rng: jax.Array) -> dict[str, Array]:
        """Returns the batch with normalized images and unpacked masks (`bitmaps`); all else was done on the host."""
        del rng
        images = ops.normalize_inside(batch["image"], batch["size"])
        return batch | {"image": images, "bitmaps": data.unpack_masks(batch["masks"])}

    def loss(self, variables: dict[str, PyTree], batch: dict[str, Array], rng: jax.Array) -> LossOutput:
        """Returns the sum of the five losses of Mask R-CNN."""
        return detection_loss(self.model, variables, batch, rng, train=not self._config.freeze_backbone)

    def evaluate(self, variables: dict[str, PyTree], batch: dict[str, Array]) -> dict[str, Array]:
        """Returns the detections in a batch, in pixels of the original pictures, and the indices of the pictures."""
        found = detect(self.model, variables, batch["image"], batch["size"], batch["original_size"])
        return found | {"index": jnp.where(batch["valid"] > 0, batch["image_index"], -1)}

    def gather(self, total: Collected | None, outputs: dict[str, Array]) -> Collected:
        """Adds the detections of those pictures of a batch that this process holds."""
        total = Collected() if total is None else total
        local = {name: host_rows(array) for name, array in outputs.items()}
        for row, index in enumerate(local["index"].tolist()):
            if index >= 0:
                total[index] = to_detections({name: array[row] for name, array in local.items()})
                total.finite &= bool(local["finite"][row])
        return total

    def summarize(self, total: Collected) -> dict[str, float]:
        """Returns COCO's numbers over the pictures of all processes, and how many classes box AP is over."""
        merged = Collected.merged(gather_bytes(total.to_bytes()))
        self._check_finite(merged.finite)
        numbers = evaluate(self._eval_set, merged)
        absent, count = self._absent_classes, len(self.class_names)
        for kind, names in absent.items():
            if names:
                self._log_once(
                    f"{kind.capitalize()} AP is over {count - len(names)} of {count} classes. The evaluation set shows no "
                    f"{kind} of {data.counted_names(names, count)}."
                )
        if without := [name for name, value in numbers.items() if math.isnan(value)]:
            self._log_once(
                f"No value (nan, null in JSON) for {', '.join(without)}: the evaluation set shows no objects that these count. "
                "Small ones have an area below 32 x 32 pixels, large ones one above 96 x 96."
            )
        return numbers | {"classes_counted": float(count - len(absent["box"]))}

    @functools.cached_property
    def _absent_classes(self) -> dict[str, tuple[str, ...]]:
        return absent_classes(self._eval_set)

    def _draw_report(self, variables: dict[str, PyTree]) -> Image.Image:
        """Returns a sheet of evaluation images, the objects that the model finds in them, and the true ones."""
        chosen = self._report_examples(REPORT_EXAMPLES)
        drawn = (example_to_draw(self.model, variables, self._eval_set[i], self._eval_transform) for i in chosen)
        return explain.detection_sheet([row for row in drawn if row is not None], self.class_names)


def _check_same_classes(training: Sequence[str], evaluation: Sequence[str]) -> None:
    """Raises an error unless both splits number their classes alike: COCO files each have a list of their own."""
    if tuple(training) != tuple(evaluation):
        alone = sorted(set(training) ^ set(evaluation))
        difference = f"{quoted(alone)} in only one of them" if alone else "the same names in another order"
        raise UserError(
            "Expected the same categories in the training and the evaluation set, in the order of their ids, got "
            f"{difference}. Give both annotation files the same list of categories."
        )
