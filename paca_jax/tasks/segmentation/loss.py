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
    """Returns the cross-entropy of a segmentor plus 0.4 times that of its auxiliary logits, summed over the labeled pixels.

    Logits are resized bilinearly to the size of the labels. As in the official code, the divisor is the number of labeled
    pixels for the PaCa head and the number of all pixels for UPerNet. There it is counted on each device, here in the whole
    batch.

    Args:
        model: the segmentor.
        variables: the model's variables.
        batch: `image` (B, S, S, C), normalized; `label` (B, S, S), 255 for unlabeled pixels; and `valid` (B,).
        rng: for dropout and stochastic depth.
        train_backbone: whether dropout and stochastic depth are on in the backbone too, and its BatchNorm uses the statistics
            of the batch.
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
    # A comparison rather than a gather, whose gradient is a scatter: slow on accelerators.
    own = label[..., None] == jnp.arange(logits.shape[-1], dtype=label.dtype)
    losses = jax.nn.logsumexp(logits, axis=-1) - jnp.sum(jnp.where(own, logits, 0), axis=-1)
    return jnp.sum(losses * labeled)
