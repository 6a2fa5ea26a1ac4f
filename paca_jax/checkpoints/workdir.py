"""A workdir's folder of checkpoints, and the variables in it.

`checkpoints/STEP/` is whole or absent. It holds `variables` (what `model.apply` takes), `ema` (the averaged variables, where
the run keeps any), `training` (the rest of the state, for a run that goes on) and `metadata` (JSON: the model's recipe, the
classes' names, the config).
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
from orbax.checkpoint.checkpoint_managers import preservation_policy

from paca_jax.errors import UserError
from paca_jax.models import create_model

FOLDER = "checkpoints"
_TEMPORARY = ".orbax-checkpoint-tmp"
_PARTS = {"variables", "ema", "training", "metadata", "metrics", "_CHECKPOINT_METADATA", "commit_success.txt"}


def open_manager(
    workdir: epath.PathLike, policy: preservation_policy.PreservationPolicy | None = None
) -> ocp.CheckpointManager:
    """Opens a workdir's folder of checkpoints, or makes it.

    Args:
        workdir: the run's folder, local or `gs://`.
        policy: which checkpoints to keep; None for all.

    Raises:
        UserError: if the folder cannot be written, or holds something else.
    """
    folder = _absolute(epath.Path(workdir).expanduser()) / FOLDER
    _refuse_foreign(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"The workdir {workdir} cannot be written ({error}); choose another with --workdir.") from error
    return ocp.CheckpointManager(folder, options=ocp.CheckpointManagerOptions(preservation_policy=policy))


def write_variables(workdir: epath.PathLike, variables: dict[str, PyTree], metadata: dict[str, Any]) -> None:
    """Writes variables as a workdir that `paca_jax.load` and `--config.init_from` read (a checkpoint at step 0).

    Args:
        workdir: the folder to make.
        variables: collections of arrays as `model.init` gives them.
        metadata: at least {"model": the keyword arguments of `create_model`}.
    """
    manager = open_manager(workdir)
    if manager.latest_step() is not None:
        raise UserError(f"{workdir} already holds checkpoints; choose another folder.")
    items = {"variables": ocp.args.StandardSave(variables), "metadata": ocp.args.JsonSave(metadata)}
    manager.save(0, args=ocp.args.Composite(**items))
    manager.close()


def read_variables(place: epath.PathLike) -> tuple[dict[str, PyTree], dict[str, Any]]:
    """Returns the variables to use of a checkpoint (the averaged ones where there are), and its metadata.

    Args:
        place: a workdir, for its newest checkpoint, or the folder of one of its checkpoints, `WORKDIR/checkpoints/STEP`.

    Raises:
        UserError: if there is no checkpoint, or it is damaged.
    """
    workdir, asked = epath.Path(place), None
    if workdir.parent.name == FOLDER and workdir.name.isdigit():
        workdir, asked = workdir.parent.parent, int(workdir.name)
    if not (workdir / FOLDER).exists():
        raise UserError(f"{place} is not the workdir of a run: it has no folder named {FOLDER}.")
    manager = open_manager(workdir)
    step = manager.latest_step() if asked is None else asked
    if step is None:
        raise UserError(f"{workdir} holds no finished checkpoint yet.")
    metadata = read_metadata(manager, step)
    model = create_model(**metadata["model"])
    images = jnp.zeros((1, 32, 32, model.config.image_channels))
    device = NamedSharding(Mesh(jax.local_devices()[:1], ("data",)), PartitionSpec())
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
        jax.eval_shape(model.init, jax.random.key(0), images),
    )
    folder = epath.Path(manager.directory) / str(step)
    item = "ema" if (folder / "ema").exists() else "variables"
    with told_as_damage(folder):
        restored = manager.restore(step, args=ocp.args.Composite(**{item: ocp.args.StandardRestore(abstract)}))
    manager.close()
    return restored[item], metadata


def read_metadata(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    """Returns what was told about the run at `step`."""
    with told_as_damage(epath.Path(manager.directory) / str(step)):
        return manager.restore(step, args=ocp.args.Composite(metadata=ocp.args.JsonRestore()))["metadata"]


def _absolute(path: epath.Path) -> epath.Path:
    """Returns an absolute path, which Orbax asks for; `gs://...` is one, and `resolve` would spoil it."""
    return path if path.is_absolute() else path.resolve()


def _refuse_foreign(folder: epath.Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder} should be a folder of checkpoints, but it is a file; choose another workdir.")
    for entry in folder.iterdir():
        if _TEMPORARY in entry.name:
            continue
        # Of a checkpoint whose removal was interrupted, only some parts are left, or none.
        parts = {part.name for part in entry.iterdir()} if entry.name.isdigit() and entry.is_dir() else {entry.name}
        if parts and not parts & _PARTS:
            raise UserError(
                f"{entry} is not a checkpoint of a run of this library; nothing was deleted. Choose another workdir, or "
                "move it away."
            )


@contextmanager
def told_as_damage(step_folder: epath.Path) -> Iterator[None]:
    """Turns what Orbax and TensorStore raise on missing, cut or differently shaped arrays into one sentence."""
    try:
        yield
    except (ValueError, FileNotFoundError, KeyError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(
            f"The checkpoint {step_folder} is damaged or of another model ({reason}); nothing was deleted. Move that folder "
            "away to go on from the checkpoint before it, or choose another workdir."
        ) from error
