"""Several processes, each with its own devices, as one run."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from paca_jax.errors import UserError

_VARIABLES = {
    "coordinator_address": "JAX_COORDINATOR_ADDRESS",
    "num_processes": "JAX_NUM_PROCESSES",
    "process_id": "JAX_PROCESS_ID",
}


def gather_bytes(part: bytes) -> list[bytes]:
    """Returns what each process gave, in the order of the processes; all of them must call it."""
    lengths = multihost_utils.process_allgather(np.array([len(part)])).ravel()
    padded = np.frombuffer(part.ljust(max(int(lengths.max()), 1), b"\0"), np.uint8)
    rows = multihost_utils.process_allgather(padded).reshape(len(lengths), -1)
    return [row[:length].tobytes() for row, length in zip(rows, lengths, strict=True)]


def start_processes(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    heartbeat_timeout: int = 100,
) -> int:
    """Makes this process one of several, before anything else asks JAX for devices.

    What is not given is read from the environment variables JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.
    Where none is there either, a Cloud TPU, Slurm, Kubernetes or Open MPI tells it, and elsewhere this process stays alone, as
    it does with `num_processes=1`.

    Args:
        coordinator_address: HOST:PORT at which process 0 can be reached by all of them.
        num_processes: how many there are.
        process_id: this one's number, from 0.
        heartbeat_timeout: seconds after which a process that is not heard of counts as lost, and all others stop.

    Returns:
        This process's number.

    Raises:
        UserError: if only some are given, or they are not valid, or not all processes meet within five minutes.
    """
    given: dict[str, Any] = {
        "coordinator_address": coordinator_address or os.environ.get(_VARIABLES["coordinator_address"]),
        "num_processes": _number("num_processes", num_processes),
        "process_id": _number("process_id", process_id),
    }
    if given["num_processes"] == 1:
        return 0
    missing = [f"--{name} or {_VARIABLES[name]}" for name, value in given.items() if value is None]
    if 0 < len(missing) < len(given):
        raise UserError(f"Several processes need an address, their number and this one's id; lacking is {', '.join(missing)}.")
    try:
        jax.distributed.initialize(
            **given, heartbeat_timeout_seconds=heartbeat_timeout, shutdown_timeout_seconds=heartbeat_timeout
        )
    except ValueError as error:
        if missing and "coordinator_address should be defined" in str(error):
            return 0  # no cluster that tells
        raise UserError(f"The processes cannot be told apart: {error}") from error
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"The processes did not meet at {given['coordinator_address'] or 'the address that the cluster tells'} ({reason}); "
            "start the same command on every host, with the same address and number."
        ) from error
    return jax.process_index()


@contextmanager
def stop_together() -> Iterator[None]:
    """A context in which this process ends at once, with status 1, where the devices of the others cannot be reached any more.

    Leaving in good order would wait for the very processes that are lost.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        print(
            f"error: Process {jax.process_index()} of {jax.process_count()} stops, for a step over all of them has failed "
            f"({' '.join(str(error).split())[:300]}). Where a connection was lost, another process has ended, and its own "
            "output tells why. Start the same command on every host to go on from the newest checkpoint.",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)


def _number(name: str, value: int | None) -> int | None:
    text = os.environ.get(_VARIABLES[name])
    if value is not None or not text:
        return value
    if not text.isdigit():
        raise UserError(f"{_VARIABLES[name]} is a whole number, but got {text!r}.")
    return int(text)
