"""Checkpoints of a run: Orbax's manager behind one small file. `convert/workdir.py` tells what a checkpoint holds."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orbax.checkpoint as ocp
from etils import epath
from jaxtyping import PyTree
from orbax.checkpoint.checkpoint_managers import preservation_policy as policies

from paca_jax.checkpoints.workdir import FOLDER, open_manager, read_metadata, told_as_damage
from paca_jax.errors import UserError
from paca_jax.train.state import TrainState, as_variables


class Checkpoints:
    """The checkpoints of a workdir: written in the background, and all removed but the newest ones and the best one."""

    def __init__(self, workdir: epath.PathLike, keep: int, metric: str) -> None:
        """Opens or creates the workdir's checkpoints.

        Args:
            workdir: the run's folder, local or `gs://`.
            keep: how many of the newest to keep.
            metric: which of a checkpoint's metrics tells the best, by being highest.

        Raises:
            UserError: if the folder cannot be written, or holds something else.
        """
        self.folder = epath.Path(workdir) / FOLDER
        best = policies.BestN(get_metric_fn=lambda metrics: metrics[metric], n=1, keep_checkpoints_without_metrics=False)
        self._manager = open_manager(workdir, policies.AnyPreservationPolicy([policies.LatestN(keep), best]))

    @property
    def latest_step(self) -> int | None:
        """The newest step that was saved whole, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState, metadata: dict[str, Any], metrics: dict[str, float] | None) -> None:
        """Starts saving the state; the step it stands at names the checkpoint. What is saved already is left alone.

        Args:
            state: what to save.
            metadata: what to tell about the run.
            metrics: the state's evaluation, if there is one.

        Raises:
            UserError: if this checkpoint, or the one before it, cannot be written. Earlier ones stay whole.
        """
        step = int(state.step)
        if step == self.latest_step:
            return
        items: dict[str, ocp.args.CheckpointArgs] = {
            "variables": ocp.args.StandardSave(state.variables),
            "training": ocp.args.StandardSave(_training_part(state)),
            "metadata": ocp.args.JsonSave(metadata),
        }
        if state.ema is not None:
            items["ema"] = ocp.args.StandardSave(as_variables(**state.ema))
        with _told_as_unwritable(self.folder):
            self._manager.save(step, args=ocp.args.Composite(**items), metrics=metrics)

    def restore(self, step: int, abstract: TrainState) -> TrainState:
        """Returns the state saved at `step`.

        Args:
            step: one of the saved steps.
            abstract: shapes, types and shardings of the state; another mesh than the one it was saved from will do.

        Raises:
            UserError: if the checkpoint is damaged or is that of another model. Nothing is deleted.
        """
        items = {
            "variables": ocp.args.StandardRestore(abstract.variables),
            "training": ocp.args.StandardRestore(_training_part(abstract)),
        }
        if abstract.ema is not None:
            items["ema"] = ocp.args.StandardRestore(as_variables(**abstract.ema))
        with told_as_damage(self.folder / str(step)):
            restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        variables = restored["variables"]
        ema = None
        if abstract.ema is not None:
            ema = {"params": restored["ema"]["params"], "batch_stats": restored["ema"].get("batch_stats", {})}
        return TrainState(
            params=variables["params"], batch_stats=variables.get("batch_stats", {}), ema=ema, **restored["training"]
        )

    def metadata(self, step: int) -> dict[str, Any]:
        """Returns what was told about the run at `step`."""
        return read_metadata(self._manager, step)

    def wait(self) -> None:
        """Returns when the last save is whole.

        Raises:
            UserError: if it cannot be written.
        """
        with _told_as_unwritable(self.folder):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for the last save and stops the background work."""
        with _told_as_unwritable(self.folder):
            self._manager.close()


def _training_part(state: TrainState) -> dict[str, PyTree]:
    return {"step": state.step, "opt_state": state.opt_state, "skipped": state.skipped, "nonfinite": state.nonfinite}


@contextmanager
def _told_as_unwritable(folder: epath.Path) -> Iterator[None]:
    """Turns what Orbax and TensorStore raise on a full disk or a lost folder into one sentence."""
    try:
        yield
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0][:300]
        raise UserError(
            f"A checkpoint cannot be written to {folder} ({reason}); those that are there are whole. Make room or make it "
            "writable, and start the same command again to go on from the newest."
        ) from error
