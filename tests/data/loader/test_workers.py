import os
import signal
import subprocess
import sys
import textwrap

import psutil
import pytest

from paca_jax.data import train_batches
from paca_jax.errors import UserError
from tests.data.tiny import Numbers, spy
from tests.runs import ROOT, run_code

FOREVER = {"batch_size": 2, "seed": 0, "start_step": 0, "num_steps": 10**9}


def gone(processes, seconds=30):
    """Waits until all processes have ended, and returns whether they have."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return not alive


def test_workers_are_processes_without_a_jax_backend():
    batches = list(train_batches(Numbers(8), spy, **{**FOREVER, "num_steps": 4}, num_workers=2))
    assert {int(n) for b in batches for n in b["backends"]} == {0}
    pids = {int(n) for b in batches for n in b["pid"]}
    assert len(pids) == 2
    assert os.getpid() not in pids


def test_close_ends_the_workers():
    batches = train_batches(Numbers(8), spy, **FOREVER, num_workers=2)
    pids = {int(n) for _ in range(4) for n in next(batches)["pid"]}
    processes = [psutil.Process(pid) for pid in pids]
    batches.close()
    assert gone(processes)
    assert len(processes) == 2


def test_a_killed_worker_is_reported():
    batches = train_batches(Numbers(8), spy, **FOREVER, num_workers=1)
    os.kill(int(next(batches)["pid"][0]), signal.SIGKILL)
    with pytest.raises(UserError, match="Expected the data workers to keep running, one was killed"):
        for _ in batches:
            pass


SCRIPT = """
    import os, sys, time
    from paca_jax.data import train_batches
    from tests.data.tiny import Numbers, slow

    if __name__ == "__main__":
        batches = train_batches(Numbers(8), slow, batch_size=2, seed=0, start_step=0, num_steps=10**9, num_workers=2)
        next(batches), next(batches)
        print("ready", flush=True)
        time.sleep(600)
"""


def test_workers_die_with_a_killed_parent(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, env=environment, text=True) as parent:
        try:
            assert parent.stdout.readline() == "ready\n"
            children = psutil.Process(parent.pid).children(recursive=True)
            workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
            assert len(workers) == 2
            # A worker has its watch only once it is past its start; it is: each has made a batch.
        finally:
            parent.kill()
    try:
        assert gone(children)
    finally:
        for child in children:
            if child.is_running():
                child.kill()


def test_importing_data_is_light_and_opening_starts_no_backend():
    code = """
        import sys
        import paca_jax.data
        heavy = {"tensorflow", "tensorflow_datasets", "clu", "torch"} & sys.modules.keys()
        assert not heavy, heavy
        dataset = paca_jax.data.open_dataset("fashion_mnist_small", "test", data_dir="datasets")
        transform = paca_jax.data.EvalTransform(32, channels=1)
        batch = next(paca_jax.data.eval_batches(dataset, transform, batch_size=4))
        assert batch["image"].shape == (4, 32, 32, 1)
        assert "tensorflow" not in sys.modules
        assert not sys.modules["jax._src.xla_bridge"]._backends
    """
    run_code(code)
