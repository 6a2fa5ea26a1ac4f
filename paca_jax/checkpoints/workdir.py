"""A workdir's folder of checkpoints, and the variables in it.

`checkpoints/STEP/` is whole or absent. It holds `variables` (as `model.apply` takes them), `ema` (the averaged variables, if
the run keeps them), `training` (the rest of the state, to resume the run) and `metadata` (JSON: the step, the model's recipe,
the names of its classes, the config).
"""

import logging
import os
import shutil
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax.traverse_util import unflatten_dict
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from orbax.checkpoint.checkpoint_managers import preservation_policy

from paca_jax.checkpoints.description import checked_description
from paca_jax.checkpoints.orbax_errors import damage_as_user_error, silence_background, write_errors_as_user_error
from paca_jax.convert.checkpoint import EMA, RAW
from paca_jax.errors import UserError
from paca_jax.files import check_regular, reason
from paca_jax.models import create_model
from paca_jax.models.variables import Variables, abstract_variables
from paca_jax.paths import is_remote, user_path

logger = logging.getLogger(__name__)

FOLDER = "checkpoints"
INCOMPLETE = ".incomplete"  # what is being written, in a workdir of converted weights
_TEMPORARY = ".orbax-checkpoint-tmp"
_PARTS = {"variables", "ema", "training", "metadata", "metrics", "_CHECKPOINT_METADATA", "commit_success.txt"}


def open_manager(
    workdir: epath.PathLike, policy: preservation_policy.PreservationPolicy | None = None
) -> ocp.CheckpointManager:
    """Opens a workdir's folder of checkpoints, or creates it.

    Args:
        workdir: the run's folder, local or `gs://`.
        policy: the checkpoints to keep; None for all.

    Raises:
        UserError: if the folder cannot be written, or holds something else.
    """
    check_workdir(workdir)
    folder = _absolute(user_path(workdir)) / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"The workdir {workdir} cannot be written ({error}). Choose another with --workdir.") from error
    silence_background()
    return ocp.CheckpointManager(folder, options=ocp.CheckpointManagerOptions(preservation_policy=policy))


def write_variables(workdir: epath.PathLike, variables: Variables, metadata: dict[str, Any]) -> None:
    """Writes variables as a workdir that `paca_jax.load` and `--config.init_from` read (a checkpoint at step 0).

    They are complete or not there at all: on a file system they are written under another name and renamed.

    Args:
        workdir: the folder to create.
        variables: collections of arrays, as from `model.init`.
        metadata: at least {"model": the keyword arguments of `create_model`}.

    Raises:
        UserError: if the folder holds checkpoints already or cannot be written.
    """
    place = _absolute(user_path(workdir))
    check_workdir(place)
    if (place / FOLDER).exists() and any((place / FOLDER).iterdir()):
        raise UserError(f"{workdir} already holds checkpoints. Choose another folder.")
    if is_remote(place):  # where Orbax marks a complete checkpoint
        _write(place, place, variables, metadata)
        return
    incomplete = place / INCOMPLETE
    try:
        if incomplete.exists():
            incomplete.rmtree()  # left by a process that was killed
        _write(incomplete, place, variables, metadata)
        (incomplete / FOLDER).replace(place / FOLDER)
    except OSError as error:
        raise UserError(f"Expected to write {workdir}, got: {reason(error)}. Choose another folder.") from error
    finally:
        shutil.rmtree(incomplete, ignore_errors=True)


def _write(workdir: epath.Path, named: epath.Path, variables: Variables, metadata: dict[str, Any]) -> None:
    """Writes a checkpoint of step 0; errors name another folder, which it is to become."""
    items = {"variables": ocp.args.StandardSave(variables), "metadata": ocp.args.JsonSave({**metadata, "step": 0})}
    with write_errors_as_user_error(named), open_manager(workdir) as manager:
        manager.save(0, args=ocp.args.Composite(**items))


def read_variables(place: epath.PathLike, weights: str | None = None) -> tuple[Variables, dict[str, Any]]:
    """Returns the variables in a checkpoint as NumPy arrays, and its metadata. If there is a choice, logs what was taken.

    Args:
        place: a workdir, for its newest checkpoint, or the folder of one of its checkpoints, `WORKDIR/checkpoints/STEP`.
        weights: "raw" or "ema"; None for the averaged variables if there are some.

    Raises:
        UserError: if there is no checkpoint, it is damaged, or it has no averaged variables and they are asked for.
    """
    workdir, asked = _workdir_and_step(place)
    if not (workdir / FOLDER).exists():
        raise UserError(f"{place} is not the workdir of a run: it has no folder named {FOLDER}. Check the path.")
    with open_manager(workdir) as manager:
        step = manager.latest_step() if asked is None else asked
        if step is None:
            raise UserError(f"{workdir} holds no finished checkpoint yet. Wait for the first one, or choose another workdir.")
        metadata = read_metadata(manager, step)
        device = NamedSharding(Mesh(jax.local_devices()[:1], ("data",)), PartitionSpec())
        abstract = {
            path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device)
            for path, leaf in abstract_variables(create_model(**metadata["model"])).items()
        }
        folder = epath.Path(manager.directory) / str(step)
        averaged = (folder / "ema").exists()
        if weights == EMA and not averaged:
            raise UserError(f"Expected averaged variables in {folder}, got only the raw ones. Leave weights={weights!r} out.")
        item = "ema" if averaged and weights != RAW else "variables"
        args = ocp.args.Composite(**{item: ocp.args.StandardRestore(unflatten_dict(abstract, sep="/"))})
        with damage_as_user_error(folder):
            restored = manager.restore(step, args=args)
    if averaged:
        taken, other = ("averaged", RAW) if item == "ema" else ("raw", EMA)
        logger.warning("Takes the %s variables in %s; weights=%r takes the others.", taken, folder, other)
    return jax.tree.map(np.asarray, restored[item]), metadata


class Saved(NamedTuple):
    """A checkpoint: its folder, the step that names it, and its metadata."""

    folder: epath.Path
    step: int
    metadata: dict[str, Any]


def latest_checkpoint(place: epath.PathLike) -> Saved | None:
    """Returns the checkpoint that `read_variables` would read, or None if there is none.

    Raises:
        UserError: if it is damaged.
    """
    workdir, asked = _workdir_and_step(place)
    if not (workdir / FOLDER).exists():
        return None
    with open_manager(workdir) as manager:
        step = manager.latest_step() if asked is None else asked
        return None if step is None else Saved(workdir / FOLDER / str(step), step, read_metadata(manager, step))


def _workdir_and_step(place: epath.PathLike) -> tuple[epath.Path, int | None]:
    """Returns the workdir at a place, and the step of the checkpoint there if the place is that of one."""
    workdir = user_path(place)
    if workdir.parent.name == FOLDER and workdir.name.isdecimal():
        return workdir.parent.parent, int(workdir.name)
    return workdir, None


def read_metadata(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    """Returns the metadata of the checkpoint at `step`: at least `model`.

    Raises:
        UserError: if it is damaged, or the checkpoint is of another step than its folder says.
    """
    folder = epath.Path(manager.directory) / str(step)
    with damage_as_user_error(folder):
        found = manager.restore(step, args=ocp.args.Composite(metadata=ocp.args.JsonRestore()))["metadata"]
        if not isinstance(found, dict) or not isinstance(found.get("config", {}), dict):
            raise TypeError("its metadata is not that of a run")
    checked_description(f"{folder}/metadata", found.get("model", ()), found.get("class_names"))
    check_step(folder, step, found.get("step", step))
    return found


def check_step(folder: epath.Path, step: int, found: object) -> None:
    """Raises a `UserError` unless a checkpoint is of the step that names its folder."""
    if found != step:
        raise UserError(
            f"Expected the checkpoint of step {step} in {folder}, got that of step {found}. Rename the folder back."
        )


def _absolute(path: epath.Path) -> epath.Path:
    """Returns an absolute path, as Orbax requires; `gs://...` is one already, and `resolve` would break it."""
    return path if path.is_absolute() else path.resolve()


def check_workdir(workdir: epath.PathLike) -> None:
    """Checks that a workdir's folder of checkpoints, if there is one, is that of a run.

    Raises:
        UserError: if it holds something else, or pipes and devices among the files, for which Orbax would wait without end.
    """
    folder = user_path(workdir) / FOLDER
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"Expected a folder of checkpoints at {folder}, got a file. Choose another workdir.")
    for entry in folder.iterdir():
        if _TEMPORARY in entry.name:
            continue
        # If the removal of a checkpoint was interrupted, only some of its parts are left, or none.
        parts = {part.name for part in entry.iterdir()} if entry.name.isdecimal() and entry.is_dir() else {entry.name}
        if parts and not parts & _PARTS:
            raise UserError(
                f"{entry} is not a checkpoint of a run of this library; nothing was deleted. Choose another workdir, or "
                "move it away."
            )
    for place, _, names in () if is_remote(folder) else os.walk(folder):
        for file in (os.path.join(place, name) for name in names):
            if os.path.exists(file) and not os.path.isfile(file):  # one that a running job removes meanwhile is none
                check_regular(file)
