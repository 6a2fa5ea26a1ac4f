"""The training loop."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import jax
from clu import parameter_overview, periodic_actions
from etils import epath
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from paca_jax.convert.workdir import FOLDER
from paca_jax.errors import UserError
from paca_jax.train.checkpoints import Checkpoints
from paca_jax.train.evaluation import evaluate
from paca_jax.train.initial import initial_variables
from paca_jax.train.progress import Progress
from paca_jax.train.setup import Run, prepare
from paca_jax.train.state import TrainState
from paca_jax.train.step import Scalars
from paca_jax.train.writers import make_writer, scalars_of_step

logger = logging.getLogger(__name__)


def train(config: ConfigDict, workdir: epath.PathLike, devices: Sequence[jax.Device] | None = None) -> dict[str, float]:
    """Trains to the end of the run that a config describes, and returns its last evaluation.

    Called again with the same workdir it goes on from the newest checkpoint; without one it starts from `config.init_from`, or
    else from scratch. A finished run is only reported.

    Args:
        config: from `default_config()`.
        workdir: where checkpoints, metrics and pictures go; a local folder or `gs://`.
        devices: the devices to use; by default all of every process.

    Raises:
        UserError: if the config, the data or the workdir do not fit.
    """
    workdir = epath.Path(workdir).expanduser()
    run = prepare(config, devices)
    with _checkpoints(workdir, config.checkpoint_keep) as checkpoints, jax.set_mesh(run.mesh):
        state = _saved_state(run, checkpoints) or _given_state(run) or run.fresh_state()
        start_step = int(state.step)
        _write_overview(state, workdir)
        if start_step < run.steps.total:
            state = _train(run, state, start_step, checkpoints, workdir)
        else:
            logger.info("%s holds the finished run (step %d of %d).", workdir, start_step, run.steps.total)
        scalars = scalars_of_step(workdir, int(state.step), prefix="eval/")
        _report(run, state, workdir, scalars, remake=start_step < run.steps.total)
    return scalars


def evaluate_only(config: ConfigDict, workdir: epath.PathLike, devices: Sequence[jax.Device] | None = None) -> dict[str, float]:
    """Evaluates the newest checkpoint of a workdir or, where there is none, `config.init_from`; writes nothing."""
    run = prepare(config, devices)
    with jax.set_mesh(run.mesh):
        if (epath.Path(workdir) / FOLDER).exists():
            with _checkpoints(epath.Path(workdir), config.checkpoint_keep) as checkpoints:
                state = _saved_state(run, checkpoints) or _given_state(run)
        else:
            state = _given_state(run)
        if state is None:
            raise UserError(f"There is nothing to evaluate: {workdir} holds no checkpoint, and config.init_from is not set.")
        scalars = evaluate(run, state.eval_variables)
    logger.info("%s", _listing(scalars))
    return scalars


def _train(run: Run, state: TrainState, start_step: int, checkpoints: Checkpoints, workdir: epath.Path) -> TrainState:
    config, total = run.config, run.steps.total
    writer = make_writer(workdir, start_step)
    batches = run.task.train_batches(start_step, total, run.rows)
    batch = run.to_devices(next(batches))
    began = time.perf_counter()
    train_step = run.train_step.lower(state, batch).compile()
    logger.info("Compiled the step in %.1f s.", time.perf_counter() - began)
    progress = Progress(num_steps=total, start_step=start_step, batch_size=config.batch_size)

    def log(step: int, state: TrainState, scalars: Scalars) -> None:
        values = {name: float(value) for name, value in scalars.items()}
        rate = progress.report(step, values["loss"])
        if config.dataset.skip_corrupt:
            values["skipped_images"] = int(state.skipped)
        writer.write_scalars(step, {f"train/{name}": value for name, value in values.items()})
        writer.write_scalars(step, {"time/images_per_second": rate, "time/unix": time.time()})

    def evaluate_now(step: int, state: TrainState, scalars: Scalars) -> None:
        del scalars
        results = evaluate(run, state.eval_variables)
        writer.write_scalars(step, results)
        logger.info("step %d  %s", step, _listing(results))
        progress.pause(step)

    def save(step: int, state: TrainState, scalars: Scalars) -> None:
        del scalars
        writer.flush()
        checkpoints.save(state, run.metadata())
        progress.pause(step)

    hooks = [
        periodic_actions.PeriodicCallback(
            every_steps=every, on_steps=[total], callback_fn=lambda step, t, call=call, **kwargs: call(step, **kwargs)
        )
        for every, call in (
            (config.log_every_steps, log),
            (config.eval_every_steps, evaluate_now),
            (config.checkpoint_every_steps, save),
        )
    ]
    with closing(batches):
        for step in range(start_step + 1, total + 1):
            state, scalars = train_step(state, batch)
            if step < total:
                batch = run.to_devices(next(batches))
            for hook in hooks:
                hook(step, state=state, scalars=scalars)
    writer.close()
    checkpoints.wait()
    return state


def _saved_state(run: Run, checkpoints: Checkpoints) -> TrainState | None:
    """Returns the newest checkpoint's state, or None."""
    step = checkpoints.latest_step
    if step is None:
        return None
    _check_same_run(run, checkpoints, step)
    logger.info("Going on from the checkpoint at step %d in %s.", step, checkpoints.folder)
    return checkpoints.restore(step, run.abstract)


def _given_state(run: Run) -> TrainState | None:
    """Returns the state that starts from `init_from`, or None where it is not set."""
    config = run.config
    if not config.init_from:
        return None
    logger.info("Starting from %s.", config.init_from)
    return run.start_from(initial_variables(config.init_from, run.task.model, config.init_allow_new))


def _check_same_run(run: Run, checkpoints: Checkpoints, step: int) -> None:
    """Refuses a checkpoint of another model or state, and tells which other keys of the config have changed."""
    saved, now = checkpoints.metadata(step), run.metadata()
    flat_saved, flat_now = _flatten(saved["config"]), _flatten(now["config"])
    changed = sorted(key for key in flat_saved | flat_now if flat_saved.get(key) != flat_now.get(key))
    told = ", ".join(f"{key} {flat_saved.get(key)} -> {flat_now.get(key)}" for key in changed)
    averaged = [flat["ema_decay"] > 0 for flat in (flat_saved, flat_now)]
    if _plain(saved["model"]) != _plain(now["model"]) or averaged[0] != averaged[1]:
        raise UserError(
            f"{checkpoints.folder} holds a run of another model or averaging ({told}); nothing was changed. Give the config it "
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
def _checkpoints(workdir: epath.Path, keep: int) -> Iterator[Checkpoints]:
    checkpoints = Checkpoints(workdir, keep)
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


def _report(run: Run, state: TrainState, workdir: epath.Path, scalars: dict[str, float], remake: bool) -> None:
    variables = multihost_utils.process_allgather(state.eval_variables, tiled=True)
    if jax.process_index() == 0:
        files = run.task.report(variables, workdir, remake)
        logger.info("%s", _listing(scalars))
        logger.info("Written: %s. Train again with another --workdir.", ", ".join(str(file) for file in files))


def _listing(scalars: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in scalars.items())
