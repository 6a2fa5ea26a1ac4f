"""A run from its config to its report."""

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
from clu import parameter_overview
from etils import epath
from jax.experimental import multihost_utils
from jaxtyping import PyTree
from ml_collections import ConfigDict

from paca_jax.checkpoints.initial import initial_variables
from paca_jax.checkpoints.workdir import FOLDER
from paca_jax.errors import UserError
from paca_jax.models import backbone_name
from paca_jax.sharding import stop_together
from paca_jax.train.checkpoints import Checkpoints
from paca_jax.train.evaluation import evaluate
from paca_jax.train.metrics import read_metrics
from paca_jax.train.report import write_report
from paca_jax.train.setup import Run, prepare
from paca_jax.train.state import TrainState
from paca_jax.train.train_loop import listing, run_steps

logger = logging.getLogger(__name__)


def train(config: ConfigDict, workdir: epath.PathLike | None, devices: Sequence[jax.Device] | None = None) -> dict[str, float]:
    """Trains to the end of the run that a config describes, and returns its last evaluation.

    Called again with the same workdir it goes on from the newest checkpoint; without one it starts from `config.init_from`, or
    else from scratch. A finished run is only reported. After SIGTERM the state is saved and the process exits with status 143.

    Args:
        config: from `default_config()`.
        workdir: where checkpoints, metrics and pictures go; a folder that all processes see, local or `gs://`.
        devices: the devices to use; by default all of every process.

    Raises:
        UserError: if the config, the data or the workdir do not fit, or a step's loss is not finite.

    Where another process is lost, this one ends with status 1.
    """
    if workdir is None:
        raise UserError("Training needs a folder for its checkpoints; give one with --workdir=DIR.")
    workdir = epath.Path(workdir).expanduser()
    run = prepare(config, devices)
    with _checkpoints(run, workdir) as checkpoints, jax.set_mesh(run.mesh), stop_together():
        state = _saved_state(run, checkpoints) or _given_state(run, config.init_allow_new) or run.fresh_state()
        start_step = int(state.step)
        _write_overview(state, workdir)
        if start_step < run.steps.total:
            state = run_steps(run, state, checkpoints, workdir)
        else:
            logger.info("%s holds the finished run (step %d of %d).", workdir, start_step, run.steps.total)
        variables = multihost_utils.process_allgather(state.eval_variables, tiled=True)
    return _report(run, variables, workdir, remake=start_step < run.steps.total)


def evaluate_only(
    config: ConfigDict, workdir: epath.PathLike | None, devices: Sequence[jax.Device] | None = None
) -> dict[str, float]:
    """Evaluates the newest checkpoint of a workdir or, where there is none, `config.init_from`; writes nothing.

    Whatever `init_allow_new` says, nothing starts fresh: what was never trained is not worth a number.
    """
    run = prepare(config, devices)
    state = None
    with jax.set_mesh(run.mesh), stop_together():
        if workdir is not None and (epath.Path(workdir).expanduser() / FOLDER).exists():
            with _checkpoints(run, workdir) as checkpoints:
                state = _saved_state(run, checkpoints)
        if state is None:
            nothing = "no --workdir is given" if workdir is None else f"{workdir} holds no checkpoint"
            nothing = f"There is nothing to evaluate: {nothing}, and config.init_from"
            try:
                state = _given_state(run, allow_new=())
            except UserError as error:
                raise UserError(f"{nothing} does not give the whole model: {error}") from error
            if state is None:
                raise UserError(f"{nothing} is not set.")
        scalars = evaluate(run, state.eval_variables)
    logger.info("%s", listing(scalars))
    return scalars


def _saved_state(run: Run, checkpoints: Checkpoints) -> TrainState | None:
    """Returns the newest checkpoint's state, or None."""
    step = checkpoints.latest_step
    if step is None:
        return None
    _check_same_run(run, checkpoints, step)
    logger.info("Going on from the checkpoint at step %d in %s.", step, checkpoints.folder)
    return checkpoints.restore(step, run.abstract)


def _given_state(run: Run, allow_new: Collection[str]) -> TrainState | None:
    """Returns the state that starts from `init_from`, or None where it is not set."""
    config = run.config
    if not config.init_from:
        return None
    source = backbone_name(config.model.name) if config.init_from == "official" else config.init_from
    logger.info("Starting from %s.", source)
    return run.start_from(initial_variables(source, run.task.model, allow_new))


def _check_same_run(run: Run, checkpoints: Checkpoints, step: int) -> None:
    """Refuses a checkpoint of another model or state, and tells which other keys of the config have changed."""
    saved, now = checkpoints.metadata(step), run.metadata()
    flat_saved, flat_now = _flatten(saved["config"]), _flatten(now["config"])
    changed = sorted(key for key in flat_saved | flat_now if flat_saved.get(key) != flat_now.get(key))
    told = ", ".join(f"{key} {flat_saved.get(key)} -> {flat_now.get(key)}" for key in changed)
    if _plain(saved["model"]) != _plain(now["model"]) or saved["state_layout"] != now["state_layout"]:
        raise UserError(
            f"{checkpoints.folder} holds a run of another model or optimizer ({told}); nothing was changed. Give the config it "
            "was started with, or choose another workdir."
        )
    if changed:
        logger.warning("The config has changed since the checkpoint: %s.", told)


def _flatten(tree: dict, prefix: str = "") -> dict:
    flat: dict = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": _plain(value)}
    return flat


def _plain(value: object) -> object:
    """Makes tuples lists, as JSON does."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


@contextmanager
def _checkpoints(run: Run, workdir: epath.PathLike) -> Iterator[Checkpoints]:
    checkpoints = Checkpoints(workdir, run.config.checkpoint_keep, run.best_metric)
    try:
        yield checkpoints
    finally:
        checkpoints.close()


def _write_overview(state: TrainState, workdir: epath.Path) -> None:
    overview = parameter_overview.get_parameter_overview(state.params, include_stats="sharding")
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    if jax.process_index() == 0:
        (workdir / "parameters.txt").write_text(overview + "\n")
    logger.info("%s parameters; each with its shape and sharding in %s.", f"{count:,}", workdir / "parameters.txt")


def _report(run: Run, variables: dict[str, PyTree], workdir: epath.Path, remake: bool) -> dict[str, Any]:
    """Writes what a person should see of the finished run, and returns its last evaluation."""
    lines = read_metrics(workdir)
    last = [line for line in lines if line["step"] == run.steps.total]
    scalars = {name: value for line in last for name, value in line.items() if name.startswith("eval/")}
    if jax.process_index() == 0:
        files = [*run.task.report(variables, workdir, remake), write_report(run, workdir, lines)]
        logger.info("%s", listing(scalars))
        logger.info("Written: %s. Train again with another --workdir.", ", ".join(str(file) for file in files))
    return scalars
