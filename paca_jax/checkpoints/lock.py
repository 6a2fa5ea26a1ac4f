"""The lock of a workdir: one job trains in it at a time. Reading takes no lock."""

import datetime
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Protocol

import filelock
import jax
from etils import epath

from paca_jax.errors import UserError
from paca_jax.paths import is_remote
from paca_jax.sharding import gather_bytes

logger = logging.getLogger(__name__)

_LOCK_FILE = ".lock"
_OWNER_FILE = ".lock.json"
LEASE_SECONDS = 60.0


class Lock(Protocol):
    """What a job holds while it trains in a workdir."""

    def check(self) -> None:
        """Raises a `UserError` if another job has taken the workdir."""

    def close(self) -> None:
        """Releases the lock."""


@contextmanager
def workdir_lock(workdir: epath.Path) -> Iterator[Lock]:
    """Returns a context in which no other job trains in a workdir; process 0 holds the lock for all processes of the job.

    A lock on a file system is the kernel's, and ends with its process, however that ends. On `gs://` it is a lease: the owner
    renews it, and after a crash the next start waits until it has expired.

    Args:
        workdir: the folder of the run, created if needed.

    Raises:
        UserError: if another job holds the lock, or the folder cannot be written.
    """
    lock, refusal = None, ""
    if jax.process_index() == 0:
        try:
            lock = take_lock(workdir)
        except UserError as error:
            refusal = str(error)
    if jax.process_count() > 1:
        refusal = gather_bytes(refusal.encode())[0].decode()
    if refusal:
        raise UserError(refusal)
    with closing(lock or _HeldByProcess0()) as held:
        yield held


def take_lock(workdir: epath.Path) -> Lock:
    """Takes the lock of a workdir for this process; the errors are those of `workdir_lock`."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        return BucketLease(workdir) if is_remote(workdir) else _FileLock(workdir)
    except OSError as error:
        raise UserError(f"The workdir {workdir} cannot be written ({error}). Choose another with --workdir.") from error


class _HeldByProcess0:
    """The lock in the other processes of the job."""

    def check(self) -> None:
        """Leaves the check to process 0."""

    def close(self) -> None:
        """Releases nothing."""


class _FileLock:
    """A lock of the kernel, and a file that names its owner."""

    def __init__(self, workdir: epath.Path) -> None:
        self._owner = workdir / _OWNER_FILE
        self._lock = filelock.FileLock(workdir / _LOCK_FILE, blocking=False, fallback_to_soft=False)
        try:
            self._lock.acquire()
        except filelock.Timeout as error:
            raise _taken(workdir, _read(self._owner)) from error
        self._owner.write_text(json.dumps(_this_process()))

    def check(self) -> None:
        """Returns at once: the kernel gives the lock to no one else."""

    def close(self) -> None:
        """Releases the lock."""
        self._owner.unlink(missing_ok=True)
        self._lock.release()


class BucketLease:
    """A lease of a workdir: a file that names its owner, who renews it three times before it would expire."""

    def __init__(self, workdir: epath.Path, seconds: float = LEASE_SECONDS) -> None:
        """Takes the lease, after the expiry of one that is no longer renewed.

        Args:
            workdir: the folder.
            seconds: the time without renewal after which a lease expires.

        Raises:
            UserError: if the owner of the lease renews it.
        """
        self._workdir, self._file, self._period = workdir, workdir / _OWNER_FILE, seconds / 3
        self._record = {**_this_process(), "id": uuid.uuid4().hex}
        _wait_for_expiry(workdir, self._file, seconds)
        self._write()
        time.sleep(seconds / 30)  # if two jobs start at once, the one that wrote last has it
        self.check()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._keep_renewing, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises a `UserError` if another job has taken the workdir."""
        found = _read(self._file)
        if found is None or found.get("id") != self._record["id"]:
            raise _taken(self._workdir, found)

    def close(self) -> None:
        """Releases the lease, unless another job has it."""
        self._closed.set()
        self._thread.join()
        found = _read(self._file)
        if found is not None and found.get("id") == self._record["id"]:
            self._file.unlink()

    def _keep_renewing(self) -> None:
        while not self._closed.wait(self._period):
            try:
                self.check()
                self._write()
            except OSError as error:
                logger.warning("The lease of %s is not renewed (%s); trying again.", self._workdir, error)
            except UserError:
                return  # the job stops when it next saves

    def _write(self) -> None:
        self._file.write_text(json.dumps({**self._record, "renewed": time.time()}))


def _wait_for_expiry(workdir: epath.Path, file: epath.Path, seconds: float) -> None:
    """Returns once the file has not changed for `seconds`, or is gone; refuses as soon as it changes."""
    first = _read(file)
    end = time.monotonic() + seconds
    if first is not None:
        logger.warning("%s is leased to %s. Waiting %.0f s for the lease to expire.", workdir, _describe(first), seconds)
    while (found := _read(file)) is not None:
        if found != first:
            raise _taken(workdir, found)
        if time.monotonic() > end:
            return
        time.sleep(seconds / 30)


def _this_process() -> dict[str, str | int]:
    now = datetime.datetime.now(datetime.UTC)
    return {"host": socket.gethostname(), "process": os.getpid(), "since": f"{now:%Y-%m-%d %H:%M:%S} UTC"}


def _read(file: epath.Path) -> dict[str, str | int] | None:
    """Returns the owner in a file, or None if there is no whole record."""
    try:
        found = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) and found.keys() >= {"host", "process", "since"} else None


def _taken(workdir: epath.Path, owner: dict[str, str | int] | None) -> UserError:
    return UserError(
        f"Expected to be the only job in the workdir {workdir}, got another: {_describe(owner)} trains there. Stop it, or "
        "choose another workdir."
    )


def _describe(owner: dict[str, str | int] | None) -> str:
    if owner is None:
        return "a process that is just starting"
    return f"process {owner['process']} on host {owner['host']}, since {owner['since']},"
