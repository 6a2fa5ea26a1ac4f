"""The steps of a run, and what happens between them: metrics, evaluation, checkpoints, stopping."""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import jax
from clu import periodic_actions
from etils import epath
from jaxtyping import Array

from paca_jax.errors import UserError
from paca_jax.train.checkpoints import Checkpoints
from paca_jax.train.evaluation import evaluate
from paca_jax.train.metrics import best_evaluation, make_writer, read_metrics, seconds_so_far
from paca_jax.train.preemption import EXIT_STATUS, Preemption
from paca_jax.train.progress import Progress
from paca_jax.train.setup import Run
from paca_jax.train.state import TrainState
from paca_jax.train.train_step import Scalars

logger = logging.getLogger(__name__)


def run_steps(run: Run, state: TrainState, checkpoints: Checkpoints, workdir: epath.Path) -> TrainState:
    """Trains from the step that the state stands at to the last one of the run, which is saved.

    Args:
        run: what to train.
        state: where to start; it is consumed.
        checkpoints: where the state goes.
        workdir: where metrics go.

    Raises:
        UserError: if the loss or the gradient of a step is not finite and `on_nonfinite` is "stop", if data cannot be read, or
            a checkpoint cannot be written.
        SystemExit: after SIGTERM, when the state is saved.
    """
    config, total, start_step = run.config, run.steps.total, int(state.step)
    earlier = [line for line in read_metrics(workdir) if line["step"] <= start_step]
    best = best_evaluation(earlier, run.best_metric)
    highest = best[run.best_metric] if best else -math.inf
    seconds_before = seconds_so_far(earlier)
    evaluated: dict[int, dict[str, float]] = {}
    nonfinite = _Nonfinite(config.on_nonfinite, int(state.nonfinite))

    def log(step: int, state: TrainState, scalars: Scalars) -> None:
        values = {name: float(value) for name, value in scalars.items()}
        rate = progress.report(step, values["loss"])
        if config.dataset.skip_corrupt:
            values["skipped_images"] = int(state.skipped)
        writer.write_scalars(step, {f"train/{name}": value for name, value in values.items()})
        seconds = seconds_before + time.perf_counter() - began
        writer.write_scalars(step, {"time/images_per_second": rate, "time/unix": time.time(), "time/seconds": seconds})

    def evaluate_now(step: int, state: TrainState, scalars: Scalars) -> None:
        nonlocal highest
        results = evaluate(run, state.eval_variables)
        writer.write_scalars(step, results)
        logger.info("step %d  %s", step, listing(results))
        evaluated[step] = results
        if results[run.best_metric] > highest:
            highest = results[run.best_metric]
            save(step, state, scalars)
        progress.pause(step)

    def save(step: int, state: TrainState, scalars: Scalars) -> None:
        nonfinite.check(step, scalars["nonfinite"])
        writer.flush()
        checkpoints.save(state, run.metadata(), evaluated.pop(step, None))
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
    writer = make_writer(workdir, start_step)
    batches = run.task.train_batches(start_step, total, run.rows)
    with closing(writer), closing(batches), _profiler(config.profile_steps, workdir) as profile, Preemption() as preemption:
        batch = run.to_devices(next(batches))
        train_step = _Compiled(run.train_step)
        train_step.compiled(state, batch)
        began = time.perf_counter()
        progress = Progress(num_steps=total, start_step=start_step, batch_size=config.batch_size)
        scalars: Scalars | None = None
        for step in range(start_step + 1, total + 1):
            profile(step, state)
            before, (state, scalars) = scalars, train_step(state, batch)
            if step < total:
                batch = run.to_devices(next(batches))
            if before is not None:  # looked at one step late, so that the devices always have a step to go on with
                nonfinite.check(step - 1, before["nonfinite"])
            for hook in hooks:
                hook(step, state=state, scalars=scalars)
            if step < total and preemption.reached(step):
                save(step, state, scalars)
                checkpoints.wait()
                logger.warning("Stopped by SIGTERM after step %d, which is saved; the same command goes on from there.", step)
                raise SystemExit(EXIT_STATUS)
        profile(total + 1, state)
        checkpoints.wait()
    return state


def listing(scalars: dict[str, float]) -> str:
    """Returns scalars as one line for a person."""
    return "  ".join(f"{name} {value:.4f}" for name, value in scalars.items())


class _Compiled:
    """The training step, compiled once for each shape of a batch."""

    def __init__(self, step: jax.stages.Wrapped) -> None:
        self._step = step
        self._by_shapes: dict[tuple[Any, ...], jax.stages.Compiled] = {}

    def __call__(self, state: TrainState, batch: dict[str, Array]) -> tuple[TrainState, Scalars]:
        """Runs a step."""
        return self.compiled(state, batch)(state, batch)

    def compiled(self, state: TrainState, batch: dict[str, Array]) -> jax.stages.Compiled:
        """Returns the step for a batch of these shapes."""
        shapes = tuple(array.shape for array in batch.values())
        if shapes not in self._by_shapes:
            began = time.perf_counter()
            self._by_shapes[shapes] = self._step.lower(state, batch).compile()
            logger.info("Compiled the step in %.1f s.", time.perf_counter() - began)
        return self._by_shapes[shapes]


class _Nonfinite:
    """Watches the count of steps whose loss or gradient was infinite or undefined."""

    def __init__(self, action: str, count: int) -> None:
        self._action, self._count = action, count

    def check(self, step: int, count: Array) -> None:
        """Stops or warns where `step` has raised the count."""
        now = int(count)
        if now == self._count:
            return
        self._count = now
        if self._action == "stop":
            raise UserError(
                f"The loss or the gradient of step {step} is not finite; the run has stopped, and its checkpoints are from "
                "before that step. Lower learning_rate, set clip_norm, or pass over such steps with on_nonfinite=skip."
            )
        logger.warning("Step %d changed nothing, for its loss or gradient is not finite (%d such steps so far).", step, now)


@contextmanager
def _profiler(steps: tuple[int, ...], workdir: epath.Path) -> Iterator:
    """Gives a function to call with each step before it runs, and the state after the one before: traces `steps`."""
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
            logger.info("Traced steps %d to %d; look at them with: tensorboard --logdir %s", *steps, workdir)

    try:
        yield profile
    finally:
        if tracing:
            jax.profiler.stop_trace()
