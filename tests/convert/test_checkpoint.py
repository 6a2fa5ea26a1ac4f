"""State dicts inside training checkpoints."""

import numpy as np
import pytest

from paca_jax.convert import from_torch, to_torch
from paca_jax.convert.checkpoint import find_state_dict
from paca_jax.errors import UserError
from paca_jax.models import create_model
from tests import golden

STATE = {"head.weight": np.ones((2, 3), np.float32), "stage1.0.norm1_before.bias": np.ones(3, np.float32)}
AVERAGE = {key: 2 * value for key, value in STATE.items()}


def prefixed(prefix, state):
    return {prefix + key: value for key, value in state.items()}


PAIRS = {
    "timm": ({"state_dict": STATE, "state_dict_ema": AVERAGE, "arch": "x"}, "raw"),
    "DeiT": ({"model": prefixed("module.", STATE), "model_ema": AVERAGE, "epoch": 3}, "raw"),
    "basicsr": ({"params": STATE, "params_ema": AVERAGE}, "raw"),
    "nested": ({"model": {"state_dict": STATE}, "ema": {"decay": 0.9, "model": AVERAGE}}, "raw"),
    "Lightning": ({"state_dict": prefixed("model.", STATE) | prefixed("ema_model.", AVERAGE)}, "raw"),
    "two prefixes": (prefixed("net.module.", STATE) | prefixed("net_avg.", AVERAGE), "raw"),
    # which saves the average where it looks for weights to deploy
    "mmengine": (
        {
            "state_dict": prefixed("backbone.", AVERAGE),
            "ema_state_dict": prefixed("module.backbone.", STATE) | {"steps": np.array(7)},
            "message_hub": {},
        },
        "ema",
    ),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("weights", [None, "raw", "ema"])
def test_of_raw_and_averaged_weights_the_wanted_ones_are_taken_and_said(name, weights):
    checkpoint, default = PAIRS[name]
    found = find_state_dict(checkpoint, weights)
    expected = {"raw": STATE, "ema": AVERAGE}[weights or default]
    assert found.arrays.keys() == expected.keys()
    assert all(np.array_equal(found.arrays[key], expected[key]) for key in expected)
    other = "raw" if (weights or default) == "ema" else "ema"
    assert any(note.startswith("Takes the ") and f"weights='{other}' takes" in note for note in found.notes)


def test_only_what_is_there_can_be_asked_for():
    for checkpoint in (STATE, {"state_dict": STATE}, {"model": prefixed("module.", STATE)}):
        with pytest.raises(UserError, match=r"Expected averaged weights .*got only the raw ones"):
            find_state_dict(checkpoint, "ema")
        assert not any("Takes" in note for note in find_state_dict(checkpoint, "raw").notes)
    for checkpoint in ({"model_ema": STATE}, prefixed("module.", STATE) | {"n_averaged": np.array(3)}):
        assert find_state_dict(checkpoint).arrays.keys() == STATE.keys()
        with pytest.raises(UserError, match=r"Expected raw weights .*got only the averaged ones"):
            find_state_dict(checkpoint, "raw")
    with pytest.raises(UserError, match="Expected weights to be 'raw' or 'ema', got 'average'"):
        find_state_dict(STATE, "average")


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "module._orig_mod.", "model.", "encoder.", "net.", "student.backbone.", "a.b.c."]
)
def test_any_common_prefix_is_left_out_and_said(prefix):
    found = find_state_dict(prefixed(prefix, STATE))
    assert found.arrays.keys() == STATE.keys()
    assert found.notes == [f"Leaves out {prefix!r}, with which the names begin."]


def test_the_prefix_of_a_downstream_model_stays_in_its_place():
    model = create_model("pacahead_nano", num_classes=3)
    variables = golden.random_variables(model)
    state = to_torch(variables, model)
    for prefix in ("", "module.", "_orig_mod.model."):
        filled = from_torch(prefixed(prefix, state), model)
        np.testing.assert_array_equal(
            filled["params"]["head"]["out"]["conv"]["kernel"], variables["params"]["head"]["out"]["conv"]["kernel"]
        )


def test_names_without_the_prefix_are_not_lost():
    found = find_state_dict(prefixed("module.", STATE) | {"criterion.weight": np.ones(3)})
    assert found.arrays.keys() == {*STATE, "criterion.weight"}
    with pytest.raises(UserError, match=r"got 'head\.weight' with and without 'module\.'"):
        find_state_dict(prefixed("module.", STATE) | {"head.weight": np.ones(3)})


@pytest.mark.parametrize("prefixes", [("student.", "teacher."), ("ema_a.", "ema_b."), ("a.", "b.", "ema.")])
def test_several_models_in_one_state_dict_are_told(prefixes):
    state = {key: value for prefix in prefixes for key, value in prefixed(prefix, STATE).items()}
    with pytest.raises(UserError, match=rf"one model's state dict, got {len(prefixes)}, .*'{prefixes[0]}'"):
        find_state_dict(state)


def test_missing_counters_of_batch_norms_are_zero_and_counted():
    model = create_model("upernet_nano", num_classes=3)
    state = to_torch(golden.random_variables(model), model)
    counters = [key for key in state if key.endswith("num_batches_tracked")]
    without = {key: value for key, value in state.items() if key not in counters}
    found = find_state_dict(without)
    assert all(found.arrays[key] == 0 for key in counters)
    assert found.notes == [f"num_batches_tracked is missing for {len(counters)} BatchNorms and becomes 0."]
    filled = from_torch(without | {counters[0]: state[counters[0]]}, model)
    assert {to_torch(filled, model)[key].item() for key in counters} == {0, 3}
    del without[counters[0].replace("num_batches_tracked", "running_var")]
    with pytest.raises(UserError, match=r"missing \(1\): .*running_var"):
        from_torch(without, model)
