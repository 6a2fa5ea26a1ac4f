"""One job per workdir: a second one is refused in a sentence, and no owner that is gone blocks the next."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest
from etils import epath

from paca_jax.checkpoints.lock import BucketLease, take_lock, workdir_lock
from paca_jax.errors import UserError
from tests.runs import ROOT, environment

HOLD = """
import sys, time
from etils import epath
from paca_jax.checkpoints.lock import take_lock
lock = take_lock(epath.Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""
SECONDS = 0.3  # of a lease
OTHER = {"host": "elsewhere", "process": 7, "since": "2026-01-01 00:00:00 UTC", "id": "other", "renewed": 0}


@pytest.fixture
def workdir(tmp_path):
    return epath.Path(tmp_path / "run")


def test_a_second_job_is_told_who_holds_the_workdir(workdir):
    owner = rf"process {os.getpid()} on host {socket.gethostname()}, since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
    with workdir_lock(workdir) as lock:
        lock.check()
        with pytest.raises(UserError, match=rf"only job in the workdir .*run, got another: {owner}"), workdir_lock(workdir):
            pass
        lock.check()
    with workdir_lock(workdir):
        pass


def test_a_killed_owner_blocks_nobody(workdir):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(workdir)], cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"process {owner.pid} on host"):
            take_lock(workdir)
        owner.send_signal(signal.SIGKILL)
    take_lock(workdir).close()


def test_a_workdir_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"workdir .*run cannot be written .* Choose another"),
        workdir_lock(epath.Path(tmp_path / "file" / "run")),
    ):
        pass


def test_a_lease_that_is_renewed_refuses_a_second_job(workdir):
    workdir.mkdir()
    lease = BucketLease(workdir, SECONDS)
    with pytest.raises(UserError, match=rf"got another: process {os.getpid()} on host"):
        BucketLease(workdir, 10 * SECONDS)
    lease.check()
    lease.close()
    BucketLease(workdir, SECONDS).close()
    assert not list(workdir.iterdir())


@pytest.mark.parametrize("left", [json.dumps(OTHER), json.dumps(OTHER)[:20], "[]", '{"host": 1}', "null"])
def test_a_lease_that_nobody_renews_expires(workdir, left, caplog):
    workdir.mkdir()
    (workdir / ".lock.json").write_text(left)
    lease = BucketLease(workdir, SECONDS)
    lease.check()
    lease.close()
    assert ("is leased to process 7 on host elsewhere" in caplog.text) == (left == json.dumps(OTHER))


def test_an_owner_whose_lease_was_taken_is_told_and_leaves_it_alone(workdir):
    workdir.mkdir()
    lease = BucketLease(workdir, 100 * SECONDS)
    (workdir / ".lock.json").write_text(json.dumps(OTHER))
    with pytest.raises(UserError, match="got another: process 7 on host elsewhere"):
        lease.check()
    lease.close()
    assert json.loads((workdir / ".lock.json").read_text()) == OTHER
