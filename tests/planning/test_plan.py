"""The command line: one real compilation of a small train step for four v5e chips, and the errors."""

import json
import sys

import jax
import jax.numpy as jnp
import pytest

import paca_jax
from tests.runs import SMALL, environment_for_tpus, needs_libtpu, run, small_config

pytestmark = pytest.mark.xdist_group("plan")  # so that one worker compiles once for all of them
MODEL = [f"--config.{key}={value}" for key, value in SMALL.items() if key.startswith("model.")]


def plan(*arguments, **variables):
    command = [sys.executable, "-m", "paca_jax.plan", "--config=configs/fashion_mnist.py", *MODEL, *arguments]
    return run(command, environment_for_tpus() | variables)


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    file = tmp_path_factory.mktemp("plan") / "plan.json"
    done = plan("--topology=v5e:2x2", f"--json={file}", "--config.accumulate_steps=4")
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(file.read_text())


@pytest.fixture(scope="module")
def parameters():
    """The number of parameters of the same model."""
    config = small_config()
    options = {key.removeprefix("model."): value for key, value in SMALL.items() if key.startswith("model.")}
    model = paca_jax.create_model(config.model.name, num_classes=10, **options)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


@pytest.mark.slow
@needs_libtpu
def test_a_replicated_state_has_twelve_bytes_per_parameter(planned, parameters):
    memory = planned[1]["memory"]
    assert memory["parameters"] == 4 * parameters
    assert 8 * parameters <= memory["optimizer_state"] <= 8 * parameters + 64  # AdamW: two moments, and a counter or two
    assert memory["batch"] >= 8 * 32 * 32 * 3  # 8 images of bytes per chip
    assert memory["total"] == sum(size for name, size in memory.items() if name != "total")
    assert memory["total"] < planned[1]["usable_hbm_bytes"]


@pytest.mark.slow
@needs_libtpu
def test_data_parallel_chips_reduce_their_gradients_and_little_else(planned, parameters):
    exchanged = {(entry["kind"], entry["devices"]): entry["total_bytes"] for entry in planned[1]["collectives"]}
    gradients = 4 * parameters
    assert set(exchanged) == {("all-reduce", 4)}
    assert gradients <= exchanged["all-reduce", 4] <= 1.05 * gradients, "plus a few scalars"


@pytest.mark.slow
@needs_libtpu
def test_time_and_hours_follow_from_the_cycles(planned):
    _, found = planned
    assert found["unknown_loops"] == []
    assert found["cycles"] > 0
    assert found["cycle_seconds"] == pytest.approx(found["cycles"] / 1.5e9)
    assert found["exchange_seconds"] == pytest.approx(2 * 3 / 4 * found["collectives"][0]["total_bytes"] / 200e9)
    computing = found["cycle_seconds"] + found["kernel_seconds"]
    assert found["seconds"] == max(computing, found["peak_seconds"], found["exchange_seconds"])
    assert found["images_per_second"] == pytest.approx(32 / found["seconds"])
    assert found["steps"] == round(7 * 12000 / 32)
    assert found["hours"] == pytest.approx(found["steps"] * found["seconds"] / 3600)
    assert found["utilization"] == pytest.approx(found["matrix_flops"] / found["seconds"] / 197e12)


@pytest.mark.slow
@needs_libtpu
def test_the_page_says_that_it_is_an_estimate_and_what_is_left_out(planned):
    text, found = planned
    assert "on v5e:2x2: 4 chips, mesh data=4 fsdp=1 model=1" in text
    assert "batch 32, in 4 parts" in text
    assert "An estimate: the step was compiled, not run." in text
    assert "host input, evaluation, checkpoints and start-up are left out" in text
    assert f"{found['cycles']:,} cycles" in text
    assert "  mlp: pallas_tpu in 4 blocks" in text
    assert "xla in stage4/block0 (one patch only)" in text
    assert any(line.startswith("mlp: pallas_tpu") for line in found["implementations"])


@pytest.mark.slow
@needs_libtpu
def test_a_step_that_does_not_fit_reports_by_how_much_and_what_to_try(tmp_path):
    file = tmp_path / "plan.json"
    done = plan("--topology=v5e:2x2", "--config.batch_size=4194304", "--config.num_steps=1", f"--json={file}")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "Does not fit on v5e:2x2. Expected a step of at most" in done.stdout
    assert "--config.remat=True\n" in done.stdout
    found = json.loads(file.read_text())
    assert found["needed"] > found["usable_hbm_bytes"] > 15 * 2**30
    assert not found["fits"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--topology=v9:2x2"], "error: Expected a topology such as v5e:16x16, got 'v9:2x2'."),
        pytest.param(
            ["--topology=v5e:2x2", "--config.batch_size=6"],
            "error: Expected batch_size to be a multiple of 4",
            marks=needs_libtpu,
        ),
    ],
)
def test_a_wrong_option_exits_with_a_message_and_status_2(arguments, message):
    done = plan(*arguments)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(message)
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_without_libtpu_a_message_names_what_to_install(tmp_path):
    (tmp_path / "libtpu.py").write_text('raise ImportError("hidden")\n')
    done = plan("--topology=v5e:2x2", PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith('Install it: pip install "paca-jax[tpu]"')
