"""What a step carries to the next one, and where each part lives on the mesh."""

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
    """The whole state of a run: no random key, no position in the data, both follow from `step` and the seed.

    Attributes:
        step: optimizer steps done.
        params: the model's parameters, float32.
        batch_stats: running statistics; empty for a model without BatchNorm.
        opt_state: the optimizer's.
        ema: {"params", "batch_stats"} averaged over the steps, or None.
        skipped: images left out so far because they could not be read.
        nonfinite: steps so far that changed nothing because their loss or gradient was infinite or undefined.
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
        """The variables to evaluate and to hand out: the averaged ones where there are."""
        return self.variables if self.ema is None else as_variables(**self.ema)


def as_variables(params: PyTree, batch_stats: PyTree) -> dict[str, Any]:
    """Returns the collections as `model.init` would give them: `batch_stats` only where there are any."""
    return {"params": params, "batch_stats": batch_stats} if batch_stats else {"params": params}


def make_initializer(
    model: nn.Module, optimizer: optax.GradientTransformation, image_shape: tuple[int, ...], averaged: bool
) -> Callable[[jax.Array], TrainState]:
    """Returns the function from a random key to a fresh state.

    Args:
        model: the network.
        optimizer: the optimizer whose state is part of the result.
        image_shape: (H, W, C) of one example.
        averaged: whether the state keeps an average of the variables.
    """

    def initialize(key: jax.Array) -> TrainState:
        variables = model.init(key, jnp.zeros((1, *image_shape)))
        return state_of(dict(variables), optimizer, averaged)

    return initialize


def state_of(variables: dict[str, Any], optimizer: optax.GradientTransformation, averaged: bool) -> TrainState:
    """Returns the state of a run that starts from these variables."""
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    zero = jnp.zeros((), jnp.int32)
    ema = {"params": params, "batch_stats": batch_stats} if averaged else None
    return TrainState(zero, params, batch_stats, optimizer.init(params), ema, zero, zero)


def state_shardings(abstract: TrainState, optimizer: optax.GradientTransformation, mesh: Mesh) -> PyTree:
    """Returns the sharding of each array of a state: parameters by the table, their moments and averages like them.

    Args:
        abstract: the state's shapes, from `jax.eval_shape`.
        optimizer: the optimizer that the state was made with.
        mesh: the mesh to lay it out on.
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
