"""The checkpoints of a run: Orbax's manager behind one small file. `workdir.py` documents what a checkpoint holds."""

from collections.abc import Mapping
from typing import Any

import orbax.checkpoint as ocp
from etils import epath
from jaxtyping import PyTree
from orbax.checkpoint.checkpoint_managers import preservation_policy as policies

from paca_jax.checkpoints.lock import Lock
from paca_jax.checkpoints.orbax_errors import damage_as_user_error, write_errors_as_user_error
from paca_jax.checkpoints.workdir import FOLDER, open_manager, read_metadata


class Checkpoints:
    """The checkpoints of a workdir: written in the background, and all removed but the newest ones and the best one.

    Converted weights, which are at step 0, are never removed.
    """

    def __init__(self, workdir: epath.PathLike, keep: int, metric: str, lock: Lock | None = None) -> None:
        """Opens or creates the workdir's checkpoints.

        Args:
            workdir: the run's folder, local or `gs://`.
            keep: how many of the newest to keep.
            metric: the name of the metric whose highest value marks the best checkpoint.
            lock: what a job that writes must hold.

        Raises:
            UserError: if the folder cannot be written, or holds something else.
        """
        self._lock = lock
        self.folder = epath.Path(workdir) / FOLDER
        best = policies.BestN(get_metric_fn=lambda metrics: metrics[metric], n=1, keep_checkpoints_without_metrics=False)
        kept = [policies.LatestN(keep), best, policies.CustomSteps([0])]
        self._manager = open_manager(workdir, policies.AnyPreservationPolicy(kept))

    @property
    def latest_step(self) -> int | None:
        """The newest step with a complete checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, step: int, parts: Mapping[str, PyTree], metadata: dict[str, Any], metrics: dict[str, float] | None) -> None:
        """Starts saving a checkpoint. If the newest one is of the same step, does nothing.

        Args:
            step: the step that names the checkpoint.
            parts: {"variables", "training", and "ema" if there is an average: trees of arrays}.
            metadata: a description of the run.
            metrics: the evaluation of this step, if there is one.

        Raises:
            UserError: if this checkpoint, or the one before it, cannot be written, or another job has taken the workdir.
                Earlier ones stay whole.
        """
        if self._lock is not None:
            self._lock.check()
        if step == self.latest_step:
            return
        items: dict[str, ocp.args.CheckpointArgs] = {name: ocp.args.StandardSave(part) for name, part in parts.items()}
        items["metadata"] = ocp.args.JsonSave({**metadata, "step": step})
        with write_errors_as_user_error(self.folder):
            self._manager.save(step, args=ocp.args.Composite(**items), metrics=metrics)

    def restore(self, step: int, abstract: Mapping[str, PyTree]) -> dict[str, PyTree]:
        """Returns the parts saved at `step`.

        Args:
            step: one of the saved steps.
            abstract: shapes, types and shardings of the parts; the mesh may differ from the one they were saved from.

        Raises:
            UserError: if the checkpoint is damaged or belongs to another model. Nothing is deleted.
        """
        items = {name: ocp.args.StandardRestore(part) for name, part in abstract.items()}
        with damage_as_user_error(self.folder / str(step)):
            restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        return {name: restored[name] for name in abstract}

    def metadata(self, step: int) -> dict[str, Any]:
        """Returns the description of the run that was saved at `step`."""
        return read_metadata(self._manager, step)

    def wait(self) -> None:
        """Returns when the last save is complete.

        Raises:
            UserError: if it cannot be written.
        """
        with write_errors_as_user_error(self.folder):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for the last save and stops the background work."""
        with write_errors_as_user_error(self.folder):
            self._manager.close()
