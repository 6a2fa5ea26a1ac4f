"""Two processes on loopback, with real collectives."""

import signal
import sys
import time

import numpy as np
import pytest

import paca_jax
from paca_jax.train.metrics.progress import format_scalars
from tests.runs import Processes, command, run_main, scalars

pytestmark = pytest.mark.xdist_group("train")  # so that one worker makes what they share


def test_when_one_of_two_processes_is_killed_the_run_stops_and_goes_on_later(finished_run, tmp_path):
    workdir = tmp_path / "run"
    run = Processes(2, workdir, command(workdir, dataset__num_workers=1))
    run.wait_for("step 6/12")
    run.processes[1].send_signal(signal.SIGKILL)
    assert run.wait(60)[0] not in (0, -signal.SIGKILL)
    assert "error: Process 0 of 2 stops" in run.log(0)
    assert "Start the same command on every host" in run.log(0)
    end = time.monotonic() + 20
    while run.orphans() and time.monotonic() < end:
        time.sleep(0.1)
    assert not run.orphans()

    assert Processes(2, workdir, command(workdir)).wait() == [0, 0]
    for alone, together in zip(scalars(finished_run), scalars(workdir), strict=True):
        assert alone.keys() == together.keys()
        np.testing.assert_allclose(together["train/loss"], alone["train/loss"], rtol=1e-5)
        assert together.get("eval/accuracy") == alone.get("eval/accuracy")
    _, variables = paca_jax.load(workdir)
    assert variables["params"]["head"]["kernel"].shape == (32, 10)
    assert (workdir / "clusters.png").exists()

    evaluated = Processes(2, tmp_path / "evaluated", [sys.executable, "main.py", "--mode=eval", f"--workdir={workdir}"])
    assert evaluated.wait() == [0, 0], evaluated.log(0)
    last = {name: value for name, value in scalars(workdir)[-1].items() if name.startswith("eval/")}
    assert format_scalars(last) in evaluated.log(0)


def test_processes_need_all_three_of_address_number_and_id(tmp_path):
    done = run_main(*command(tmp_path), "--num_processes=2", "--process_id=0")
    assert done.returncode == 2
    assert "error: Expected a coordinator address" in done.stderr
    assert "Add --coordinator_address or JAX_COORDINATOR_ADDRESS" in done.stderr
