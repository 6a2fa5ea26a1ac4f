"""Changes to try if a step does not fit, from the cheapest to the most expensive."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
from ml_collections import ConfigDict

from paca_jax.planning.estimate import Estimate, estimate
from paca_jax.planning.memory import DoesNotFitError
from paca_jax.planning.topology import Topology

MOST_COMPILES = 3
_LARGE_STATE = 0.25  # fraction of the memory above which sharding the state is worth its collectives


@dataclasses.dataclass(frozen=True)
class Tried:
    """An alternative that was compiled.

    Attributes:
        changes: config keys and their new values.
        estimate: its estimate; None if it does not fit.
        needed: the bytes per device that it needs; None if it fits.
    """

    changes: dict[str, Any]
    estimate: Estimate | None
    needed: int | None


def as_flags(changes: dict[str, Any]) -> str:
    """Returns changes of a config as command-line flags."""
    return " ".join(f"--config.{key}={value}" for key, value in changes.items())


def alternatives(config: ConfigDict, shortage: DoesNotFitError, state_bytes: int, devices: int) -> list[dict[str, Any]]:
    """Returns changes of the config that need less memory.

    Args:
        config: the config whose step does not fit.
        shortage: the memory that the step needs and the memory that it may use.
        state_bytes: bytes per device of parameters, optimizer state and averages.
        devices: the number of devices in the slice.

    The batch is split into the smallest number of parts that should fit, and into the next larger one.
    """
    found: list[dict[str, Any]] = [] if config.remat else [{"remat": True}]
    if state_bytes > _LARGE_STATE * shortage.usable:
        found += [{"mesh.fsdp": fsdp} for fsdp in _larger_fsdp(config, devices)]
    if shortage.usable > state_bytes:
        factor = (shortage.needed - state_bytes) / (shortage.usable - state_bytes)
        parts = [parts for parts in _divisors(_images_per_shard(config, devices)) if parts >= factor * config.accumulate_steps]
        found += [{"accumulate_steps": count} for count in parts[:2]]
        if not config.remat:
            found += [{"remat": True, "accumulate_steps": count} for count in parts[:1]]
    return found


def _images_per_shard(config: ConfigDict, devices: int) -> int:
    return config.batch_size * config.mesh.model // devices


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def _larger_fsdp(config: ConfigDict, devices: int) -> Iterator[int]:
    """Yields the next powers of two, up to 16, that the slice can hold; none if the size of the data axis is fixed."""
    fsdp = 2 * config.mesh.fsdp
    while config.mesh.data == -1 and fsdp <= 16 and devices % (fsdp * config.mesh.model) == 0:
        yield fsdp
        fsdp *= 2


def try_alternatives(
    config: ConfigDict, topology: Topology, devices: list[jax.Device], changes: list[dict[str, Any]]
) -> Iterator[Tried]:
    """Compiles the first few alternatives in order until one fits; yields the result of each."""
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
