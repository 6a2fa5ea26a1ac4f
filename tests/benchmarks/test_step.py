import dataclasses
import json
import math
import sys

import jax
import jax.numpy as jnp
import pytest

from benchmarks.programs import FORWARD, TRAINING, VIT, Case, Program, native_size, programs
from benchmarks.step import markdown, measure
from paca_jax.errors import UserError
from tests.runs import run_main

NANO = Case("pacavit_nano", 2, 32, "float32")


def parameters(case):
    variables, _ = jax.eval_shape(programs(case)[FORWARD].start)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))


def test_models_have_the_published_number_of_parameters():
    assert parameters(Case(VIT, 2, 224, "bfloat16")) == 22_050_664  # DeiT's small size
    assert parameters(Case("pacavit_tiny_p2cconv_100_0", 2, 224, "bfloat16")) == 12_200_680


def test_a_training_step_returns_the_state_for_the_next_one():
    program = programs(Case(VIT, 2, 224, "bfloat16"))[TRAINING]
    arguments = jax.eval_shape(program.start)
    results = jax.eval_shape(program.function, *arguments)
    assert program.states == 2
    assert jax.tree.map(lambda x: (x.shape, x.dtype), results[:2]) == jax.tree.map(lambda x: (x.shape, x.dtype), arguments[:2])
    assert results[2].shape == ()


def test_clusters_and_remat_change_the_program():
    assert parameters(dataclasses.replace(NANO, clusters=(0, 0, 0, 0))) < parameters(NANO)
    kept, recomputed = (programs(dataclasses.replace(NANO, remat=remat))[FORWARD] for remat in (False, True))
    texts = [str(jax.make_jaxpr(program.function)(*jax.eval_shape(program.start))) for program in (kept, recomputed)]
    recomputed_parts = [text.count("remat") + text.count("checkpoint") for text in texts]
    assert recomputed_parts[0] < recomputed_parts[1]


def test_other_models_are_rejected():
    assert (native_size("pacavit_nano"), native_size(VIT)) == (32, 224)
    with pytest.raises(UserError, match="pacavit_"):
        native_size("upernet_tiny")
    with pytest.raises(UserError, match="nearest"):
        native_size("pacavit_nanoo")


def counting():
    """Returns a program whose state counts its steps, and the list of its counts."""
    seen = []

    def step(count, image):
        jax.debug.callback(lambda number: seen.append(int(number)), count)
        return count + 1, image.sum()

    return Program(step, lambda: (jnp.zeros((), jnp.int32), jnp.ones((4, 4))), 1), seen


def test_each_step_continues_from_the_state_of_the_previous_one():
    program, seen = counting()
    row = measure(program, batch=6, rounds=3, most_bytes=math.inf)
    jax.effects_barrier()
    assert seen == [0, 1, 2, 3, 4]
    assert row["images_per_second"] == 6 / row["seconds"]["median"]
    assert row["total_bytes"] >= 4 + 64
    assert row["compile_seconds"] > 0


def test_a_round_of_several_steps_counts_each():
    program, seen = counting()
    row = measure(program, batch=6, rounds=2, most_bytes=math.inf, steps=5)
    jax.effects_barrier()
    assert seen == list(range(20))
    assert row["images_per_second"] == 6 / row["seconds"]["median"]


def test_programs_that_need_too_much_memory_are_not_run():
    program, seen = counting()
    row = measure(program, batch=6, rounds=3, most_bytes=10)
    assert row["skipped"] == "needs 0.00 GiB"
    assert not seen


def test_the_table():
    costs = {"total_bytes": 3 * 2**30, "temporary_bytes": 2**29, "compile_seconds": 12.34}
    case = {"model": "a", "clusters": None, "remat": False, "program": "forward", "batch": 8, "image_size": 64}
    seconds = {"low": 0.001, "median": 0.002, "high": 0.003}
    rows = [
        {**case, **costs, "seconds": seconds, "images_per_second": 4000.0, "device_peak_bytes": 2**30},
        {**case, **costs, "clusters": (0, 0, 0, 0), "remat": True, "skipped": "needs 3.00 GiB"},
    ]
    assert markdown(rows).splitlines()[2:] == [
        "| `a` | forward | 8 | 64 | 2.0 (1.0 to 3.0) | 4000.0 | 3.00 | 0.50 | 1.00 | 12.3 |",
        "| `a` (0, 0, 0, 0) remat | forward | 8 | 64 | needs 3.00 GiB | - | 3.00 | 0.50 | - | 12.3 |",
    ]


@pytest.mark.slow
def test_the_command(tmp_path):
    file = tmp_path / "step.json"
    options = ["--model", "pacavit_nano", "--batch", "2", "--program", "forward", "--rounds", "2", "--json", str(file)]
    done = run_main(sys.executable, "-m", "benchmarks.step", *options)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(file.read_text())["rows"]
    assert (row["model"], row["program"], row["batch"], row["image_size"]) == ("pacavit_nano", "forward", 2, 32)
    assert row["images_per_second"] == 2 / row["seconds"]["median"] > 0
    assert row["total_bytes"] > row["temporary_bytes"] > 0
    assert "| `pacavit_nano` | forward | 2 | 32 |" in done.stdout
