"""Evaluation: every example once, on any number of hosts."""

import jax
from jaxtyping import PyTree

from paca_jax.errors import UserError
from paca_jax.train.setup import Run


def evaluate(run: Run, variables: dict[str, PyTree]) -> dict[str, float]:
    """Returns the task's metrics over the evaluation set, as {"eval/loss": ..., "eval/accuracy": ...}.

    What the task gathers of every batch is summarized once, so the result does not depend on how the set was cut.
    """
    total = None
    examples = 0
    with jax.set_mesh(run.mesh):
        for batch in run.task.eval_batches(run.rows):
            outputs, valid = run.eval_step(variables, run.to_devices(batch))
            total = run.task.gather(total, outputs)
            examples += int(valid)
    if total is None:
        raise UserError("The evaluation set is empty; choose another dataset.eval_split.")
    scalars = {f"eval/{name}": value for name, value in run.task.summarize(total).items()}
    if run.config.dataset.skip_corrupt:
        scalars["eval/skipped_images"] = run.task.num_eval_examples - examples
    return scalars
