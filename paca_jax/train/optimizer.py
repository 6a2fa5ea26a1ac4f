"""AdamW and its schedule."""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from paca_jax.train.config import Steps


def make_schedule(config: ConfigDict, steps: Steps) -> optax.Schedule:
    """Returns the learning rate by step: a linear warm-up, then the cosine that the whole run follows from its start.

    As in the official recipe the cosine is not shifted by the warm-up. A warm-up longer than the run never reaches its end.
    """
    peak = config.learning_rate
    warmup = optax.linear_schedule(config.warmup_learning_rate, peak, max(steps.warmup, 1))
    cosine = optax.cosine_decay_schedule(peak, steps.total, alpha=config.min_learning_rate / peak if peak else 0.0)
    return lambda step: jnp.where(step < steps.warmup, warmup(step), cosine(step))


def make_optimizer(config: ConfigDict, learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """Returns AdamW after clipping by the global norm; weight decay acts on tensors of two or more axes."""
    adamw = optax.adamw(
        learning_rate,
        b1=config.beta1,
        b2=config.beta2,
        weight_decay=config.weight_decay,
        mask=lambda params: jax.tree.map(lambda p: p.ndim >= 2, params),
    )
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw) if config.clip_norm > 0 else adamw
