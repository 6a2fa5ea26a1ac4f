"""Object detection and instance segmentation."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from jaxtyping import Array, PyTree
from ml_collections import ConfigDict

from paca_jax import data, explain, ops
from paca_jax.models import DetectorConfig
from paca_jax.sharding import gather_bytes, host_rows
from paca_jax.tasks.base import LossOutput, OnDataset
from paca_jax.tasks.detection.loss import detection_loss
from paca_jax.tasks.detection.metrics import Collected, evaluate
from paca_jax.tasks.detection.prediction import detect, example_to_draw, in_picture

PICTURE_EXAMPLES = 6


class Detection(OnDataset):
    """Boxes, classes and masks of objects; see `detection_loss` and `detection_metrics`."""

    best_metric = "box_ap"
    outputs_by_example = True

    def __init__(self, config: ConfigDict, model_overrides: dict[str, Any], without_data: bool) -> None:
        """Opens the data set and makes the model.

        Args:
            config: the run's config.
            model_overrides: the options of the model that the config sets.
            without_data: whether a published data set need not be there; then there are no batches.
        """
        super().__init__(config, ("image", "objects"), without_data)
        augment = config.augment
        options = {"short_side": config.short_side, "long_side": config.long_side, **model_overrides}
        self.model = self._make_model(DetectorConfig, "a detector such as 'mask_rcnn_tiny'", options)
        channels = self.model.config.image_channels
        self._train_transform = data.DetectionTrainTransform(
            tuple(augment.short_sides),
            config.long_side,
            tuple(augment.bucket_sides),
            crop=data.DETR_CROP if augment.detr_crop else None,
            flip=augment.flip,
            channels=channels,
        )
        self._eval_transform = data.DetectionEvalTransform(config.short_side, config.long_side, channels)
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

    def train_batches(self, start_step: int, num_steps: int, rows: Sequence[int]) -> data.Batches:
        """Yields batches as `example` tells, each of one of a few shapes; `example` has the largest for 32 objects."""
        return data.train_batches(
            self._train_set,
            self._train_transform,
            seed=self._config.seed,
            start_step=start_step,
            num_steps=num_steps,
            shape_of=data.DetectionShapes.of(self._train_transform, self._train_set),
            **self._reading(rows),
        )

    def eval_batches(self, rows: Sequence[int]) -> data.Batches:
        """Yields batches of the evaluation set, each of pictures that are padded to the same shape."""
        groups = [self._eval_transform.group((height, width)) for height, width in self._eval_set.sizes.tolist()]
        return data.eval_batches(self._eval_set, self._eval_transform, groups=groups, **self._reading(rows))

    def augment(self, batch: dict[str, Array], rng: jax.Array) -> dict[str, Array]:
        """Returns the batch with its images normalized and its masks as `bitmaps`; the rest was done on the host."""
        del rng
        images = ops.normalize_inside(batch["image"], batch["size"])
        return batch | {"image": images, "bitmaps": data.unpack_masks(batch["masks"])}

    def loss(self, variables: dict[str, PyTree], batch: dict[str, Array], rng: jax.Array) -> LossOutput:
        """Returns the five losses of Mask R-CNN, added up."""
        return detection_loss(self.model, variables, batch, rng, train=not self._config.freeze_backbone)

    def evaluate(self, variables: dict[str, PyTree], batch: dict[str, Array]) -> dict[str, Array]:
        """Returns the detections in a batch, in pixels of the original pictures, and which pictures they are."""
        found = detect(self.model, variables, batch["image"], batch["size"], batch["original_size"])
        return found | {"index": jnp.where(batch["valid"] > 0, batch["image_index"], -1)}

    def gather(self, total: Collected | None, outputs: dict[str, Array]) -> Collected:
        """Adds what was found in the pictures of a batch that this process holds."""
        total = Collected() if total is None else total
        local = {name: host_rows(array) for name, array in outputs.items()}
        for row, index in enumerate(local["index"].tolist()):
            if index >= 0:
                total[index] = in_picture({name: array[row] for name, array in local.items()})
        return total

    def summarize(self, total: Collected) -> dict[str, float]:
        """Returns COCO's numbers over all processes' pictures."""
        return evaluate(self._eval_set, Collected.merged(gather_bytes(total.to_bytes())))

    def report(self, variables: dict[str, PyTree], workdir: epath.Path, remake: bool) -> list[epath.Path]:
        """Writes `detections.png`: evaluation images, what the model finds in them, and the true objects."""
        path = workdir / "detections.png"
        if remake or not path.exists():
            chosen = self._pictured(PICTURE_EXAMPLES)
            drawn = (example_to_draw(self.model, variables, self._eval_set[i], self._eval_transform) for i in chosen)
            rows = [row for row in drawn if row is not None]
            path.write_bytes(explain.to_png(explain.detection_sheet(rows, self.class_names)))
        return [path]
