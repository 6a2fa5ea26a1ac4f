"""Image classification."""

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

from paca_jax import data, explain
from paca_jax.models import create_model
from paca_jax.tasks.base import LossOutput

PICTURE_EXAMPLES = 8


@flax.struct.dataclass
class EvalMetrics(metrics.Collection):
    """Loss (cross-entropy without smoothing) and top-1 accuracy, over the valid examples."""

    loss: metrics.Average.from_output("loss")  # type: ignore[valid-type]
    accuracy: metrics.Average.from_output("correct")  # type: ignore[valid-type]


def smoothed_cross_entropy(
    model: nn.Module, variables: dict[str, PyTree], batch: dict[str, Array], rng: jax.Array, label_smoothing: float
) -> LossOutput:
    """Returns the training loss of a classifier, summed over the valid examples of a batch.

    Args:
        model: from images to logits.
        variables: the model's.
        batch: `image` (B, H, W, C), `label` (B,) and `mask` (B,).
        rng: of dropout and stochastic depth.
        label_smoothing: share of the label that is spread over all classes.
    """
    logits, updates = model.apply(variables, batch["image"], train=True, rngs={"dropout": rng}, mutable=["batch_stats"])
    targets = optax.smooth_labels(jax.nn.one_hot(batch["label"], logits.shape[-1]), label_smoothing)
    losses = optax.softmax_cross_entropy(logits, targets)
    mask = batch["mask"]
    correct = jnp.argmax(logits, -1) == batch["label"]
    return LossOutput(
        jnp.sum(losses * mask), jnp.sum(mask), updates.get("batch_stats", {}), {"accuracy": jnp.sum(correct * mask)}
    )


class Classification:
    """One label an image; the loss is the cross-entropy with smoothed labels."""

    def __init__(self, config: ConfigDict, model_overrides: dict[str, Any]) -> None:
        """Opens the data set and makes the model.

        Args:
            config: the run's config.
            model_overrides: the options of the model that the config sets.
        """
        self._config = config
        dataset = config.dataset
        self._train_set = data.open_dataset(dataset.name, dataset.train_split, dataset.data_dir)
        self._eval_set = data.open_dataset(dataset.name, dataset.eval_split, dataset.data_dir)
        self.class_names = self._train_set.class_names
        self.num_train_examples = len(self._train_set)
        self.num_eval_examples = len(self._eval_set)
        self.recipe = {
            "name": config.model.name,
            "num_classes": len(self.class_names),
            "image_size": config.image_size,
            "crop": config.eval_crop,
            "dtype": config.dtype,
            **model_overrides,
        }
        self.model = create_model(**self.recipe)
        channels = self.model.config.image_channels
        self.image_shape = (config.image_size, config.image_size, channels)
        augment = config.augment
        self._train_transform = data.TrainTransform(
            config.image_size, channels, tuple(augment.crop_scale), tuple(augment.crop_ratio), augment.flip
        )
        self._eval_transform = data.EvalTransform(config.image_size, channels, config.eval_crop)

    def train_batches(self, start_step: int, num_steps: int) -> data.Batches:
        """Yields augmented batches of `image` (B, S, S, C), `label` (B,) and `mask` (B,)."""
        return data.train_batches(
            self._train_set,
            self._train_transform,
            seed=self._config.seed,
            start_step=start_step,
            num_steps=num_steps,
            **self._reading(),
        )

    def eval_batches(self) -> data.Batches:
        """Yields batches of the evaluation set."""
        return data.eval_batches(self._eval_set, self._eval_transform, **self._reading())

    def _reading(self) -> dict[str, Any]:
        return {
            "batch_size": self._config.batch_size,
            "process_index": jax.process_index(),
            "process_count": jax.process_count(),
            "num_workers": self._config.dataset.num_workers,
            "skip_corrupt": self._config.dataset.skip_corrupt,
        }

    def loss(self, variables: dict[str, PyTree], batch: dict[str, Array], rng: jax.Array) -> LossOutput:
        """Returns the summed cross-entropy with smoothed labels, and the number of images with the right answer."""
        return smoothed_cross_entropy(self.model, variables, batch, rng, self._config.label_smoothing)

    def evaluate(self, variables: dict[str, PyTree], batch: dict[str, Array]) -> EvalMetrics:
        """Returns the loss and accuracy of a batch."""
        logits = jnp.asarray(self.model.apply(variables, batch["image"]))
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        correct = jnp.argmax(logits, -1) == batch["label"]
        return EvalMetrics.single_from_model_output(loss=losses, correct=correct, mask=batch["mask"])

    def report(self, variables: dict[str, PyTree], workdir: epath.Path, remake: bool) -> list[epath.Path]:
        """Writes `clusters.png`: evaluation images, what the model says of them, and their strongest clusters."""
        path = workdir / "clusters.png"
        if remake or not path.exists():
            stride = max(len(self._eval_set) // PICTURE_EXAMPLES, 1)
            examples = [self._eval_set[i] for i in range(0, len(self._eval_set), stride)][:PICTURE_EXAMPLES]
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
