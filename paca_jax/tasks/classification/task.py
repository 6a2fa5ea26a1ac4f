"""Image classification."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree
from ml_collections import ConfigDict
from PIL import Image

from paca_jax import data, explain, ops
from paca_jax.models import PaCaConfig, PaCaViT
from paca_jax.tasks.base import LossOutput, Task
from paca_jax.tasks.classification.loss import cross_entropy
from paca_jax.tasks.classification.metrics import EvalMetrics

REPORT_EXAMPLES = 5


class Classification(Task):
    """One label per image; the loss is the cross-entropy with smoothed and, if the config asks for it, mixed labels.

    Training batches have `image` (B, S, S, C) uint8, cropped and augmented, `label` (B,) and `valid` (B,).
    """

    best_metric = "accuracy"
    model: PaCaViT
    _report_file = "clusters.png"

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
            features=("image", "label"),
            model_kind=PaCaConfig,
            model_example="a classifier such as 'pacavit_nano'",
            model_options={"image_size": config.image_size, "crop": config.eval_crop, **model_overrides},
        )
        augment, channels = config.augment, self.model.config.image_channels
        self.image_shape = (config.image_size, config.image_size, channels)
        self.example = {
            "image": jax.ShapeDtypeStruct(self.image_shape, jnp.uint8),
            "label": jax.ShapeDtypeStruct((), jnp.int32),
            "valid": jax.ShapeDtypeStruct((), jnp.float32),
        }
        self._train_transform = data.TrainTransform(
            config.image_size,
            channels,
            crop_scale=tuple(augment.crop_scale),
            crop_ratio=tuple(augment.crop_ratio),
            flip=augment.flip,
            color_jitter=augment.color_jitter,
            rand_operations=augment.rand_operations,
            rand_magnitude=augment.rand_magnitude,
            rand_magnitude_std=augment.rand_magnitude_std,
        )
        self._eval_transform = data.eval_transform(self.model.config)

    def augment(self, batch: dict[str, Array], rng: jax.Array) -> dict[str, Array]:
        """Returns `image`, normalized, erased and mixed; `target` (B, K), smoothed and mixed; and `valid`."""
        augment = self._config.augment
        images = ops.normalize(batch["image"]).astype(self.model.dtype)  # cast first: mixing moves them between devices
        targets = optax.smooth_labels(jax.nn.one_hot(batch["label"], len(self.class_names)), self._config.label_smoothing)
        erase_rng, mix_rng = jax.random.split(rng)
        if augment.erase_probability > 0:
            images = ops.random_erasing(erase_rng, images, augment.erase_probability)
        if augment.mixup_alpha > 0 or augment.cutmix_alpha > 0:
            images, targets = ops.mix(
                mix_rng,
                images,
                targets,
                batch["valid"],
                mixup_alpha=augment.mixup_alpha,
                cutmix_alpha=augment.cutmix_alpha,
                switch_probability=augment.cutmix_probability,
                group=augment.mix_group,
            )
        return {"image": images, "target": targets, "valid": batch["valid"]}

    def loss(self, variables: dict[str, PyTree], batch: dict[str, Array], rng: jax.Array) -> LossOutput:
        """Returns the cross-entropy of an augmented batch, and its accuracy."""
        return cross_entropy(self.model, variables, batch, rng, train=not self._config.freeze_backbone)

    def evaluate(self, variables: dict[str, PyTree], batch: dict[str, Array]) -> EvalMetrics:
        """Returns the loss and accuracy of a batch."""
        logits = jnp.asarray(self.model.apply(variables, ops.normalize(batch["image"])))
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        correct = jnp.argmax(logits, -1) == batch["label"]
        return EvalMetrics.single_from_model_output(loss=losses, correct=correct, mask=batch["valid"])

    def summarize(self, total: EvalMetrics) -> dict[str, float]:
        """Returns the metrics over the evaluation set, and logs which classes it has no image of, as far as that is known."""
        absent, count = self._eval_set.unseen_classes(), len(self.class_names)
        if absent:
            self._log_once(
                f"Accuracy is over the images of {count - len(absent)} of {count} classes. The evaluation set has none of "
                f"{data.counted_names(absent, count)}."
            )
        found = super().summarize(total)
        self._check_finite(math.isfinite(found["loss"]))
        return found

    def _draw_report(self, variables: dict[str, PyTree]) -> Image.Image:
        """Returns a sheet of evaluation images, the classes that the model predicts, and its strongest clusters."""
        examples = [self._eval_set[i] for i in self._report_examples(REPORT_EXAMPLES)]
        pictures = [data.decode_image(example["image"], self.image_shape[-1]) for example in examples]
        return explain.cluster_sheet(
            self.model,
            variables,
            pictures,
            jnp.stack([data.preprocess(picture, self.model) for picture in pictures]),
            self.class_names,
            labels=[example["label"] for example in examples],
            order="sharpness",  # by effect, each image would take an answer without each cluster
        )
