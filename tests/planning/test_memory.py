import jax
import pytest

from paca_jax.planning.alternatives import MOST_COMPILES, Tried, alternatives, as_flags, try_alternatives
from paca_jax.planning.memory import DoesNotFitError, state_bytes, too_large
from paca_jax.planning.topology import GIB
from paca_jax.train.run import prepare
from tests import golden
from tests.runs import small_config


@pytest.mark.parametrize(
    ("message", "needed", "usable"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (23.84G) exceeds "
            "available HBM (15.75G).",
            23.84,
            15.75,
        ),
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 17.20G of 15.75G "
            "hbm. Exceeded hbm capacity by 1.45G.",
            17.2,
            15.75,
        ),
    ],
)
def test_the_compilers_message_on_memory_is_parsed(message, needed, usable):
    shortage = too_large(message)
    assert shortage.needed == pytest.approx(needed * GIB)
    assert shortage.usable == pytest.approx(usable * GIB)
    assert f"at most 15.75 GiB per device, got one that needs {needed:.2f} GiB" in str(shortage)


def test_other_messages_are_not_about_memory():
    assert too_large("INTERNAL: something else, Used 3 of 4 things") is None


@pytest.mark.parametrize(
    ("message", "usable"),
    [
        (
            "Ran out of memory in memory space vmem. Used 16.12M of 16.00M vmem. Exceeded vmem capacity by 127.0K. "
            'Operator: op_name="jit(train_step)/transpose(jvp(depthwise_mlp_backward))/pallas_call"',
            "16.00",
        ),
        (
            'Ran out of memory in memory space vmem while allocating on stack for %y, metadata={op_name="jit(f)/mlp/'
            'depthwise_mlp_backward/pallas_call" stack_frame_id=3}. Scoped allocation with size 16.12M and limit 9.00M '
            "exceeded scoped vmem limit by 7.12M.",
            "9.00",
        ),
    ],
)
def test_a_shortage_of_vector_memory_names_the_kernel_and_the_way_out(message, usable):
    shortage = too_large(f"RESOURCE_EXHAUSTED: {message}")
    assert not isinstance(shortage, DoesNotFitError)
    assert f"the {usable} MiB of vector memory" in str(shortage)
    assert "got depthwise_mlp_backward, which needs 16.12 MiB. Set --config.model.implementation=xla" in str(shortage)


@pytest.mark.parametrize("fsdp", [1, 8])
def test_the_bytes_of_the_state_are_those_of_an_initialized_one(fsdp):
    run = prepare(small_config(mesh__fsdp=fsdp))
    with jax.set_mesh(run.mesh):
        state = run.start_from(golden.random_variables(run.task.model))
    found = state_bytes(run)

    def held(tree):
        return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))

    assert found["parameters"] == held(state.params)
    assert found["optimizer_state"] == held(state.opt_state)
    whole = 4 * sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert found["parameters"] == whole if fsdp == 1 else found["parameters"] < whole / 2
    images = run.config.batch_size // len(jax.devices())
    assert found["batch"] >= images * run.config.image_size**2


def changes(config, needed, state=1, chips=4):
    return [as_flags(change) for change in alternatives(config, DoesNotFitError(needed * GIB, 16 * GIB), state * GIB, chips)]


def test_a_step_that_needs_too_much_memory_splits_its_batch_until_it_fits():
    config = small_config(batch_size=32)  # 8 images per chip
    assert changes(config, needed=40) == [
        "--config.remat=True",
        "--config.accumulate_steps=4",
        "--config.accumulate_steps=8",
        "--config.remat=True --config.accumulate_steps=4",
    ]


def test_a_large_state_is_split_first():
    assert changes(small_config(remat=True), needed=40, state=8) == [
        "--config.mesh.fsdp=2",
        "--config.mesh.fsdp=4",
        "--config.accumulate_steps=4",
        "--config.accumulate_steps=8",
    ]


def test_one_image_per_chip_cannot_be_split():
    assert changes(small_config(batch_size=4, remat=True), needed=40) == []


def test_alternatives_are_compiled_until_one_fits(monkeypatch):
    def compile_(config, topology, devices):
        if not config.remat:
            raise DoesNotFitError(20 * GIB, 16 * GIB)
        return f"{config.accumulate_steps} parts"

    monkeypatch.setattr("paca_jax.planning.alternatives.estimate", compile_)
    options = [{"accumulate_steps": 2}, {"remat": True, "accumulate_steps": 4}, {"remat": True}]
    config = small_config()
    tried = list(try_alternatives(config, None, [], options))
    assert tried == [Tried(options[0], None, 20 * GIB), Tried(options[1], "4 parts", None)]
    assert config.accumulate_steps == 1
    assert len(list(try_alternatives(config, None, [], [{"accumulate_steps": n} for n in (2, 4, 8, 16)]))) == MOST_COMPILES
