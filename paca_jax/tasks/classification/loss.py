"""The training loss of classifiers."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from paca_jax.models import PaCaViT
from paca_jax.tasks.base import LossOutput


def cross_entropy(
    model: PaCaViT, variables: dict[str, PyTree], batch: dict[str, Array], rng: jax.Array, train: bool = True
) -> LossOutput:
    """Returns the cross-entropy of a classifier, summed over the valid images of a batch.

    Its `accuracy` counts the images whose likeliest class is the largest of their target.

    Args:
        model: the classifier.
        variables: the model's variables.
        batch: `image` (B, H, W, C), normalized; `target` (B, K), a distribution over the classes; and `valid` (B,).
        rng: for dropout and stochastic depth.
        train: whether dropout and stochastic depth are on, and BatchNorm uses the statistics of the batch.
    """
    logits, updates = model.apply(variables, batch["image"], train=train, rngs={"dropout": rng}, mutable=["batch_stats"])
    losses = optax.softmax_cross_entropy(logits, batch["target"])
    valid = batch["valid"]
    correct = jnp.argmax(logits, -1) == jnp.argmax(batch["target"], -1)
    weight = jnp.sum(valid)
    sums = {"accuracy": (jnp.sum(correct * valid), weight)}
    return LossOutput(jnp.sum(losses * valid), weight, updates.get("batch_stats", {}), sums)
