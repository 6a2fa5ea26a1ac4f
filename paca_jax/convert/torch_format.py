"""Between our variables and the official code's state dicts, strict in both directions."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from flax.traverse_util import flatten_dict, unflatten_dict

from paca_jax.convert.names import BACKBONE, GROUPS, Match, group_of_key, match
from paca_jax.errors import UserError

Variables = dict[str, Any]

_WRAPPERS = ("state_dict", "model", "state_dict_ema")
_PREFIXES = ("module.", f"{BACKBONE}.")
_INIT_SIDE = 32
_LISTED = 20


class Conversion(NamedTuple):
    """What `convert_state_dict` made.

    Attributes:
        variables: {"params": ..., "batch_stats": ... where there are any}, nested dicts of float32 arrays (counters int32).
        fresh: paths of the arrays that start fresh, for want of a fitting one ("params/head/kernel").
        unused: names in the state dict that were left aside, for want of a place.
    """

    variables: Variables
    fresh: list[str]
    unused: list[str]


def from_torch(state_dict: Mapping[str, Any], model: nn.Module, *, allow_new: Collection[str] = (), seed: int = 0) -> Variables:
    """Returns the variables of `model` filled from a state dict of the official PyTorch code.

    Every name is used once and every variable filled. The usual wrappings are taken off first: see `unwrap`.

    Args:
        state_dict: {name: NumPy array or torch tensor}, floats of any width.
        model: the model to fill.
        allow_new: "head" and/or "clustering": what of these is missing, does not fit or has no place starts fresh (or is left
            aside) instead of failing; a warning names it.
        seed: seed of what starts fresh.

    Returns:
        {"params": ..., "batch_stats": ... where there are any}: nested dicts of float32 arrays (counters int32), as from
        `model.init`.

    Raises:
        UserError: listing every missing, unexpected and misshapen name.
    """
    conversion = convert_state_dict(state_dict, model, allow_new=allow_new, seed=seed)
    for sentence in departures(conversion.fresh, conversion.unused):
        logging.warning("%s", sentence)
    return conversion.variables


def convert_state_dict(
    state_dict: Mapping[str, Any], model: nn.Module, *, allow_new: Collection[str] = (), seed: int = 0
) -> Conversion:
    """Does what `from_torch` does, and returns what starts fresh or was left aside instead of logging it."""
    _check_groups(allow_new)
    expected = _expected_arrays(model)
    matches = {path: match(path) for path in expected}
    state = fit_prefixes(unwrap(state_dict), known=[found.key for found in matches.values()])

    missing, misshapen, fresh, used, constants = [], [], [], set(), {}
    filled: dict[str, jax.Array] = {}
    for path, shape in expected.items():
        found = matches[path]
        wanted = found.tensor.to_torch(_blank(shape, found.tensor.flax_dtype))
        for key, derive in found.constants.items():
            constants[key] = derive(_blank(shape, found.tensor.flax_dtype))
        value = state.get(found.key)
        used.add(found.key)
        if value is not None and tuple(value.shape) == wanted.shape:
            filled[path] = _to_flax(value, found)
        elif found.group in allow_new:
            fresh.append(path)
        elif value is None:
            missing.append(found.key)
        else:
            misshapen.append(f"{found.key} (expected {wanted.shape}, found {tuple(value.shape)})")

    for key, constant in constants.items():
        if key not in state:
            missing.append(key)
        elif tuple(state[key].shape) != constant.shape:
            misshapen.append(f"{key} (expected {constant.shape}, found {tuple(state[key].shape)})")
        elif not np.array_equal(_as_numpy(key, state[key]), constant):
            misshapen.append(f"{key} (expected the constant {constant[0, 0].tolist()}, found other values)")
    left = sorted(key for key in state if key not in used and key not in constants)
    unused = [key for key in left if group_of_key(key) in allow_new]
    unexpected = [key for key in left if key not in unused]
    if missing or unexpected or misshapen:
        raise UserError(_mismatch(missing, unexpected, misshapen, allow_new))
    filled.update(_init(model, fresh, seed))
    return Conversion(_nest(filled, expected), fresh, unused)


def departures(fresh: Sequence[str], unused: Sequence[str]) -> list[str]:
    """Returns sentences on what starts fresh and what was left aside; many names are counted by their first two parts."""
    parts = {"Starts fresh": (fresh, "/"), "Left aside": (unused, ".")}
    return [f"{words}: {_condensed(names, separator)}." for words, (names, separator) in parts.items() if names]


def _condensed(names: Sequence[str], separator: str) -> str:
    if len(names) <= _LISTED:
        return ", ".join(names)
    counts = Counter(separator.join(name.split(separator)[:2]) for name in names)
    return ", ".join(f"{name} ({count} arrays)" for name, count in counts.items())


def to_torch(variables: Mapping[str, Any], model: nn.Module) -> dict[str, np.ndarray]:
    """Returns the state dict of the official PyTorch code, which loads it with `strict=True`.

    Args:
        variables: what `model.init`, `from_torch` or `load` returns, on the host or on devices, sharded or not; or a tree of
            gradients, {"params": ...} or the bare tree of parameters.
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
    expected = {path: shape for path, shape in _expected_arrays(model).items() if buffers or path.startswith("params/")}

    missing = [path for path in expected if path not in found]
    unexpected = [path for path in found if path not in expected]
    misshapen = [
        f"{path} (expected {shape}, found {np.shape(found[path])})"
        for path, shape in expected.items()
        if path in found and np.shape(found[path]) != shape
    ]
    if missing or unexpected or misshapen:
        raise UserError(_mismatch(missing, unexpected, misshapen, GROUPS))

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
        UserError: if what is inside is not names of arrays.
    """
    state = checkpoint
    while wrapper := next((key for key in _WRAPPERS if isinstance(state.get(key), Mapping)), None):
        state = state[wrapper]
    strangers = [repr(key) for key, value in state.items() if not (isinstance(key, str) and hasattr(value, "shape"))]
    if strangers or not state:
        wrong = f"{', '.join(strangers[:_LISTED])} hold no array" if strangers else "it is empty"
        raise UserError(
            f"A state dict maps names to arrays, plainly or under one of {', '.join(_WRAPPERS)}, but {wrong}; "
            "give the model's state_dict()."
        )
    return dict(state)


def strip_prefixes(state: Mapping[str, Any], known: Collection[str] = ()) -> dict[str, Any]:
    """Returns the state dict without "module." and "backbone." before its names.

    A prefix goes only when all names have it and none of the `known` names does.
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

    What `strip_prefixes` takes off goes. Where the model has names with "backbone." before them and the state dict has none, as
    with a classifier's weights for a segmentor, all get it.
    """
    state, prefix = strip_prefixes(state, known), f"{BACKBONE}."
    if any(key.startswith(prefix) for key in known) and not any(key.startswith(prefix) for key in state):
        return {prefix + key: value for key, value in state.items()}
    return state


@lru_cache(maxsize=32)
def _expected_arrays(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Returns {path: shape} of every variable of the model."""
    variables = jax.eval_shape(lambda key: _initialize(model, key), jax.random.key(0))
    return {path: tuple(leaf.shape) for path, leaf in flatten_dict(variables, sep="/").items()}


def _initialize(model: nn.Module, key: jax.Array) -> Variables:
    return dict(model.init(key, jnp.zeros((1, _INIT_SIDE, _INIT_SIDE, model.config.image_channels))))


def _init(model: nn.Module, paths: list[str], seed: int) -> dict[str, jax.Array]:
    """Draws some of the variables as `model.init` does; the compiler drops whatever they do not need."""

    def draw(key: jax.Array) -> dict[str, jax.Array]:
        flat = flatten_dict(_initialize(model, key), sep="/")
        return {path: flat[path] for path in paths}

    return jax.jit(draw)(jax.random.key(seed)) if paths else {}


def _nest(flat: dict[str, jax.Array], order: Collection[str]) -> Variables:
    return unflatten_dict({path: flat[path] for path in order}, sep="/")


def _blank(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    return np.broadcast_to(dtype(0), shape)


def _to_flax(value: Any, found: Match) -> jax.Array:
    return jnp.array(found.tensor.to_flax(_as_numpy(found.key, value)), found.tensor.flax_dtype)


def _as_numpy(key: str, value: Any) -> np.ndarray:
    if hasattr(value, "detach"):  # a torch tensor; NumPy has no bfloat16 of its own, so floats are widened first
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    array = np.asarray(value)
    counter = key.endswith("num_batches_tracked")
    if not jnp.issubdtype(array.dtype, jnp.integer if counter else jnp.floating):
        raise UserError(f"{key} holds {'integers' if counter else 'floating-point numbers'}, but got {array.dtype}.")
    return array


def _check_groups(allow_new: Collection[str]) -> None:
    if isinstance(allow_new, str) or not set(allow_new) <= set(GROUPS):
        raise UserError(f"allow_new is a tuple of some of {GROUPS}, but got {allow_new!r}.")


def _mismatch(missing: list[str], unexpected: list[str], misshapen: list[str], allow_new: Collection[str]) -> str:
    lists = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
    told = "; ".join(f"{word} ({len(keys)}): {_enumerate(keys)}" for word, keys in lists.items() if keys)
    concerned = {group_of_key(entry.split(" ")[0]) for entry in [*missing, *unexpected, *misshapen]}
    asked = [group for group in GROUPS if group in concerned and group not in allow_new]
    advice = "check that this is the model (name, num_classes, clusters) that the weights were made for"
    if asked and None not in concerned:
        asked_for = f"allow_new={tuple(asked)} (--allow-new {','.join(asked)})"
        advice = f"for another head, other classes or clusters, {asked_for} lets these layers start fresh"
    return f"The weights do not fit the model. {told}; {advice}."


def _enumerate(keys: list[str]) -> str:
    rest = len(keys) - _LISTED
    return ", ".join(keys[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")
