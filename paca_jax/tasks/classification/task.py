"""Image classification."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from clu import metrics
from etils import epath
from jaxtyping import Array, PyTree
from ml_collections import ConfigDict

from paca_jax import data, explain, ops
from paca_jax.models import PaCaConfig
from paca_jax.tasks.base import LossOutput, Mergeable, OnDataset

PICTURE_EXAMPLES = 8


@flax.struct.dataclass
class EvalMetrics(metrics.Collection):
    """Loss (cross-entropy without smoothing) and top-1 accuracy, over the valid examples."""

    loss: metrics.Average.from_output("loss")  # type: ignore[valid-type]
    accuracy: metrics.Average.from_output("correct")  # type: ignore[valid-type]


def cross_entropy(
    model: nn.Module, variables: dict[str, PyTree], batch: dict[str, Array], rng: jax.Array, train: bool = True
) -> LossOutput:
    """Returns the training loss of a classifier, summed over the valid examples of a batch.

    Args:
        model: from images to logits.
        variables: the model's.
        batch: `image` (B, H, W, C) normalized, `target` (B, K), a distribution over the classes, and `valid` (B,).
        rng: of dropout and stochastic depth.
        train: whether they act, and whether BatchNorm takes the statistics of the batch.
    """
    logits, updates = model.apply(variables, batch["image"], train=train, rngs={"dropout": rng}, mutable=["batch_stats"])
    losses = optax.softmax_cross_entropy(logits, batch["target"])
    valid = batch["valid"]
    correct = jnp.argmax(logits, -1) == jnp.argmax(batch["target"], -1)
    weight = jnp.sum(valid)
    sums = {"accuracy": (jnp.sum(correct * valid), weight)}
    return LossOutput(jnp.sum(losses * valid), weight, updates.get("batch_stats", {}), sums)


class Classification(OnDataset, Mergeable):
    """One label an image; the loss is the cross-entropy with smoothed, perhaps mixed labels."""

    best_metric = "accuracy"

    def __init__(self, config: ConfigDict, model_overrides: dict[str, Any], without_data: bool) -> None:
        """Opens the data set and makes the model.

        Args:
            config: the run's config.
            model_overrides: the options of the model that the config sets.
            without_data: whether a published data set need not be there; then there are no batches.
        """
        super().__init__(config, ("image", "label"), without_data)
        augment = config.augment
        options = {"image_size": config.image_size, "crop": config.eval_crop, **model_overrides}
        self.model = self._make_model(PaCaConfig, "a classifier such as 'pacavit_nano'", options)
        channels = self.model.config.image_channels
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
        self._eval_transform = data.EvalTransform(config.image_size, channels, config.eval_crop)

    def train_batches(self, start_step: int, num_steps: int, rows: Sequence[int]) -> data.Batches:
        """Yields batches of `image` (B, S, S, C) uint8, cropped and so on, `label` (B,) and `valid` (B,)."""
        return data.train_batches(
            self._train_set,
            self._train_transform,
            seed=self._config.seed,
            start_step=start_step,
            num_steps=num_steps,
            **self._reading(rows),
        )

    def eval_batches(self, rows: Sequence[int]) -> data.Batches:
        """Yields batches of the evaluation set."""
        return data.eval_batches(self._eval_set, self._eval_transform, **self._reading(rows))

    def augment(self, batch: dict[str, Array], rng: jax.Array) -> dict[str, Array]:
        """Returns `image`, normalized, erased and mixed, `target` (B, K), smoothed and mixed, and `valid`."""
        augment = self._config.augment
        images = ops.normalize(batch["image"]).astype(self.model.dtype)  # mixing sends them to other devices
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
        """Returns the summed cross-entropy, and the number of images whose likeliest class is their target's largest."""
        return cross_entropy(self.model, variables, batch, rng, train=not self._config.freeze_backbone)

    def evaluate(self, variables: dict[str, PyTree], batch: dict[str, Array]) -> EvalMetrics:
        """Returns the loss and accuracy of a batch."""
        logits = jnp.asarray(self.model.apply(variables, ops.normalize(batch["image"])))
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        correct = jnp.argmax(logits, -1) == batch["label"]
        return EvalMetrics.single_from_model_output(loss=losses, correct=correct, mask=batch["valid"])

    def report(self, variables: dict[str, PyTree], workdir: epath.Path, remake: bool) -> list[epath.Path]:
        """Writes `clusters.png`: evaluation images, what the model says of them, and their strongest clusters."""
        path = workdir / "clusters.png"
        if remake or not path.exists():
            examples = [self._eval_set[i] for i in self._pictured(PICTURE_EXAMPLES)]
            pictures = [data.decode_image(example["image"], self.image_shape[-1]) for example in examples]
            sheet = explain.cluster_sheet(
                self.model,
                variables,
                pictures,
                jnp.stack([data.preprocess(picture, self.model) for picture in pictures]),
                self.class_names,
                labels=[example["label"] for example in examples],
            )
            path.write_bytes(explain.to_png(sheet))
        return [path]
