"""What to change where a step does not fit, from the change that costs least to the one that costs most."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
from ml_collections import ConfigDict

from paca_jax.planning.estimate import Estimate, estimate
from paca_jax.planning.memory import DoesNotFitError
from paca_jax.planning.topology import Topology

MOST_COMPILES = 3
_LARGE_STATE = 0.25  # of the memory: from here on, splitting the state is worth its collectives


@dataclasses.dataclass(frozen=True)
class Tried:
    """An alternative that was compiled.

    Attributes:
        changes: keys of the config and their new values.
        estimate: what it needs and takes, where it fits.
        needed: bytes a chip that it needs, where it does not.
    """

    changes: dict[str, Any]
    estimate: Estimate | None
    needed: int | None


def as_flags(changes: dict[str, Any]) -> str:
    """Returns changes of a config as its command line takes them."""
    return " ".join(f"--config.{key}={value}" for key, value in changes.items())


def alternatives(config: ConfigDict, shortage: DoesNotFitError, state_bytes: int, chips: int) -> list[dict[str, Any]]:
    """Returns changes of the config that need less memory.

    Args:
        config: the one whose step does not fit.
        shortage: by how much.
        state_bytes: parameters, optimizer state and averages of a chip.
        chips: of the slice.

    The batch is split into as many parts as bring its share of the memory below what there is, and into twice as many.
    """
    found: list[dict[str, Any]] = [] if config.remat else [{"remat": True}]
    if state_bytes > _LARGE_STATE * shortage.usable:
        found += [{"mesh.fsdp": fsdp} for fsdp in _larger_fsdp(config, chips)]
    if shortage.usable > state_bytes:
        factor = (shortage.needed - state_bytes) / (shortage.usable - state_bytes)
        parts = [parts for parts in _divisors(_images_a_shard(config, chips)) if parts >= factor * config.accumulate_steps]
        found += [{"accumulate_steps": count} for count in parts[:2]]
        if not config.remat:
            found += [{"remat": True, "accumulate_steps": count} for count in parts[:1]]
    return found


def _images_a_shard(config: ConfigDict, chips: int) -> int:
    return config.batch_size * config.mesh.model // chips


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def _larger_fsdp(config: ConfigDict, chips: int) -> Iterator[int]:
    """Yields the next powers of two that the slice holds beside the model axis, where the data axis takes what is left."""
    fsdp = 2 * config.mesh.fsdp
    while config.mesh.data == -1 and fsdp <= 16 and chips % (fsdp * config.mesh.model) == 0:
        yield fsdp
        fsdp *= 2


def try_alternatives(
    config: ConfigDict, topology: Topology, devices: list[jax.Device], changes: list[dict[str, Any]]
) -> Iterator[Tried]:
    """Compiles the first few alternatives, one after the other, until one fits; yields what came of each."""
    for change in changes[:MOST_COMPILES]:
        other = config.copy_and_resolve_references()
        other.update_from_flattened_dict(change)
        try:
            found = estimate(other, topology, devices)
        except DoesNotFitError as shortage:
            yield Tried(change, None, shortage.needed)
        else:
            yield Tried(change, found, None)
            return
