"""Between our variables and the official code's state dicts, strict in both directions."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from paca_jax.convert.arrays import check_dense, to_numpy
from paca_jax.convert.checkpoint import check_mapping, find_state_dict
from paca_jax.convert.names import BACKBONE, Match, group_of_key, match
from paca_jax.errors import UserError
from paca_jax.models.variables import Filled, Place, Variables, abstract_variables, check_fit, fill, misfit


def from_torch(state_dict: Mapping[str, Any], model: nn.Module, *, allow_new: Collection[str] = (), seed: int = 0) -> Variables:
    """Returns the variables of `model` filled from a state dict of the official PyTorch code.

    Every name is used once and every variable is filled. The state dict may stand in a training checkpoint, and its names may
    have a prefix: see `paca_jax.convert.checkpoint.find_state_dict`.

    Args:
        state_dict: {name: NumPy array or torch tensor}, floats of any width.
        model: the model to fill.
        allow_new: "head" and/or "clustering": arrays of these groups that are missing or misshapen start fresh, and those
            without a place are left aside, instead of failing; a warning names them.
        seed: seed of the arrays that start fresh.

    Returns:
        {"params": ..., "batch_stats": ... if the model has any}: nested dicts of float32 arrays (counters int32), as from
        `model.init`.

    Raises:
        UserError: listing every missing, unexpected and misshapen name.
    """
    filled = fill_from_torch(state_dict, model, allow_new=allow_new, seed=seed)
    filled.log_departures()
    return filled.variables


def fill_from_torch(
    state_dict: Mapping[str, Any], model: nn.Module, *, allow_new: Collection[str] = (), seed: int = 0
) -> Filled:
    """Fills a model as `from_torch` does. Returns what there is to say about it too, and logs nothing."""
    source, notes = find_state_dict(state_dict)
    for key, value in source.items():
        check_dense(key, value)
    expected = abstract_variables(model)
    matches = {path: match(path) for path in expected}
    blanks = {path: _blank(leaf) for path, leaf in expected.items()}
    state = _below_backbone(source, known=[found.key for found in matches.values()])
    constants = {key: derive(blanks[path]) for path, found in matches.items() for key, derive in found.constants.items()}
    places = [Place(found.key, found.tensor.to_torch(blanks[path]).shape, found.group) for path, found in matches.items()]
    places += [Place(key, constant.shape, None) for key, constant in constants.items()]
    fresh, unused = check_fit(places, state, group_of_key, allow_new)
    altered = [
        f"{key} (expected the constant {constant[0, 0].tolist()}, found other values)"
        for key, constant in constants.items()
        if not np.array_equal(_as_numpy(key, state[key]), constant)
    ]
    if altered:
        raise misfit(misshapen=altered)
    arrays = {path: _to_flax(state[found.key], found) for path, found in matches.items() if found.key not in fresh}
    return dataclasses.replace(fill(model, arrays, unused, seed), notes=notes)


def to_torch(variables: Mapping[str, Any], model: nn.Module) -> dict[str, np.ndarray]:
    """Returns the state dict of the official PyTorch code, which loads it with `strict=True`.

    Args:
        variables: the variables from `model.init`, `from_torch` or `load`, on the host or on devices, sharded or not; or a tree
            of gradients, {"params": ...} or the bare tree of parameters.
        model: the model they belong to.

    Returns:
        {name: array} in PyTorch's layout, float32 (counters int64), every bit of a float32 array kept. For parameters or
        gradients alone, the names of parameters; with "batch_stats", those of buffers too.

    Raises:
        UserError: listing every missing, unexpected and misshapen array.
    """
    check_mapping("variables", variables)
    tree = dict(variables) if "params" in variables else {"params": variables}
    found = flatten_dict(tree, sep="/")
    buffers = "batch_stats" in tree
    expected = {path: leaf for path, leaf in abstract_variables(model).items() if buffers or path.startswith("params/")}
    check_fit([Place(path, leaf.shape, None) for path, leaf in expected.items()], found, lambda path: None)

    state: dict[str, np.ndarray] = {}
    for path in expected:
        matched = match(path)
        array = np.asarray(found[path])
        state[matched.key] = np.array(matched.tensor.to_torch(array), matched.tensor.torch_dtype, order="C")
        if buffers:
            state |= {key: np.array(derive(array), order="C") for key, derive in matched.constants.items()}
    return state


def _below_backbone(state: dict[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Puts "backbone." before every name if the model has such names and the state dict, of a classifier, has none."""
    prefix = f"{BACKBONE}."
    if any(key.startswith(prefix) for key in known) and not any(key.startswith(prefix) for key in state):
        return {prefix + key: value for key, value in state.items()}
    return state


def _blank(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    """Returns an array of zeros that takes no memory."""
    return np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)


def _to_flax(value: Any, found: Match) -> jax.Array:
    return jnp.array(found.tensor.to_flax(_as_numpy(found.key, value)), found.tensor.flax_dtype)


def _as_numpy(key: str, value: Any) -> np.ndarray:
    array = to_numpy(value)
    counter = key.endswith("num_batches_tracked")
    if not jnp.issubdtype(array.dtype, jnp.integer if counter else jnp.floating):
        raise UserError(f"Expected {'integers' if counter else 'floating-point numbers'} in {key}, got {array.dtype}.")
    return array
