"""The training loss of segmentors."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from paca_jax import ops
from paca_jax.data import IGNORED
from paca_jax.models import Segmentor
from paca_jax.tasks.base import LossOutput

AUXILIARY_WEIGHT = 0.4


def segmentation_loss(
    model: Segmentor,
    variables: dict[str, PyTree],
    batch: dict[str, Array],
    rng: jax.Array,
    train_backbone: bool = True,
) -> LossOutput:
    """Returns the cross-entropy of a segmentor and 0.4 times that of its auxiliary logits, summed over the labeled pixels.

    Logits are brought to the labels' size bilinearly. As in the official code the sum is divided by the number of labeled
    pixels for the PaCa head, and by that of all pixels for UPerNet; unlike there it is the whole batch's, not a device's.

    Args:
        model: the segmentor.
        variables: the model's.
        batch: `image` (B, S, S, C) normalized, `label` (B, S, S) with 255 for pixels that do not count, and `valid` (B,).
        rng: of dropout and stochastic depth.
        train_backbone: whether these act in the backbone too, and whether its BatchNorm takes the statistics of the batch.
    """
    outputs, updates = model.apply(
        variables,
        batch["image"],
        train=True,
        train_backbone=train_backbone,
        rngs={"dropout": rng},
        mutable=["batch_stats"],
        method="with_auxiliary",
    )
    valid = (batch["valid"] > 0)[:, None, None]
    labeled = (batch["label"] != IGNORED) & valid
    height, width = batch["label"].shape[1:]
    logits, auxiliary = (ops.resize_bilinear(x, (height, width)) for x in outputs)
    auxiliary_loss = _summed(auxiliary, batch["label"], labeled)
    total = _summed(logits, batch["label"], labeled) + AUXILIARY_WEIGHT * auxiliary_loss
    count = jnp.sum(labeled, dtype=jnp.float32)
    weight = count if model.config.head == "paca" else jnp.sum(valid, dtype=jnp.float32) * (height * width)
    correct = jnp.sum((jnp.argmax(logits, -1) == batch["label"]) & labeled, dtype=jnp.float32)
    sums = {"auxiliary_loss": (auxiliary_loss, weight), "accuracy": (correct, count)}
    return LossOutput(total, weight, updates["batch_stats"], sums)


def _summed(logits: Float[Array, "B H W K"], label: Int[Array, "B H W"], labeled: Array) -> Float[Array, ""]:
    # Compared, not looked up: the gradient of a look-up is a scatter, which accelerators do badly.
    own = label[..., None] == jnp.arange(logits.shape[-1], dtype=label.dtype)
    losses = jax.nn.logsumexp(logits, axis=-1) - jnp.sum(jnp.where(own, logits, 0), axis=-1)
    return jnp.sum(losses * labeled)
