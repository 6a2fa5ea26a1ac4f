"""The state that a run starts from: the newest checkpoint, else `init_from`, else random weights."""

import logging
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from paca_jax.checkpoints.initial import initial_variables
from paca_jax.checkpoints.lock import workdir_lock
from paca_jax.checkpoints.manager import Checkpoints
from paca_jax.checkpoints.pretrained import fetch_pretrained
from paca_jax.checkpoints.workdir import check_step, check_workdir, latest_checkpoint
from paca_jax.errors import UserError
from paca_jax.models import backbone_name
from paca_jax.train.config import restored_config
from paca_jax.train.run import Run
from paca_jax.train.state import TrainState

logger = logging.getLogger(__name__)


def recorded_config(workdir: epath.PathLike | None) -> ConfigDict:
    """Returns the config that the newest checkpoint of a workdir records.

    An earlier version of the library may have recorded it: keys that it did not have yet take their defaults, and keys that do
    not exist any more are left out. Neither is refused here, since reading the checkpoint compares the configs anyway: it
    refuses another model, and logs every key that was not recorded or does not exist any more.

    Raises:
        UserError: if there is no such checkpoint, it records no config, or a value of it does not fit.
    """
    nothing = "Expected --config=FILE[:VARIANT], or the workdir of a run, which records its config, got "
    if workdir is None:
        raise UserError(f"{nothing}neither. Give one of them.")
    found = latest_checkpoint(workdir)
    if found is None:
        raise UserError(f"{nothing}no checkpoint in {workdir}. Give --config.")
    if "config" not in found.metadata:
        raise UserError(f"{nothing}converted weights without a config in {workdir}. Give --config.")
    try:
        return restored_config(found.metadata["config"])
    except UserError as error:
        raise UserError(f"The config that {workdir} records does not fit: {error} Or give --config=FILE[:VARIANT].") from error


def open_checkpoints(run: Run, workdir: epath.PathLike) -> AbstractContextManager[Checkpoints]:
    """Returns a context with the checkpoints of a workdir, which it makes if needed."""
    return closing(Checkpoints(workdir, run.config.checkpoint_keep, run.best_metric))


@contextmanager
def locked_checkpoints(run: Run, workdir: epath.Path) -> Iterator[Checkpoints]:
    """Returns a context with the checkpoints of a workdir, in which no other job trains meanwhile.

    Raises:
        UserError: if another job trains in it, or the folder is not that of a run.
    """
    check_workdir(workdir)
    with (
        workdir_lock(workdir) as lock,
        closing(Checkpoints(workdir, run.config.checkpoint_keep, run.best_metric, lock)) as opened,
    ):
        yield opened


def starting_state(run: Run, checkpoints: Checkpoints) -> TrainState:
    """Returns the state of the newest checkpoint, else one with the weights of `init_from`, else one with random weights."""
    allow_new = run.config.init_allow_new
    return (
        resumed_state(run, checkpoints)
        or converted_state(run, checkpoints, allow_new)
        or initialized_state(run, allow_new)
        or run.fresh_state()
    )


def resumed_state(run: Run, checkpoints: Checkpoints) -> TrainState | None:
    """Returns the state of the newest checkpoint, or None if there is none or it holds converted weights.

    Raises:
        UserError: if the checkpoint is damaged, belongs to another model or optimizer, or is not finite.
    """
    step = checkpoints.latest_step
    if step is None:
        return None
    folder, saved = checkpoints.folder / str(step), checkpoints.metadata(step)
    if "config" not in saved:
        return None
    _check_same_run(run, checkpoints, saved)
    logger.info("Going on from the checkpoint at step %d in %s.", step, checkpoints.folder)
    state = TrainState.from_parts(checkpoints.restore(step, run.abstract.parts))
    check_step(folder, step, int(state.step))
    _check_finite(folder, state)
    return state


def converted_state(
    run: Run, checkpoints: Checkpoints, allow_new: Collection[str], weights: str | None = None
) -> TrainState | None:
    """Returns the state that starts from the newest checkpoint, which holds converted weights; None if there is none.

    The arguments and errors are those of `initialized_state`.
    """
    if checkpoints.latest_step is None:
        return None
    folder = checkpoints.folder / str(checkpoints.latest_step)
    logger.info("Starting from the converted weights in %s.", folder)
    gray = run.config.init_rgb_to_gray
    return run.start_from(initial_variables(str(folder), run.task.model, allow_new, weights, rgb_to_gray=gray))


def initialized_state(run: Run, allow_new: Collection[str], weights: str | None = None) -> TrainState | None:
    """Returns the state with the weights of `init_from`, or None if that is not set.

    Args:
        run: the run.
        allow_new: layers that may start from scratch, "head" or "clustering".
        weights: "raw" or "ema", instead of `init_weights`.

    Raises:
        UserError: if the weights are missing or do not fit.
    """
    config = run.config
    if not config.init_from:
        return None
    official = config.init_from == "official"
    source = str(fetch_pretrained(backbone_name(config.model.name))) if official else config.init_from
    logger.info("Starting from %s.", source)
    variables = initial_variables(
        source, run.task.model, allow_new, weights or config.init_weights, rgb_to_gray=config.init_rgb_to_gray
    )
    return run.start_from(variables)


def _check_finite(folder: epath.Path, state: TrainState) -> None:
    variables = {name: part for name, part in state.parts.items() if name != "training"}
    finite = jax.jit(lambda tree: jax.tree.map(lambda array: jnp.isfinite(array).all(), tree))(variables)
    if wrong := [name for name, holds in flatten_dict(finite, sep="/").items() if not holds]:
        raise UserError(
            f"Expected finite weights in {folder}, got NaN or infinity in {len(wrong)} arrays: {', '.join(wrong[:20])}. Move "
            "that folder away to resume from the checkpoint before it."
        )


def _check_same_run(run: Run, checkpoints: Checkpoints, saved: dict[str, Any]) -> None:
    """Refuses a checkpoint of another model or optimizer, and logs which other keys of the config have changed."""
    now = run.metadata()
    flat_saved, flat_now = _flatten(saved["config"]), _flatten(now["config"])
    changed = sorted(key for key in flat_saved | flat_now if flat_saved.get(key) != flat_now.get(key))
    changes = ", ".join(
        f"{key} {flat_saved.get(key, '(not recorded)')} -> {flat_now.get(key, '(no such key)')}" for key in changed
    )
    if _as_json(saved["model"]) != _as_json(now["model"]) or saved.get("state_layout") != now["state_layout"]:
        raise UserError(
            f"Expected a run of the same model and optimizer in {checkpoints.folder}, got another one ({changes}); nothing was "
            "changed. Use the config that the run was started with, or choose another workdir."
        )
    if changed:
        logger.warning("The config has changed since the checkpoint: %s.", changes)


def _flatten(tree: dict, prefix: str = "") -> dict:
    flat: dict = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": _as_json(value)}
    return flat


def _as_json(value: object) -> object:
    """Turns tuples into lists, as JSON does."""
    if isinstance(value, dict):
        return {key: _as_json(part) for key, part in value.items()}
    return [_as_json(part) for part in value] if isinstance(value, list | tuple) else value
