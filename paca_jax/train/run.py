"""A run before its first step: mesh, task, optimizer, and the jitted steps, all made from a config."""

import dataclasses
import functools
import logging
import zlib
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree
from ml_collections import ConfigDict

from paca_jax.ops import describe_choices, record_choices
from paca_jax.sharding import batch_sharding, batch_shards, local_rows, make_mesh
from paca_jax.tasks.base import Task
from paca_jax.tasks.classification.task import Classification
from paca_jax.tasks.detection.task import Detection
from paca_jax.tasks.segmentation.task import Segmentation
from paca_jax.train.config import Steps, check_config, check_values, count_steps, model_overrides
from paca_jax.train.optimizer import make_optimizer, make_schedule
from paca_jax.train.state import TrainState, make_initializer, state_of, state_shardings
from paca_jax.train.train_step import make_eval_step, make_train_step, stream

logger = logging.getLogger(__name__)

_TASKS: dict[str, Callable[[ConfigDict, dict[str, Any], bool], Task]] = {
    "classification": Classification,
    "detection": Detection,
    "segmentation": Segmentation,
}


@dataclasses.dataclass(frozen=True)
class Run:
    """A run before its first step.

    The functions are jitted with their output shardings; call them under `jax.set_mesh(run.mesh)`.

    Attributes:
        config: the config.
        mesh: the device mesh.
        task: the task, with its data, model and loss.
        steps: the length of the run.
        abstract: the shapes, types and shardings of the state.
        initialize: from a random key to a state with random weights.
        start_from: from variables to a state that starts with them.
        train_step: from a state (whose buffers are donated) and a batch to the next state and its scalars.
        eval_step: from variables and a batch to the outputs that the task gathers, and the number of valid examples.
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
        """Returns the state of step 0, with random weights from the seed."""
        return self.initialize(stream(self.config.seed, "init"))

    @property
    def best_metric(self) -> str:
        """The name of the scalar that selects the best checkpoint; more is better."""
        return f"eval/{self.task.best_metric}"

    @property
    def abstract_batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """The shapes, types and shardings of a training batch, over all processes."""
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
        """Returns the global batch, whose rows of this process are the given ones."""
        sharding, size = batch_sharding(self.mesh), self.config.batch_size

        def place(local: np.ndarray) -> Array:
            def shard(index: Any) -> np.ndarray:
                first, last, _ = index[0].indices(size)
                return local[bisect_left(self.rows, first) : bisect_left(self.rows, last)]

            return jax.make_array_from_callback((size, *local.shape[1:]), sharding, shard)

        return {name: place(array) for name, array in batch.items()}

    def metadata(self) -> dict[str, Any]:
        """Returns the description of the run that its checkpoints hold.

        It leaves out the implementation of the operations, which belongs to the machine.
        """
        config = self.config.to_dict()
        del config["model"]["implementation"]
        return {
            "model": self.task.recipe,
            "class_names": list(self.task.class_names),
            "config": config,
            "state_layout": self._state_layout,
        }

    @functools.cached_property
    def _state_layout(self) -> int:
        """A checksum of the names and shapes of the state's arrays."""
        leaves = jax.tree_util.tree_leaves_with_path(self.abstract, is_leaf=lambda part: part == ())
        lines = (f"{jax.tree_util.keystr(path)} {getattr(leaf, 'shape', 'nothing')}" for path, leaf in leaves)
        return zlib.crc32("\n".join(lines).encode())


def prepare(config: ConfigDict, devices: Sequence[jax.Device] | None = None, without_data: bool = False) -> Run:
    """Returns the run that a config describes.

    Args:
        config: the config of the run, from `default_config()`.
        devices: the devices of the mesh; by default all devices of all processes.
        without_data: whether a published data set (ImageNet) may be missing, for planning.

    Raises:
        UserError: if a value of the config is wrong, or the data set, the model or the devices do not fit.
    """
    check_values(config)
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
    whole = NamedSharding(mesh, PartitionSpec())
    return Run(
        config=config,
        mesh=mesh,
        task=task,
        steps=steps,
        abstract=abstract,
        initialize=jax.jit(initializer, out_shardings=shardings),
        start_from=jax.jit(lambda variables: state_of(variables, optimizer, averaged), out_shardings=shardings),
        train_step=jax.jit(
            make_train_step(task, optimizer, schedule, config), out_shardings=(shardings, whole), donate_argnums=0
        ),
        eval_step=jax.jit(
            make_eval_step(task), out_shardings=(batch_sharding(mesh) if task.outputs_by_example else whole, whole)
        ),
    )


@contextmanager
def log_implementations() -> Iterator[None]:
    """A context that logs, at its end, which implementation each operation traced in it took, and why not a faster one."""
    with record_choices() as choices:
        try:
            yield
        finally:
            for line in describe_choices(choices):
                logger.info("%s", line)
