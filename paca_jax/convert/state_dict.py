"""Between our variables and the official code's state dicts, strict in both directions."""

from collections.abc import Collection, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from paca_jax.convert.names import BACKBONE, Match, group_of_key, match
from paca_jax.errors import UserError
from paca_jax.models.variables import Filled, Place, Variables, abstract_variables, check_fit, fill, misfit

_WRAPPERS = ("state_dict", "model", "state_dict_ema")
_PREFIXES = ("module.", f"{BACKBONE}.")
_LISTED = 20


def from_torch(state_dict: Mapping[str, Any], model: nn.Module, *, allow_new: Collection[str] = (), seed: int = 0) -> Variables:
    """Returns the variables of `model` filled from a state dict of the official PyTorch code.

    Every name is used once and every variable is filled. The usual wrappers and prefixes are removed first: see `unwrap` and
    `fit_prefixes`.

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
    """Fills a model as `from_torch` does. Returns the names that start fresh or are left aside too, and logs nothing."""
    expected = abstract_variables(model)
    matches = {path: match(path) for path in expected}
    blanks = {path: _blank(leaf) for path, leaf in expected.items()}
    state = fit_prefixes(unwrap(state_dict), known=[found.key for found in matches.values()])
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
    return fill(model, arrays, unused, seed)


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


def unwrap(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the state dict inside a training checkpoint.

    Looks under "state_dict", "model" and "state_dict_ema", in this order; a mapping without these is a state dict itself.

    Raises:
        UserError: if the content does not map names to arrays.
    """
    state = checkpoint
    while wrapper := next((key for key in _WRAPPERS if isinstance(state.get(key), Mapping)), None):
        state = state[wrapper]
    strangers = [repr(key) for key, value in state.items() if not (isinstance(key, str) and hasattr(value, "shape"))]
    if strangers or not state:
        wrong = f"{', '.join(strangers[:_LISTED])} hold no array" if strangers else "it is empty"
        raise UserError(
            f"A state dict maps names to arrays, directly or under one of {', '.join(_WRAPPERS)}, but {wrong}. "
            "Give the model's state_dict()."
        )
    return dict(state)


def strip_prefixes(state: Mapping[str, Any], known: Collection[str] = ()) -> dict[str, Any]:
    """Returns the state dict without "module." and "backbone." before its names.

    A prefix is removed only if all names have it and none of the `known` names does.
    """
    state = dict(state)
    while state:
        shared = [p for p in _PREFIXES if all(k.startswith(p) for k in state) and not any(k.startswith(p) for k in known)]
        if not shared:
            break
        state = {key.removeprefix(shared[0]): value for key, value in state.items()}
    return state


def fit_prefixes(state: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Returns the state dict with the prefixes that a model's names have.

    The prefixes that `strip_prefixes` finds are removed. If the model has names that begin with "backbone." and the state dict
    has none, as with a classifier's weights for a segmentor, every name gets it.
    """
    state, prefix = strip_prefixes(state, known), f"{BACKBONE}."
    if any(key.startswith(prefix) for key in known) and not any(key.startswith(prefix) for key in state):
        return {prefix + key: value for key, value in state.items()}
    return state


def _blank(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    """Returns an array of zeros that takes no memory."""
    return np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)


def _to_flax(value: Any, found: Match) -> jax.Array:
    return jnp.array(found.tensor.to_flax(_as_numpy(found.key, value)), found.tensor.flax_dtype)


def _as_numpy(key: str, value: Any) -> np.ndarray:
    if hasattr(value, "detach"):  # a torch tensor; NumPy has no bfloat16 of its own, so floats are widened first
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    array = np.asarray(value)
    counter = key.endswith("num_batches_tracked")
    if not jnp.issubdtype(array.dtype, jnp.integer if counter else jnp.floating):
        raise UserError(f"Expected {'integers' if counter else 'floating-point numbers'} in {key}, got {array.dtype}.")
    return array
