"""The state dict inside a training checkpoint: the raw or the averaged weights, by the official code's names."""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from paca_jax.convert.arrays import is_array
from paca_jax.convert.names import is_official
from paca_jax.errors import UserError, check

RAW, EMA = WEIGHTS = ("raw", "ema")

# Names of mappings that hold a state dict, or another such mapping.
_RAW_WRAPPERS = ("state_dict", "model", "model_state_dict", "model_state", "module", "net", "network", "params")
_EMA_WRAPPERS = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "params_ema")
_DEEPEST = 4  # of such mappings in each other
_LONGEST_NAME = 500  # characters
_WRAPPERS = (*_RAW_WRAPPERS, *_EMA_WRAPPERS)
_AVERAGED_WORDS = {"ema", "average", "averaged", "avg", "swa", "shadow"}
# Counters that averaging adds to a state dict: of torch.optim.swa_utils.AveragedModel, and of mmengine.
_SWA_COUNTER = "n_averaged"
_COUNTERS = (_SWA_COUNTER, "steps")
_LISTED = 20


class StateDict(NamedTuple):
    """A state dict as it was found.

    Attributes:
        arrays: {name: array}; each name is one of the official code if the source has such names.
        notes: sentences on how it was read, for people.
    """

    arrays: dict[str, Any]
    notes: list[str]


def check_weights(weights: str | None) -> None:
    """Raises a `UserError` unless the argument is "raw", "ema" or None."""
    if weights not in (None, *WEIGHTS):
        raise UserError(
            f"Expected weights to be {' or '.join(map(repr, WEIGHTS))}, got {weights!r}. Choose one, or leave it out."
        )


def check_mapping(name: str, value: object) -> None:
    """Raises a `UserError` unless the argument of this name is a mapping."""
    check(isinstance(value, Mapping), f"Expected {name} as a dict, got {type(value).__name__}. Pass one, and the model second.")


def check_state_dict(state: Mapping[str, Any]) -> None:
    """Checks that a mapping is a state dict.

    Raises:
        UserError: if it is no mapping, is empty, or has something else than printable names and arrays of numbers.
    """
    check(isinstance(state, Mapping), f"Expected a state dict, got {type(state).__name__}. Pass a mapping of names to arrays.")
    strangers = [repr(key) for key, value in state.items() if not (isinstance(key, str) and is_array(value))]
    if strangers or not state:
        wrong = f"{', '.join(strangers[:_LISTED])} hold no array of numbers" if strangers else "it is empty"
        raise UserError(
            f"A state dict maps names to arrays, directly or under one of {', '.join(_WRAPPERS)}, but {wrong}. "
            "Give the model's state_dict()."
        )
    for name in state:
        if len(name) > _LONGEST_NAME or not name.isprintable():
            raise UserError(
                f"Expected printable names of at most {_LONGEST_NAME} characters for arrays, got {name[:_LONGEST_NAME]!r}. "
                "Save the state dict again."
            )


def find_state_dict(checkpoint: Mapping[str, Any], weights: str | None = None) -> StateDict:
    """Returns the state dict inside a training checkpoint of timm, DeiT, mmengine, Lightning or `torch.compile`.

    Looks into the usual mappings ("state_dict", "model", "state_dict_ema", ...). A prefix that precedes the official code's
    names ("module.", "_orig_mod.", "encoder.", ...) is left out, and so is "backbone." if all names have it. A missing
    `num_batches_tracked` becomes 0, as in PyTorch.

    Args:
        checkpoint: a state dict, or a mapping that holds one.
        weights: "raw" or "ema", if the checkpoint holds both; None for the raw ones, or those that it has. mmengine keeps the
            averaged ones as "state_dict", which None takes.

    Raises:
        UserError: if the content does not map names to arrays, there are no such weights, or it is unclear which are meant.
    """
    check_mapping("a state dict", checkpoint)
    check_weights(weights)
    notes: list[str] = []
    state, kind = _unwrap(checkpoint, weights, notes)
    check_state_dict(state)
    state, kind = _strip_prefix(state, kind, weights, notes)
    if weights not in (None, kind or RAW):
        other = "averaged" if weights == EMA else "raw"
        raise UserError(f"Expected {other} weights (weights={weights!r}), got only {_KINDS[kind or RAW]}. Leave weights out.")
    return StateDict(_with_counters(state, notes), notes)


_KINDS = {RAW: "the raw ones", EMA: "the averaged ones"}


def _unwrap(checkpoint: Mapping[str, Any], weights: str | None, notes: list[str]) -> tuple[Mapping[str, Any], str | None]:
    """Returns the mapping that holds the arrays, and the kind of its weights if the names on the way say it."""
    state, kind = checkpoint, None
    for _ in range(_DEEPEST):
        found = {
            RAW: next((key for key in _RAW_WRAPPERS if _holds_arrays(state.get(key))), None),
            EMA: next((key for key in _EMA_WRAPPERS if _holds_arrays(state.get(key))), None),
        }
        default = RAW if found[RAW] else EMA
        if "message_hub" in state and found[EMA] == "ema_state_dict":  # mmengine saves the two under each other's name
            found, default = {RAW: found[EMA], EMA: found[RAW]}, EMA
        taken = weights if weights and found[weights] else default
        key = found[taken]
        if key is None:
            return state, kind
        if None not in found.values():
            kind = taken
            _note_choice(kind, found, notes)
        elif taken == EMA:
            kind = EMA
        state = state[key]
    return state, kind


def _holds_arrays(value: Any) -> bool:
    """Returns whether a value is a mapping with arrays, directly or in the usual mappings. One may hold itself."""
    seen: set[int] = set()
    left = [value]
    while left:
        found = left.pop()
        if not isinstance(found, Mapping) or id(found) in seen:
            continue
        seen.add(id(found))
        if any(map(is_array, found.values())):
            return True
        left += [found[key] for key in _WRAPPERS if key in found]
    return False


def _note_choice(kind: str, found: Mapping[str, str | None], notes: list[str]) -> None:
    other = RAW if kind == EMA else EMA
    notes.append(f"Takes {_KINDS[kind]} ({found[kind]!r}); weights={other!r} takes {_KINDS[other]} ({found[other]!r}).")


def _strip_prefix(
    state: Mapping[str, Any], kind: str | None, weights: str | None, notes: list[str]
) -> tuple[dict[str, Any], str | None]:
    """Leaves out the prefix before the official names, and chooses if two prefixes hold a whole state dict each."""
    prefixes = _prefixes(state)
    if not prefixes:
        return dict(state), kind
    prefix = prefixes[0]
    if len(prefixes) > 1:
        averaged = [p for p in prefixes if _AVERAGED_WORDS & set(p.replace(".", "_").split("_"))]
        if len(prefixes) != 2 or len(averaged) != 1:
            listed = ", ".join(map(repr, prefixes))
            raise UserError(
                f"Expected one model's state dict, got {len(prefixes)}, whose names begin with {listed}. Save one of them."
            )
        found = {EMA: averaged[0], RAW: next(p for p in prefixes if p not in averaged)}
        kind = weights or RAW
        prefix = found[kind]
        _note_choice(kind, found, notes)
    elif prefix:
        notes.append(f"Leaves out {prefix!r}, with which the names begin.")
    counters = [key for key in _COUNTERS if prefix and key in state]
    if counters:
        notes.append(f"Left aside: {', '.join(counters)}.")
    kind = EMA if _SWA_COUNTER in counters else kind
    others = tuple(other for other in prefixes if other != prefix)
    stripped = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    rest = {key: value for key, value in state.items() if not key.startswith((prefix, *others)) and key not in counters}
    if twice := sorted(rest.keys() & stripped.keys()):
        raise UserError(
            f"Expected each name once, got {twice[0]!r} with and without {prefix!r} before it. Save one of the two."
        )
    return stripped | rest, kind


def _prefixes(names: Collection[str]) -> list[str]:
    """Returns the longest prefix before as many official names as possible; several if each precedes equally many."""
    counts: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        for first in range(len(parts)):
            if is_official(".".join(parts[first:])):
                counts["".join(f"{part}." for part in parts[:first])] += 1
    most = [prefix for prefix, count in counts.items() if count == max(counts.values())]
    return [prefix for prefix in most if not any(other != prefix and other.startswith(prefix) for other in most)]


def _with_counters(state: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    norms = [key.removesuffix("running_mean") for key in state if key.endswith(".running_mean") and is_official(key)]
    missing = [key for norm in norms if (key := f"{norm}num_batches_tracked") not in state]
    if missing:
        notes.append(f"num_batches_tracked is missing for {len(missing)} BatchNorms and becomes 0.")
    return state | {key: np.zeros((), np.int64) for key in missing}
