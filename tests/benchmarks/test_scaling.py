import argparse
import json
import subprocess
from pathlib import Path

import pytest

from benchmarks import scaling


def row(size, seconds=None, temporaries=None, clusters=None):
    found = {"model": "a", "clusters": clusters, "image_size": size}
    if temporaries is not None:
        found |= {"batch": 2, "temporary_bytes": temporaries}
    return found | ({"skipped": "out of memory"} if seconds is None else {"seconds": {"median": seconds}})


def test_time_and_memory_a_patch_are_multiples_of_the_smallest_sizes():
    linear, quadratic = [row(224, 0.1, 10**6), row(448, 0.44, 4 * 10**6)], [row(224, 0.3, 10**6, scaling.PLAIN), row(448)]
    found = scaling.normalise([*linear, *quadratic, row(448, None, 16 * 10**6, scaling.PLAIN)])
    assert [one["patches"] for one in found] == [3136, 12544, 3136, 12544, 12544]
    assert found[0]["seconds_a_patch"] == pytest.approx(0.1 / 2 / 3136)
    assert [one.get("relative_time") for one in found[:3]] == [1, pytest.approx(1.1), 1]
    assert [one.get("relative_memory") for one in (*found[:3], found[4])] == [1, 1, 1, 4]
    assert "relative_time" not in found[4]


def test_the_table_says_why_a_size_was_not_run():
    rows = scaling.normalise([row(224, 0.1, 2**20), row(448, None, 8 * 2**20), row(448, None, None, scaling.PLAIN)])
    assert scaling.markdown(rows).splitlines()[2:] == [
        "| `a` | 224 | 3,136 | 100.0 | 1.00 | 1.0 | 1.00 |",
        "| `a` | 448 | 12,544 | out of memory | - | 8.0 | 2.00 |",
        "| `a`, plain attention | 448 | 12,544 | out of memory | - | - | - |",
    ]


def test_want_of_memory_is_told_from_other_failures():
    assert scaling.failure(1, "jax.errors.JaxRuntimeError: RESOURCE_EXHAUSTED: Out of memory") == "out of memory"
    assert "memory" in scaling.failure(-9, "")
    with pytest.raises(RuntimeError, match="status 1:\nNo such thing"):
        scaling.failure(1, "No such thing")


def test_each_size_is_measured_until_one_takes_too_long(monkeypatch):
    asked = argparse.Namespace(
        model=["a", "b"], image_size=[448, 64, 224], batch=1, dtype="float32", rounds=2, memory=3.5, seconds=60
    )
    commands = []

    def run(command, timeout, **_):
        commands.append(" ".join(command[1:-1]))
        if "448" not in command and "b" in command:
            raise subprocess.TimeoutExpired(command, timeout)
        file = Path(command[-1].removeprefix("--json="))
        file.write_text(
            json.dumps({"device": "a chip", "rows": [{"clusters": "of the step", "batch": 1, "temporary_bytes": 8}]})
        )
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    rows, device = scaling.measure(asked)
    assert device == "a chip"
    assert [(one["model"], one["clusters"], one["image_size"], one.get("skipped")) for one in rows] == [
        *(("a", None, size, None) for size in (64, 224, 448)),
        ("b", None, 64, "longer than 60 s"),
        ("b", None, 224, "a smaller size took too long"),
        ("b", None, 448, "a smaller size took too long"),
        *(("a", scaling.PLAIN, size, None) for size in (64, 224, 448)),
    ]
    options = "--batch 1 --image-size 64 --dtype float32 --program forward --rounds 2 --memory 3.5"
    assert commands[0] == f"-m benchmarks.step --model a {options}"
    assert commands[4] == f"-m benchmarks.step --model a {options} --clusters 0 0 0 0"
