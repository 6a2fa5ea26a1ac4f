"""The state of a run, from one step to the next, and its layout on the mesh."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int, PyTree

from paca_jax.sharding import parameter_shardings


@flax.struct.dataclass
class TrainState:
    """The whole state of a run. Random keys and the position in the data are not in it: both follow from `step` and the seed.

    Attributes:
        step: the number of optimizer steps done.
        params: the parameters of the model, float32.
        batch_stats: the running statistics; empty for a model without BatchNorm.
        opt_state: the state of the optimizer.
        ema: {"params", "batch_stats"} averaged over the steps, or None.
        skipped: the number of images skipped so far because they could not be read.
        nonfinite: the number of steps so far whose loss, gradient or new parameters were infinite or NaN.
    """

    step: Int[Array, ""]
    params: PyTree
    batch_stats: PyTree
    opt_state: PyTree
    ema: PyTree | None
    skipped: Int[Array, ""]
    nonfinite: Int[Array, ""]

    @property
    def variables(self) -> dict[str, Any]:
        """The variables that training changes, as `model.apply` takes them."""
        return as_variables(self.params, self.batch_stats)

    @property
    def eval_variables(self) -> dict[str, Any]:
        """The variables to evaluate and to publish: the averaged ones, if the state has them."""
        return self.variables if self.ema is None else as_variables(**self.ema)

    @property
    def parts(self) -> dict[str, PyTree]:
        """The named parts of a checkpoint: `variables`, `training` and, if there is an average, `ema`."""
        training = {"step": self.step, "opt_state": self.opt_state, "skipped": self.skipped, "nonfinite": self.nonfinite}
        averaged = {} if self.ema is None else {"ema": as_variables(**self.ema)}
        return {"variables": self.variables, "training": training, **averaged}

    @classmethod
    def from_parts(cls, parts: dict[str, PyTree]) -> "TrainState":
        """Returns the state with these parts."""
        collections = {
            name: {"params": parts[name]["params"], "batch_stats": parts[name].get("batch_stats", {})}
            for name in ("variables", "ema")
            if name in parts
        }
        return cls(**collections["variables"], ema=collections.get("ema"), **parts["training"])


def as_variables(params: PyTree, batch_stats: PyTree) -> dict[str, Any]:
    """Returns the collections as `model.init` does: without `batch_stats` if there are none."""
    return {"params": params, "batch_stats": batch_stats} if batch_stats else {"params": params}


def make_initializer(
    model: nn.Module, optimizer: optax.GradientTransformation, image_shape: tuple[int, ...], averaged: bool
) -> Callable[[jax.Array], TrainState]:
    """Returns the function from a random key to a fresh state.

    Args:
        model: the network.
        optimizer: the optimizer, which makes its part of the state.
        image_shape: (H, W, C) of one example.
        averaged: whether the state keeps an average of the variables.
    """

    def initialize(key: jax.Array) -> TrainState:
        variables = model.init(key, jnp.zeros((1, *image_shape)))
        return state_of(dict(variables), optimizer, averaged)

    return initialize


def state_of(variables: dict[str, Any], optimizer: optax.GradientTransformation, averaged: bool) -> TrainState:
    """Returns the state of a run that starts from the given variables."""
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    zero = jnp.zeros((), jnp.int32)
    ema = {"params": params, "batch_stats": batch_stats} if averaged else None
    return TrainState(zero, params, batch_stats, optimizer.init(params), ema, zero, zero)


def state_shardings(abstract: TrainState, optimizer: optax.GradientTransformation, mesh: Mesh) -> PyTree:
    """Returns the sharding of each array of a state.

    The table of `paca_jax.sharding` gives that of a parameter. Its moments and its average have the same.

    Args:
        abstract: the shapes of the state, from `jax.eval_shape`.
        optimizer: the optimizer that made its part of the state.
        mesh: the device mesh.
    """
    whole = NamedSharding(mesh, PartitionSpec())
    params = parameter_shardings(abstract.params, mesh)
    opt_state = optax.tree_map_params(
        optimizer,
        lambda part, sharding: part if isinstance(part, optax.MaskedNode) else sharding,
        abstract.opt_state,
        params,
        transform_non_params=lambda _: whole,
        is_leaf=lambda part: isinstance(part, optax.MaskedNode),
    )
    batch_stats = jax.tree.map(lambda _: whole, abstract.batch_stats)
    ema = None if abstract.ema is None else {"params": params, "batch_stats": batch_stats}
    parts: dict[str, PyTree] = {
        "step": whole,
        "params": params,
        "batch_stats": batch_stats,
        "opt_state": opt_state,
        "ema": ema,
        "skipped": whole,
        "nonfinite": whole,
    }
    return TrainState(**parts)
