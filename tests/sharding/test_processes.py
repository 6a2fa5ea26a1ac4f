"""How processes connect; multi-process runs are in tests/train/test_processes.py."""

import subprocess
import sys

import pytest

from paca_jax.errors import UserError
from paca_jax.sharding import start_processes
from tests.runs import ROOT, environment, free_port

CODE = """
import jax
from paca_jax.sharding import start_processes
print(start_processes(heartbeat_timeout=20), jax.process_index(), jax.process_count(), len(jax.devices()))
"""
SLURM = {"SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}


@pytest.mark.parametrize("way", ["environment", "slurm"])
def test_two_processes_connect(way):
    port = free_port()
    running = []
    for index in range(2):
        variables = {"JAX_COORDINATOR_ADDRESS": f"localhost:{port}", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": str(index)}
        if way == "slurm":
            variables = SLURM | {"SLURM_PROCID": str(index), "SLURM_LOCALID": str(index), "SLURM_JOB_ID": str(port)}
        running.append(
            subprocess.Popen(
                [sys.executable, "-c", CODE], cwd=ROOT, env=environment() | variables, stdout=subprocess.PIPE, text=True
            )
        )
    assert [process.communicate(timeout=120)[0].split() for process in running] == [["0", "0", "2", "2"], ["1", "1", "2", "2"]]


def test_one_process_runs_alone():
    assert start_processes(num_processes=1) == 0


def test_an_index_that_is_not_a_number_is_rejected(monkeypatch):
    monkeypatch.setenv("JAX_PROCESS_ID", "first")
    with pytest.raises(UserError, match="whole number in JAX_PROCESS_ID, got 'first'"):
        start_processes("localhost:1", 2)
