from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from benchmarks.profiles import by_part, kernel_times
from benchmarks.programs import Program
from paca_jax.planning.hlo import parse


def step(x, weights):
    with jax.named_scope("mlp"):
        x = jnp.tanh(x @ weights)
    with jax.named_scope("update"):
        return (jnp.sort(x, axis=0),)


@pytest.fixture(scope="module")
def compiled():
    return Program(step, lambda: (jnp.ones((256, 256)), jnp.eye(256)), 1).compile()


def test_kernels_have_the_part_of_the_model_that_they_come_from(compiled):
    rows = kernel_times(compiled.runner(3), 3, parse(compiled.executable.as_text()))
    assert {row["part"] for row in rows} >= {"mlp", "update"}
    assert all(row["seconds"] > 0 for row in rows)
    assert {row["launches"] for row in rows if row["part"] == "update"} == {1.0}
    assert [row["seconds"] for row in rows] == sorted((row["seconds"] for row in rows), reverse=True)
    assert by_part(rows)["update"][1] == sum(row["part"] == "update" for row in rows)


def test_on_a_gpu_what_ran_on_its_streams_counts(compiled, monkeypatch):
    module = parse(compiled.executable.as_text())
    name = next(one.name for one, _, _ in module.running() if "mlp" in one.source)

    def event(kernel, nanoseconds, **stats):
        return SimpleNamespace(name=kernel, duration_ns=nanoseconds, stats=list(stats.items()))

    def line(name, *events):
        return SimpleNamespace(name=name, events=events)

    stream = line("Stream #13(Compute)", event("gemm", 2e6, hlo_op=name), event("gemm", 4e6, hlo_op=name), event("copy", 1e6))
    planes = [
        SimpleNamespace(name="/device:GPU:0", lines=[stream, line("Steps", event("step 1", 9e6))]),
        SimpleNamespace(name="/host:CPU", lines=[line("thread", event("launch", 8e6, hlo_op=name))]),
    ]
    monkeypatch.setattr(jax.profiler.ProfileData, "from_file", lambda path: SimpleNamespace(planes=planes))
    assert kernel_times(compiled.runner(2), 2, module) == [
        {"kernel": "gemm", "part": "mlp", "seconds": pytest.approx(3e-3), "launches": 1.0},
        {"kernel": "copy", "part": "rest", "seconds": pytest.approx(5e-4), "launches": 0.5},
    ]
