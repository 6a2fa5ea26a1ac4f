"""Evaluation: every example counts once, on any number of hosts."""

import logging
from collections.abc import Sequence

import jax
from etils import epath
from jaxtyping import PyTree
from ml_collections import ConfigDict

from paca_jax.checkpoints.workdir import FOLDER
from paca_jax.convert.checkpoint import EMA, RAW, check_weights
from paca_jax.errors import UserError
from paca_jax.paths import user_path
from paca_jax.sharding import stop_together
from paca_jax.train.metrics.progress import format_scalars
from paca_jax.train.run import Run, log_implementations, prepare
from paca_jax.train.start import converted_state, initialized_state, open_checkpoints, resumed_state
from paca_jax.train.state import TrainState

logger = logging.getLogger(__name__)


def evaluate(run: Run, variables: dict[str, PyTree]) -> dict[str, float]:
    """Returns the task's metrics over the evaluation set, as {"eval/loss": ..., "eval/accuracy": ...}.

    The task gathers the outputs of all batches and summarizes them once, so the result does not depend on the batch size.
    """
    total = None
    examples = 0
    with jax.set_mesh(run.mesh):
        for batch in run.task.eval_batches(run.rows):
            outputs, valid = run.eval_step(variables, run.to_devices(batch))
            total = run.task.gather(total, outputs)
            examples += int(valid)
    if total is None:
        raise UserError("Expected examples in the evaluation set, got none. Choose another dataset.eval_split.")
    scalars = {f"eval/{name}": value for name, value in run.task.summarize(total).items()}
    if run.config.dataset.skip_corrupt:
        scalars["eval/skipped_images"] = run.task.num_eval_examples - examples
    return scalars


def evaluate_only(
    config: ConfigDict,
    workdir: epath.PathLike | None,
    devices: Sequence[jax.Device] | None = None,
    weights: str | None = None,
) -> dict[str, float]:
    """Evaluates the newest checkpoint of a workdir or, if there is none, `config.init_from`; writes nothing.

    No layer starts from scratch, whatever `init_allow_new` says: untrained layers would make the numbers meaningless.

    Args:
        config: the config of the run, from `default_config()`.
        workdir: the folder of the run, local or `gs://`; None to evaluate `config.init_from`.
        devices: the devices to use; by default all devices of all processes.
        weights: "raw" or "ema"; None for the averaged variables of a checkpoint, if it has them, and for `init_weights`.

    Raises:
        UserError: if the config or the data is wrong, or there are no such weights for the whole model.
    """
    check_weights(weights)
    run = prepare(config, devices)
    variables = None
    with jax.set_mesh(run.mesh), stop_together():
        if workdir is not None and (user_path(workdir) / FOLDER).exists():
            with open_checkpoints(run, workdir) as checkpoints:
                if resumed := resumed_state(run, checkpoints):
                    variables = _chosen(resumed, weights, workdir)
                elif converted := converted_state(run, checkpoints, allow_new=(), weights=weights):
                    variables = converted.variables
        if variables is None:
            missing = "no --workdir" if workdir is None else f"no checkpoint in {workdir}"
            nothing = f"There is nothing to evaluate: {missing}"
            try:
                state = initialized_state(run, allow_new=(), weights=weights)
            except UserError as error:
                raise UserError(f"{nothing}, and config.init_from does not give the whole model: {error}") from error
            if state is None:
                raise UserError(f"{nothing}, and config.init_from is not set. Give --workdir or --config.init_from.")
            variables = state.variables
        with log_implementations():
            scalars = evaluate(run, variables)
    logger.info("%s", format_scalars(scalars))
    return scalars


def _chosen(state: TrainState, weights: str | None, workdir: epath.PathLike) -> dict[str, PyTree]:
    """Returns the averaged or the raw variables of a checkpoint, and logs which if it has both."""
    if state.ema is None:
        if weights == EMA:
            raise UserError(
                f"Expected averaged variables in {workdir}, got only the raw ones (ema_decay=0). Leave weights out."
            )
        return state.variables
    raw = weights == RAW
    logger.info("Evaluating the %s variables; weights=%r takes the others.", *(("raw", EMA) if raw else ("averaged", RAW)))
    return state.variables if raw else state.eval_variables
