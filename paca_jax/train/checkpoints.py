"""Checkpoints: Orbax's manager behind one small file.

A workdir keeps them in `checkpoints/STEP/`, each whole or absent: `variables` (what `model.apply` takes), `ema` (the averaged
variables, where the run keeps any), `training` (the rest of the state) and `metadata` (JSON: the model's recipe, the classes'
names, the config).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from paca_jax.errors import UserError
from paca_jax.models import create_model
from paca_jax.train.state import TrainState, as_variables

FOLDER = "checkpoints"
_TEMPORARY = ".orbax-checkpoint-tmp"


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
        _refuse_foreign(self.folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"The workdir {workdir} cannot be written ({error}); choose another with --workdir.") from error
        self._manager = ocp.CheckpointManager(self.folder, options=ocp.CheckpointManagerOptions(max_to_keep=keep))

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
        with _told_as_damage(self.folder / str(step)):
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
        with _told_as_damage(self.folder / str(step)):
            return self._manager.restore(step, args=ocp.args.Composite(metadata=ocp.args.JsonRestore()))["metadata"]

    def wait(self) -> None:
        """Returns when the last save is whole."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for the last save and stops the background work."""
        self._manager.close()


def write_variables(workdir: epath.PathLike, variables: dict[str, PyTree], metadata: dict[str, Any]) -> None:
    """Writes variables as a workdir that `paca_jax.load` and `--config.init_from` read (a checkpoint at step 0).

    Args:
        workdir: the folder to make.
        variables: collections of arrays as `model.init` gives them.
        metadata: at least {"model": the keyword arguments of `create_model`}.
    """
    checkpoints = Checkpoints(workdir, keep=1)
    if checkpoints.latest_step is not None:
        raise UserError(f"{workdir} already holds checkpoints; choose another folder.")
    items = {"variables": ocp.args.StandardSave(variables), "metadata": ocp.args.JsonSave(metadata)}
    checkpoints._manager.save(0, args=ocp.args.Composite(**items))
    checkpoints.close()


def read_variables(workdir: epath.PathLike) -> tuple[dict[str, PyTree], dict[str, Any]]:
    """Returns the variables to use of a workdir's newest checkpoint (the averaged ones where there are), and its metadata.

    Raises:
        UserError: if there is no checkpoint, or it is damaged.
    """
    folder = epath.Path(workdir) / FOLDER
    if not folder.exists():
        raise UserError(f"{workdir} is not the workdir of a run: it has no folder named {FOLDER}.")
    checkpoints = Checkpoints(workdir, keep=1_000_000)
    step = checkpoints.latest_step
    if step is None:
        raise UserError(f"{workdir} holds no finished checkpoint yet.")
    metadata = checkpoints.metadata(step)
    model = create_model(**metadata["model"])
    images = jnp.zeros((1, 32, 32, model.config.image_channels))
    device = NamedSharding(Mesh(jax.local_devices()[:1], ("data",)), PartitionSpec())
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
        jax.eval_shape(model.init, jax.random.key(0), images),
    )
    item = "ema" if (folder / str(step) / "ema").exists() else "variables"
    with _told_as_damage(folder / str(step)):
        restored = checkpoints._manager.restore(step, args=ocp.args.Composite(**{item: ocp.args.StandardRestore(abstract)}))
    checkpoints.close()
    return restored[item], metadata


def _training_part(state: TrainState) -> dict[str, PyTree]:
    return {"step": state.step, "opt_state": state.opt_state, "skipped": state.skipped}


def _refuse_foreign(folder: epath.Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder} should be a folder of checkpoints, but it is a file; choose another workdir.")
    for entry in folder.iterdir():
        ours = entry.name.isdigit() and (entry / "variables").exists() and (entry / "metadata").exists()
        if not ours and _TEMPORARY not in entry.name:
            raise UserError(
                f"{entry} is not a checkpoint of a run of this library; nothing was deleted. Choose another workdir, or "
                "move it away."
            )


@contextmanager
def _told_as_damage(step_folder: epath.Path) -> Iterator[None]:
    """Turns what Orbax and TensorStore raise on missing, cut or differently shaped arrays into one sentence."""
    try:
        yield
    except (ValueError, FileNotFoundError, KeyError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(
            f"The checkpoint {step_folder} is damaged or of another model ({reason}); nothing was deleted. Move that folder "
            "away to go on from the checkpoint before it, or choose another workdir."
        ) from error
