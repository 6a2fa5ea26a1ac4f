"""Multi-process runs: start-up, gathering of bytes, and the end if a process is lost."""

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
    """Returns the bytes that each process passes, in process order; all processes must call it."""
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
    """Connects this process with the others of a run; call it before anything else asks JAX for devices.

    Arguments that are None are read from the environment variables JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
    JAX_PROCESS_ID. If those are not set either, JAX detects a Cloud TPU, Slurm, Kubernetes or Open MPI. Without any of these,
    or with `num_processes=1`, the process runs alone.

    Args:
        coordinator_address: HOST:PORT at which all processes can reach process 0.
        num_processes: the number of processes.
        process_id: the index of this process, from 0.
        heartbeat_timeout: seconds of silence after which a process counts as lost and all others stop.

    Returns:
        The index of this process.

    Raises:
        UserError: if only some of the values are given, if they are not valid, or if the processes do not connect within five
            minutes.
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
        raise UserError(
            f"Expected a coordinator address, a number of processes and a process id, got only some. Add {', '.join(missing)}."
        )
    try:
        jax.distributed.initialize(
            **given, heartbeat_timeout_seconds=heartbeat_timeout, shutdown_timeout_seconds=heartbeat_timeout
        )
    except ValueError as error:
        if missing and "coordinator_address should be defined" in str(error):
            return 0  # no cluster was detected
        raise UserError(f"Expected a valid address, number of processes and process id, got: {error} Correct them.") from error
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"Expected all processes to connect to {given['coordinator_address'] or 'the address that the cluster reports'}, "
            f"got: {reason}. Start the same command on every host, with the same address and number of processes."
        ) from error
    return jax.process_index()


@contextmanager
def stop_together() -> Iterator[None]:
    """Returns a context in which this process exits immediately, with status 1, if it loses the devices of other processes.

    An orderly exit would wait for the lost processes.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        print(
            f"error: Process {jax.process_index()} of {jax.process_count()} stops: a computation over all processes failed "
            f"({' '.join(str(error).split())[:300]}). If a connection was lost, another process has ended; see its output. "
            "Start the same command on every host to resume from the newest checkpoint.",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)


def _number(name: str, value: int | None) -> int | None:
    text = os.environ.get(_VARIABLES[name])
    if value is not None or not text:
        return value
    if not text.isdigit():
        raise UserError(f"Expected a whole number in {_VARIABLES[name]}, got {text!r}. Correct it.")
    return int(text)
