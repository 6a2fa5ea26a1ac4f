"""AdamW, the schedule of its learning rate, and the factors of that rate by parameter."""

import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree
from ml_collections import ConfigDict

from paca_jax.convert.names import BACKBONE
from paca_jax.sharding import parameter_path
from paca_jax.train.config import Steps


def make_schedule(config: ConfigDict, steps: Steps) -> optax.Schedule:
    """Returns the learning rate by step: a linear warm-up, then one of three decays.

    As in the official recipes, "cosine" decays to `min_learning_rate` counting from the start of the run, "linear" counting
    from the end of the warm-up. With "steps" the rate falls to a tenth at each of `decay_epochs`. With `schedule_by_epoch` the
    rate of a whole epoch is that of its first step. With `learning_rate_batch_size` all rates scale linearly with the batch. A
    warm-up may be longer than the run.
    """
    scale = config.batch_size / (config.learning_rate_batch_size or config.batch_size)
    peak = config.learning_rate * scale
    warmup = optax.linear_schedule(config.warmup_learning_rate * scale, peak, max(steps.warmup, 1))
    floor = config.min_learning_rate * scale
    if config.schedule == "cosine":
        decay = optax.cosine_decay_schedule(peak, steps.total, alpha=floor / peak if peak else 0.0)
    elif config.schedule == "linear":
        decay = optax.linear_schedule(peak, floor, max(steps.total - steps.warmup, 1), transition_begin=steps.warmup)
    else:
        falls = {round(min(epoch * steps.per_epoch, steps.total)): 0.1 for epoch in config.decay_epochs}
        decay = optax.piecewise_constant_schedule(peak, falls)

    def schedule(step: Any) -> jax.Array:
        if config.schedule_by_epoch:
            step = jnp.floor(jnp.asarray(step) / steps.per_epoch) * steps.per_epoch
        return jnp.where(step < steps.warmup, warmup(step), decay(step))

    return schedule


def make_optimizer(config: ConfigDict, learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """Returns AdamW with clipping by the global norm.

    Weight decay acts on tensors of two or more axes or, if `no_decay` is set, on all whose paths do not match it. The updates
    are scaled by `layer_scales` and `rate_scales`. With `freeze_backbone` only the heads are updated.
    """
    parts = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm > 0 else []
    parts.append(
        optax.adamw(
            learning_rate,
            b1=config.beta1,
            b2=config.beta2,
            weight_decay=config.weight_decay,
            mask=lambda params: decays(params, config.no_decay),
        )
    )
    if config.layer_decay < 1:
        parts.append(_scale(lambda params: layer_scales(params, config.layer_decay)))
    if config.rate_scales:
        parts.append(_scale(lambda params: rate_scales(params, config.rate_scales)))
    optimizer = optax.chain(*parts) if len(parts) > 1 else parts[0]
    if config.freeze_backbone:
        optimizer = optax.chain(optax.masked(optimizer, learns), optax.masked(optax.set_to_zero(), _is_frozen))
    return optimizer


def decays(params: PyTree, no_decay: str | None) -> PyTree:
    """Returns whether weight decay acts on each parameter; see `make_optimizer`."""
    if no_decay is None:
        return jax.tree.map(lambda p: p.ndim >= 2, params)
    return jax.tree_util.tree_map_with_path(lambda keys, _: not re.search(no_decay, parameter_path(keys)), params)


def rate_scales(params: PyTree, scales: Sequence[tuple[str, float]]) -> PyTree:
    """Returns the factor of the learning rate of each parameter: that of the first expression its path matches, or 1."""

    def scale(keys: tuple[Any, ...], _: Any) -> float:
        return next((factor for pattern, factor in scales if re.search(pattern, parameter_path(keys))), 1.0)

    return jax.tree_util.tree_map_with_path(scale, params)


def learns(params: PyTree) -> PyTree:
    """Returns whether each parameter is trained while the backbone is frozen: those of the heads are."""
    heads = {name: name.endswith("head") for name in params}
    return {name: jax.tree.map(lambda _, learning=heads[name]: learning, part) for name, part in params.items()}


def _is_frozen(params: PyTree) -> PyTree:
    return jax.tree.map(operator.not_, learns(params))


def layer_scales(params: PyTree, decay: float) -> PyTree:
    """Returns the factor of the learning rate of each parameter: decay ** (its distance from the head in layers).

    The layers are the stem, every block in order, and the head. A transition belongs to the block after it, the norm of a stage
    to the block before it, and the part of the teacher for a stage to the first block of that stage.
    """
    depths = _depths(params.get(BACKBONE, params))
    starts = [1 + sum(depths[:stage]) for stage in range(len(depths))]
    last = sum(depths) + 1

    def scale(keys: tuple[Any, ...], _: Any) -> float:
        return decay ** (last - _layer(parameter_path(keys), starts, depths))

    return jax.tree_util.tree_map_with_path(scale, params)


def _layer(path: str, starts: list[int], depths: list[int]) -> int:
    path = path.removeprefix(f"{BACKBONE}/")
    if path.startswith(("head", "auxiliary_head")):
        return sum(depths) + 1
    if found := re.match(r"stage(\d+)/block(\d+)", path):
        return starts[int(found[1]) - 1] + int(found[2])
    if found := re.match(r"stage(\d+)/norm", path):
        return starts[int(found[1]) - 1] + depths[int(found[1]) - 1] - 1
    if found := re.match(r"transition(\d+)", path):
        return starts[int(found[1])]
    if found := re.match(r"teacher/[a-z]+(\d+)", path):
        return starts[int(found[1]) - 1]
    if path.startswith("stem"):
        return 0
    raise LookupError(f"Parameter {path!r} belongs to no layer.")


def _depths(params: PyTree) -> list[int]:
    stages = sorted(name for name in params if name.startswith("stage"))
    return [sum(name.startswith("block") for name in params[stage]) for stage in stages]


def _scale(scales: Callable[[PyTree], PyTree]) -> optax.GradientTransformation:
    def update(updates: PyTree, params: PyTree) -> PyTree:
        return jax.tree.map(jnp.multiply, updates, scales(params))

    return optax.stateless(update)
