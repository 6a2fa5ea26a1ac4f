"""Training: a run from its config to its report."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import jax
from clu import parameter_overview
from etils import epath
from jax.experimental import multihost_utils
from jaxtyping import Array
from ml_collections import ConfigDict

from paca_jax.checkpoints.manager import Checkpoints
from paca_jax.errors import UserError
from paca_jax.files import write_file
from paca_jax.paths import user_path
from paca_jax.sharding import stop_together
from paca_jax.train.evaluation import evaluate
from paca_jax.train.metrics.json_lines import best_evaluation, read_metrics, seconds_so_far
from paca_jax.train.metrics.progress import Progress, format_scalars
from paca_jax.train.metrics.writer import make_writer
from paca_jax.train.preemption import Preemption
from paca_jax.train.report import report
from paca_jax.train.run import Run, log_implementations, prepare
from paca_jax.train.start import locked_checkpoints, starting_state
from paca_jax.train.state import TrainState
from paca_jax.train.train_step import Scalars

logger = logging.getLogger(__name__)


def train(config: ConfigDict, workdir: epath.PathLike | None, devices: Sequence[jax.Device] | None = None) -> dict[str, float]:
    """Trains to the end of the run that a config describes, and returns its last evaluation.

    If the workdir holds checkpoints, the run resumes from the newest one; a finished run is only reported. After SIGTERM or
    Ctrl-C the state is saved and the process exits with status 143 or 130. If another process is lost, this one ends with
    status 1.

    Args:
        config: the config of the run, from `default_config()`.
        workdir: the folder for checkpoints, metrics and pictures, local or `gs://`; all processes must see it.
        devices: the devices to use; by default all devices of all processes.

    Raises:
        UserError: if the config, the data or the workdir is wrong, another job trains in the workdir, or the loss of a step is
            not finite.
    """
    if workdir is None:
        raise UserError("Expected a folder for checkpoints and metrics, got none. Give one with --workdir=DIR.")
    workdir = user_path(workdir)
    run = prepare(config, devices)
    with locked_checkpoints(run, workdir) as checkpoints, jax.set_mesh(run.mesh), stop_together():
        state = starting_state(run, checkpoints)
        finished = int(state.step) >= run.steps.total
        _write_overview(state, workdir)
        if finished:
            logger.info("%s holds the finished run (step %d of %d).", workdir, int(state.step), run.steps.total)
        else:
            state = train_loop(run, state, checkpoints, workdir)
        variables = multihost_utils.process_allgather(state.eval_variables, tiled=True)
    return report(run, variables, workdir, remake=not finished)


def train_loop(run: Run, state: TrainState, checkpoints: Checkpoints, workdir: epath.Path) -> TrainState:
    """Trains from the step of the given state to the last one of the run, and returns the last state, which is saved.

    Args:
        run: the run.
        state: the state to start from; its buffers are donated to the first step.
        checkpoints: the checkpoints of the workdir.
        workdir: the folder for metrics.

    Raises:
        UserError: if the loss, gradient or a new parameter of a step is not finite and `on_nonfinite` is "stop", if data cannot
            be read, or if a checkpoint cannot be written.
        Stopped: (a `SystemExit`) after SIGTERM or Ctrl-C, once the state is saved.
    """
    config, total, start_step = run.config, run.steps.total, int(state.step)
    writer = make_writer(workdir, start_step)
    earlier = [line for line in read_metrics(workdir) if line["step"] <= start_step]
    best = best_evaluation(earlier, run.best_metric)
    highest = best[run.best_metric] if best else -math.inf
    seconds_before = seconds_so_far(earlier)
    nonfinite = _Nonfinite(config.on_nonfinite, int(state.nonfinite))
    batches = run.task.train_batches(start_step, total, run.rows)
    train_step = _CompiledStep(run.train_step)
    progress = Progress(num_steps=total, batch_size=config.batch_size)

    def save(step: int, state: TrainState, scalars: Scalars, evaluation: dict[str, float] | None) -> None:
        nonfinite.check(step, scalars["nonfinite"])
        writer.flush()
        checkpoints.save(step, state.parts, run.metadata(), evaluation)
        progress.restart(step)

    with closing(writer), closing(batches), _profiler(config.profile_steps, workdir) as profile, ExitStack() as stack:
        batch = run.to_devices(next(batches))
        with log_implementations():
            train_step.compile(state, batch)
        preemption = stack.enter_context(Preemption())  # from now on there is something to save
        began = time.perf_counter()
        progress.restart(start_step)
        scalars: Scalars = {}
        for step in range(start_step + 1, total + 1):
            last = step == total
            profile(step, state)
            previous, (state, scalars) = scalars, train_step(state, batch)
            if not last:
                batch = run.to_devices(next(batches))
            if previous:  # checked one step late, so that the devices always have work queued
                nonfinite.check(step - 1, previous["nonfinite"])

            if step % config.log_every_steps == 0 or last:
                values = {name: float(value) for name, value in scalars.items()}
                rate = progress.report(step, values["loss"])
                if config.dataset.skip_corrupt:
                    values["skipped_images"] = int(state.skipped)
                writer.write_scalars(step, {f"train/{name}": value for name, value in values.items()})
                seconds = seconds_before + time.perf_counter() - began
                clock = {"images_per_second": rate, "unix": time.time(), "seconds": seconds}
                writer.write_scalars(step, {f"time/{name}": value for name, value in clock.items()})

            evaluation, is_best = None, False
            if step % config.eval_every_steps == 0 or last:
                evaluation = evaluate(run, state.eval_variables)
                writer.write_scalars(step, evaluation)
                logger.info("step %d  %s", step, format_scalars(evaluation))
                is_best = evaluation[run.best_metric] > highest
                highest = max(highest, evaluation[run.best_metric])
                progress.restart(step)

            if step % config.checkpoint_every_steps == 0 or is_best or last:
                save(step, state, scalars, evaluation)

            if not last and preemption.reached(step):
                save(step, state, scalars, evaluation)
                checkpoints.wait()
                raise preemption.stopped(step)
        profile(total + 1, state)
        checkpoints.wait()
    return state


class _CompiledStep:
    """The training step, compiled once for each shape of a batch."""

    def __init__(self, step: jax.stages.Wrapped) -> None:
        self._step = step
        self._by_shapes: dict[tuple[Any, ...], jax.stages.Compiled] = {}

    def __call__(self, state: TrainState, batch: dict[str, Array]) -> tuple[TrainState, Scalars]:
        """Runs a step."""
        return self.compile(state, batch)(state, batch)

    def compile(self, state: TrainState, batch: dict[str, Array]) -> jax.stages.Compiled:
        """Returns the step for batches of these shapes."""
        shapes = tuple(array.shape for array in batch.values())
        if shapes not in self._by_shapes:
            began = time.perf_counter()
            self._by_shapes[shapes] = self._step.lower(state, batch).compile()
            logger.info("Compiled the step in %.1f s.", time.perf_counter() - began)
        return self._by_shapes[shapes]


class _Nonfinite:
    """Watches the number of steps whose loss, gradient or new parameters were infinite or NaN."""

    def __init__(self, action: str, count: int) -> None:
        self._action, self._count = action, count

    def check(self, step: int, count: Array) -> None:
        """Stops or warns if `step` has raised the count."""
        now = int(count)
        if now == self._count:
            return
        self._count = now
        if self._action == "stop":
            raise UserError(
                f"Expected a finite loss, gradient and update, got infinity or NaN in step {step}; the checkpoints are from "
                "before it. Lower learning_rate, set clip_norm, or skip such steps with on_nonfinite=skip."
            )
        logger.warning("Step %d changed nothing: its loss, gradient or update is not finite (%d such steps so far).", step, now)


@contextmanager
def _profiler(steps: Sequence[int], workdir: epath.Path) -> Iterator[Callable[[int, TrainState], None]]:
    """Yields a function that traces the given first to last step.

    Call it before each step, and once after the last one, with the number of the step and the state before it.
    """
    tracing = False

    def profile(step: int, state: TrainState) -> None:
        nonlocal tracing
        if steps and step == steps[0]:
            jax.block_until_ready(state)
            jax.profiler.start_trace(str(workdir))
            tracing = True
        elif tracing and step > steps[1]:
            jax.block_until_ready(state)
            jax.profiler.stop_trace()
            tracing = False
            logger.info("Traced steps %d to %d. View them with: tensorboard --logdir %s", *steps, workdir)

    try:
        yield profile
    finally:
        if tracing:
            jax.profiler.stop_trace()


def _write_overview(state: TrainState, workdir: epath.Path) -> None:
    """Writes `parameters.txt`, with the shape and sharding of every parameter."""
    overview = parameter_overview.get_parameter_overview(state.params, include_stats="sharding")
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    if jax.process_index() == 0:
        write_file(workdir / "parameters.txt", overview + "\n")
    logger.info("%s parameters; their shapes and shardings are in %s.", f"{count:,}", workdir / "parameters.txt")
