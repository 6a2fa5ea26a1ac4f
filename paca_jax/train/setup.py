"""From a config to everything that a run needs: mesh, task, optimizer, and the steps as jit sees them."""

import dataclasses
import functools
import zlib
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree
from ml_collections import ConfigDict

from paca_jax.errors import UserError
from paca_jax.sharding import batch_sharding, batch_shards, local_rows, make_mesh
from paca_jax.tasks import Classification, Detection, Segmentation, Task
from paca_jax.train.config import Steps, check_config, count_steps, model_overrides
from paca_jax.train.optimizer import make_optimizer, make_schedule
from paca_jax.train.state import TrainState, make_initializer, state_of, state_shardings
from paca_jax.train.train_step import make_eval_step, make_train_step, stream

_TASKS: dict[str, type[Task]] = {"classification": Classification, "detection": Detection, "segmentation": Segmentation}


@dataclasses.dataclass(frozen=True)
class Run:
    """A run before its first step.

    Attributes:
        config: what was asked for.
        mesh: the devices.
        task: data, model and loss.
        steps: how long it lasts.
        abstract: shapes, types and shardings of its state.
        initialize: from a random key to a fresh state.
        start_from: from variables to a state that starts with them.
        train_step: from a state (which it consumes) and a batch to the next state and its scalars.
        eval_step: from variables and a batch to what the task gathers and the number of valid examples.

    The functions are jitted with their output shardings; call them under `jax.set_mesh(run.mesh)`.
    """

    config: ConfigDict
    mesh: Mesh
    task: Task
    steps: Steps
    abstract: TrainState
    initialize: Callable[[jax.Array], TrainState]
    start_from: Callable[[dict[str, PyTree]], TrainState]
    train_step: jax.stages.Wrapped
    eval_step: jax.stages.Wrapped

    def fresh_state(self) -> TrainState:
        """Returns the state of step 0, drawn from the seed."""
        return self.initialize(stream(self.config.seed, "init"))

    @property
    def best_metric(self) -> str:
        """The scalar that tells the best checkpoint, as metrics name it; more is better."""
        return f"eval/{self.task.best_metric}"

    @property
    def abstract_batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes, types and shardings of a training batch, over all processes."""
        size, sharding = self.config.batch_size, batch_sharding(self.mesh)
        return {
            name: jax.ShapeDtypeStruct((size, *leaf.shape), leaf.dtype, sharding=sharding)
            for name, leaf in self.task.example.items()
        }

    @functools.cached_property
    def rows(self) -> list[int]:
        """The rows of every batch that this process reads."""
        return local_rows(self.mesh, self.config.batch_size)

    def to_devices(self, batch: dict[str, np.ndarray]) -> dict[str, Array]:
        """Makes the rows that this process has read its part of the global batch."""
        sharding, size = batch_sharding(self.mesh), self.config.batch_size

        def place(local: np.ndarray) -> Array:
            def shard(index: Any) -> np.ndarray:
                first, last, _ = index[0].indices(size)
                return local[bisect_left(self.rows, first) : bisect_left(self.rows, last)]

            return jax.make_array_from_callback((size, *local.shape[1:]), sharding, shard)

        return {name: place(array) for name, array in batch.items()}

    def metadata(self) -> dict[str, Any]:
        """Returns what a checkpoint tells about its run."""
        return {
            "model": self.task.recipe,
            "class_names": list(self.task.class_names),
            "config": self.config.to_dict(),
            "state_layout": self._state_layout,
        }

    @functools.cached_property
    def _state_layout(self) -> int:
        """A number that tells whether two states have the same arrays by the same names."""
        leaves = jax.tree_util.tree_leaves_with_path(self.abstract, is_leaf=lambda part: part == ())
        lines = (f"{jax.tree_util.keystr(path)} {getattr(leaf, 'shape', 'nothing')}" for path, leaf in leaves)
        return zlib.crc32("\n".join(lines).encode())


def prepare(config: ConfigDict, devices: Sequence[jax.Device] | None = None, without_data: bool = False) -> Run:
    """Returns the run that a config describes.

    Args:
        config: from `default_config()`.
        devices: the devices to lay the mesh out on; by default all of every process.
        without_data: whether a published data set (ImageNet) need not be there, for planning.

    Raises:
        UserError: if the config asks for what does not exist or does not fit.
    """
    if config.task not in _TASKS:
        raise UserError(f"task is one of {', '.join(_TASKS)}, but got {config.task!r}.")
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.model, devices)
    check_config(config, batch_shards(mesh))
    task = _TASKS[config.task](config, model_overrides(config), without_data)
    steps = count_steps(config, task.num_train_examples)
    schedule = make_schedule(config, steps)
    optimizer = make_optimizer(config, schedule)

    averaged = config.ema_decay > 0
    initializer = make_initializer(task.model, optimizer, task.image_shape, averaged)
    shapes = jax.eval_shape(initializer, jax.random.key(0))
    shardings = state_shardings(shapes, optimizer, mesh)
    abstract = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes, shardings
    )
    train_step = make_train_step(
        task,
        optimizer,
        schedule,
        seed=config.seed,
        accumulate_steps=config.accumulate_steps,
        ema_decay=config.ema_decay,
        freeze_backbone=config.freeze_backbone,
    )
    whole = NamedSharding(mesh, PartitionSpec())
    return Run(
        config=config,
        mesh=mesh,
        task=task,
        steps=steps,
        abstract=abstract,
        initialize=jax.jit(initializer, out_shardings=shardings),
        start_from=jax.jit(lambda variables: state_of(variables, optimizer, averaged), out_shardings=shardings),
        train_step=jax.jit(train_step, out_shardings=(shardings, whole), donate_argnums=0),
        eval_step=jax.jit(
            make_eval_step(task), out_shardings=(batch_sharding(mesh) if task.outputs_by_example else whole, whole)
        ),
    )
