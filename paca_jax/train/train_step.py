"""The training step and the evaluation step, as functions to jit."""

import dataclasses
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PyTree
from ml_collections import ConfigDict

from paca_jax.sharding import constrain, gather_parameters, scatter_gradients
from paca_jax.tasks.base import LossOutput, Task
from paca_jax.train.optimizer import learns
from paca_jax.train.state import TrainState, as_variables

Scalars = dict[str, Float[Array, ""]]
TrainStep = Callable[[TrainState, dict[str, Array]], tuple[TrainState, Scalars]]
EvalStep = Callable[[dict[str, PyTree], dict[str, Array]], tuple[PyTree, Array]]


def make_train_step(
    task: Task, optimizer: optax.GradientTransformation, schedule: optax.Schedule, config: ConfigDict
) -> TrainStep:
    """Returns the function from a state and a batch to the next state and its scalars.

    The scalars are `loss`, `grad_norm` (before clipping), `parameter_norm` (before the step), `learning_rate`, the sums of the
    task's `LossOutput`, and `nonfinite`: the number of steps so far whose loss, gradient or new parameters were infinite or
    NaN. Such a step changes nothing but that count and the step number; but with `on_nonfinite="stop"`, new parameters that
    are not finite stay in the state, and the run ends before it saves them.

    Args:
        task: the task, for its augmentation and loss.
        optimizer: the optimizer, from `make_optimizer`.
        schedule: the learning rate by step, to report it.
        config: the run's config. With `accumulate_steps` the gradient is still that of the whole batch. `ema_decay` acts only
            if the state has an average.
    """
    seed, accumulate_steps = config.seed, config.accumulate_steps

    def summed_loss(params: PyTree, batch_stats: PyTree, batch: dict[str, Array], rng: Array) -> tuple[Array, LossOutput]:
        if config.freeze_backbone:
            params = jax.tree.map(lambda learning, p: p if learning else jax.lax.stop_gradient(p), learns(params), params)
        output = task.loss(as_variables(params, batch_stats), batch, rng)
        return output.total, output

    gradient = jax.grad(summed_loss, has_aux=True)

    def accumulated(state: TrainState, batch: dict[str, Array], rng: Array) -> tuple[PyTree, LossOutput]:
        params = gather_parameters(state.params)
        if accumulate_steps == 1:
            return gradient(params, state.batch_stats, batch, rng)
        parts = jax.tree.map(lambda x: _split(x, accumulate_steps), batch)

        def add(
            carry: tuple[PyTree, LossOutput], part: tuple[Array, dict[str, Array]]
        ) -> tuple[tuple[PyTree, LossOutput], None]:
            grads, sums = carry
            index, micro_batch = part
            new_grads, output = gradient(params, sums.batch_stats, micro_batch, jax.random.fold_in(rng, index))
            added = jax.tree.map(jnp.add, (grads, sums._replace(batch_stats={})), (new_grads, output._replace(batch_stats={})))
            return (added[0], added[1]._replace(batch_stats=output.batch_stats)), None

        first = jax.tree.map(lambda x: x[0], parts)
        shapes = jax.eval_shape(gradient, params, state.batch_stats, first, rng)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        start = (zeros[0], zeros[1]._replace(batch_stats=state.batch_stats))
        return jax.lax.scan(add, start, (jnp.arange(accumulate_steps), parts))[0]

    def train_step(state: TrainState, batch: dict[str, Array]) -> tuple[TrainState, Scalars]:
        dropout_rng, augment_rng = (jax.random.fold_in(stream(seed, name), state.step) for name in ("dropout", "augment"))
        grads, output = accumulated(state, task.augment(batch, augment_rng), dropout_rng)
        weight = jnp.maximum(output.weight, 1)
        grads = scatter_gradients(jax.tree.map(lambda g: g / weight, grads))
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema is not None:
            ema = _average(ema, {"params": params, "batch_stats": output.batch_stats}, config.ema_decay)

        loss, grad_norm = output.total / weight, optax.tree.norm(grads)
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        if config.on_nonfinite == "skip":  # otherwise the run ends, and nothing need wait for the new parameters
            finite &= _all_finite((params, output.batch_stats))
        updated = dataclasses.replace(state, params=params, batch_stats=output.batch_stats, opt_state=opt_state, ema=ema)
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, state)
        if config.on_nonfinite != "skip":
            finite &= _all_finite((kept.params, kept.batch_stats))
        new_state = dataclasses.replace(
            kept,
            step=state.step + 1,
            skipped=state.skipped + jnp.sum(batch["valid"] == 0, dtype=jnp.int32),
            nonfinite=state.nonfinite + ~finite,
        )
        scalars = {
            "loss": loss,
            "grad_norm": grad_norm,
            "parameter_norm": optax.tree.norm(state.params),
            "learning_rate": jnp.asarray(schedule(state.step), jnp.float32),
            "nonfinite": new_state.nonfinite,
            **{name: total / jnp.maximum(count, 1) for name, (total, count) in output.sums.items()},
        }
        return new_state, scalars

    return train_step


def make_eval_step(task: Task) -> EvalStep:
    """Returns the function from variables and a batch to the task's outputs and the number of valid examples."""

    def eval_step(variables: dict[str, PyTree], batch: dict[str, Array]) -> tuple[PyTree, Array]:
        variables = variables | {"params": gather_parameters(variables["params"])}
        return task.evaluate(variables, batch), jnp.sum(batch["valid"] > 0)

    return eval_step


def stream(seed: int, name: str) -> jax.Array:
    """Returns the key of a named random stream of a run."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))


def _split(x: Array, parts: int) -> Array:
    """Returns (parts, B / parts, ...): part i has the rows i, i + parts, ..., so that every device has rows of every part."""
    split = jnp.swapaxes(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 0, 1)
    return constrain(split, None, "batch", *(None,) * (x.ndim - 1))


def _all_finite(tree: PyTree) -> Bool[Array, ""]:
    tree = jax.lax.optimization_barrier(tree)  # so that the programs that compute it, and their last bits, stay the same
    return jax.tree.reduce(jnp.logical_and, jax.tree.map(lambda x: jnp.all(jnp.isfinite(x)), tree))


def _average(ema: PyTree, new: PyTree, decay: float) -> PyTree:
    """Moves floating-point averages toward the new values, and copies counters."""

    def blend(old: Any, value: Any) -> Any:
        return decay * old + (1 - decay) * value if jnp.issubdtype(value.dtype, jnp.floating) else value

    return jax.tree.map(blend, ema, new)
