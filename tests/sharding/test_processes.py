"""How processes find each other; runs over them are in tests/train/test_processes.py."""

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
def test_two_processes_find_each_other(way):
    port = free_port()
    running = []
    for index in range(2):
        told = {"JAX_COORDINATOR_ADDRESS": f"localhost:{port}", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": str(index)}
        if way == "slurm":
            told = SLURM | {"SLURM_PROCID": str(index), "SLURM_LOCALID": str(index), "SLURM_JOB_ID": str(port)}
        running.append(
            subprocess.Popen(
                [sys.executable, "-c", CODE], cwd=ROOT, env=environment() | told, stdout=subprocess.PIPE, text=True
            )
        )
    assert [process.communicate(timeout=120)[0].split() for process in running] == [["0", "0", "2", "2"], ["1", "1", "2", "2"]]


def test_one_process_stays_alone():
    assert start_processes(num_processes=1) == 0


def test_a_number_that_is_none(monkeypatch):
    monkeypatch.setenv("JAX_PROCESS_ID", "first")
    with pytest.raises(UserError, match="JAX_PROCESS_ID is a whole number, but got 'first'"):
        start_processes("localhost:1", 2)
