"""Checkpoints of a run: Orbax's manager behind one small file. `convert/workdir.py` tells what a checkpoint holds."""

from typing import Any

import orbax.checkpoint as ocp
from etils import epath
from jaxtyping import PyTree

from paca_jax.convert.workdir import FOLDER, open_manager, read_metadata, told_as_damage
from paca_jax.train.state import TrainState, as_variables


class Checkpoints:
    """The checkpoints of a workdir: written in the background, the oldest removed."""

    def __init__(self, workdir: epath.PathLike, keep: int) -> None:
        """Opens or creates the workdir's checkpoints.

        Args:
            workdir: the run's folder, local or `gs://`.
            keep: how many to keep.

        Raises:
            UserError: if the folder cannot be written, or holds something else.
        """
        self.folder = epath.Path(workdir) / FOLDER
        self._manager = open_manager(workdir, keep)

    @property
    def latest_step(self) -> int | None:
        """The newest step that was saved whole, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState, metadata: dict[str, Any]) -> None:
        """Starts saving the state; the step it stands at names the checkpoint."""
        items: dict[str, ocp.args.CheckpointArgs] = {
            "variables": ocp.args.StandardSave(state.variables),
            "training": ocp.args.StandardSave(_training_part(state)),
            "metadata": ocp.args.JsonSave(metadata),
        }
        if state.ema is not None:
            items["ema"] = ocp.args.StandardSave(as_variables(**state.ema))
        self._manager.save(int(state.step), args=ocp.args.Composite(**items))

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
        """Returns when the last save is whole."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for the last save and stops the background work."""
        self._manager.close()


def _training_part(state: TrainState) -> dict[str, PyTree]:
    return {"step": state.step, "opt_state": state.opt_state, "skipped": state.skipped, "nonfinite": state.nonfinite}
