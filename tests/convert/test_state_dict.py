"""State dicts to variables and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from paca_jax.convert import from_torch, to_torch
from paca_jax.convert.state_dict import fill_from_torch
from paca_jax.errors import UserError
from paca_jax.models import TeacherConfig, create_model
from paca_jax.sharding import make_mesh, parameter_shardings
from tests import golden
from tests.shapes import unchecked

TEACHER = TeacherConfig(depths=(1, 1, 1, 1), kernel_size=3)


def _nano(**overrides):
    model = golden.nano(**overrides)
    return model, golden.random_variables(model)


@pytest.fixture(scope="module")
def nano():
    return golden.random_weights(golden.nano())


@pytest.fixture(scope="module")
def nano_with_teacher():
    return golden.random_weights(golden.nano(teacher=TEACHER, clusters=(6, 5, 4, 3)))


def _assert_equal_trees(ours, theirs):
    ours, theirs = flatten_dict(ours, sep="/"), flatten_dict(theirs, sep="/")
    assert ours.keys() == theirs.keys()
    for path in ours:
        assert ours[path].dtype == theirs[path].dtype, path
        np.testing.assert_array_equal(ours[path], theirs[path], err_msg=path)


@pytest.mark.parametrize("name", [*golden.CLASSIFIERS, *golden.SEGMENTORS, *golden.DETECTORS])
def test_every_manifest_comes_back_bit_for_bit(name):
    state, model = golden.state_dict(name), golden.model(name)
    variables = from_torch(state, model)
    back = to_torch(variables, model)
    assert back.keys() == state.keys()
    for key, array in state.items():
        assert (back[key].shape, back[key].dtype) == (array.shape, array.dtype), key
        assert back[key].tobytes() == array.tobytes(), key
        assert back[key].flags.c_contiguous, key
        assert back[key].flags.writeable, key


def test_variables_have_the_shapes_and_types_of_init(nano_with_teacher):
    model, variables, state = nano_with_teacher
    filled = from_torch(state, model)
    _assert_equal_trees(filled, variables)
    assert type(filled) is dict
    assert type(filled["params"]["stage1"]) is dict


def test_one_missing_one_extra_and_one_misshapen_key_are_told_at_once(nano):
    model, _, state = nano
    broken = dict(state)
    del broken["stage1.0.attn.q.weight"]
    broken["stage9.0.attn.q.weight"] = np.zeros(3, np.float32)
    broken["norm2.bias"] = np.zeros(5, np.float32)
    with pytest.raises(UserError) as caught:
        from_torch(broken, model)
    message = str(caught.value)
    assert "missing (1): stage1.0.attn.q.weight;" in message
    assert "unexpected (1): stage9.0.attn.q.weight;" in message
    assert "misshapen (1): norm2.bias (expected (64,), found (5,))" in message


def test_what_to_torch_cannot_place_is_told(nano):
    model, variables, _ = nano
    broken = jax.tree.map(np.asarray, variables)
    del broken["params"]["stem"]["conv1"]["bias"]
    broken["params"]["stem"]["conv3"] = {"bias": np.zeros(3)}
    broken["params"]["head"]["bias"] = np.zeros(3)
    with pytest.raises(UserError) as caught:
        to_torch(broken, model)
    for told in ("params/stem/conv1/bias", "params/stem/conv3/bias", "params/head/bias (expected (10,), found (3,))"):
        assert told in str(caught.value)


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "state_dict_ema"])
@pytest.mark.parametrize("prefix", ["module.", "backbone.", "module.backbone."])
def test_wrappers_and_prefixes_are_taken_off(nano, wrapper, prefix):
    model, variables, state = nano
    wrapped = {wrapper: {prefix + key: value for key, value in state.items()}, "epoch": 3, "optimizer": {}}
    _assert_equal_trees(from_torch(wrapped, model), variables)


def test_the_weights_come_before_their_average(nano):
    model, variables, state = nano
    average = {key: 0 * value for key, value in state.items()}
    _assert_equal_trees(from_torch({"state_dict_ema": average, "state_dict": state}, model), variables)


@pytest.mark.parametrize("wrong", [{}, {"epoch": 3}, {"state_dict": {"head.weight": "text"}}])
def test_what_is_no_state_dict_is_told(nano, wrong):
    with pytest.raises(UserError, match="state dict maps names to arrays"):
        from_torch(wrong, nano[0])


def test_narrow_and_wide_floats_become_float32(nano):
    model, _, state = nano
    for dtype in (np.float16, np.float64, jnp.bfloat16):
        variables = from_torch({key: value.astype(dtype) for key, value in state.items()}, model)
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    with pytest.raises(UserError, match=r"Expected floating-point numbers in head\.bias, got int8"):
        from_torch(state | {"head.bias": np.zeros(10, np.int8)}, model)


def test_torch_tensors_are_taken(nano_with_teacher):
    torch = pytest.importorskip("torch")
    model, variables, state = nano_with_teacher
    tensors = {key: torch.from_numpy(value).requires_grad_(value.dtype == np.float32) for key, value in state.items()}
    _assert_equal_trees(from_torch(tensors, model), variables)
    halves = {key: value.detach().bfloat16() if value.is_floating_point() else value for key, value in tensors.items()}
    assert from_torch(halves, model)["params"]["head"]["bias"].dtype == jnp.float32


def test_variables_do_not_share_memory_with_the_state_dict(nano):
    model, variables, state = nano
    state = {key: value.copy() for key, value in state.items()}
    filled = from_torch(state, model)
    for value in state.values():
        value += 1
    _assert_equal_trees(filled, variables)


def test_the_blur_filter_is_checked(nano_with_teacher):
    model, _, state = nano_with_teacher
    with pytest.raises(UserError, match=r"transition2\.0\.blur_filter \(expected the constant"):
        from_torch(state | {"paca_teacher.transition2.0.blur_filter": np.zeros((64, 1, 3, 3), np.float32)}, model)
    with pytest.raises(UserError, match=r"missing \(1\): paca_teacher\.transition1\.0\.blur_filter"):
        from_torch({key: value for key, value in state.items() if "transition1.0.blur" not in key}, model)


def test_another_head_starts_fresh_only_when_asked(nano, caplog):
    _, variables, state = nano
    model = golden.nano(num_classes=7)
    with pytest.raises(UserError, match=r"allow_new=\('head',\)"):
        from_torch(state, model)
    filled = fill_from_torch(state, model, allow_new=("head",))
    assert filled.fresh == ["params/head/bias", "params/head/kernel"]
    head = filled.variables["params"].pop("head")
    assert head["kernel"].shape == (160, 7)
    assert 0.015 < head["kernel"].std() < 0.025
    _assert_equal_trees(filled.variables["params"], {k: v for k, v in variables["params"].items() if k != "head"})
    other = fill_from_torch(state, model, allow_new=("head",), seed=1).variables["params"]["head"]
    assert np.abs(other["kernel"] - head["kernel"]).max() > 0
    again = from_torch(state, model, allow_new=("head",))["params"]["head"]
    np.testing.assert_array_equal(again["kernel"], head["kernel"])


def test_no_head_and_a_first_head(nano):
    _, _, state = nano
    headless = golden.nano(num_classes=0)
    with pytest.raises(UserError, match=r"unexpected \(2\): head"):
        from_torch(state, headless)
    filled = fill_from_torch(state, headless, allow_new=("head",))
    assert (filled.fresh, sorted(filled.unused)) == ([], ["head.bias", "head.weight"])
    with_head = golden.nano(num_classes=3)
    bare = to_torch(filled.variables, headless)
    assert fill_from_torch(bare, with_head, allow_new=("head",)).fresh == ["params/head/bias", "params/head/kernel"]


def test_what_starts_fresh_is_drawn_as_by_init(nano):
    _, _, state = nano
    model = golden.nano(num_classes=7)
    fresh = from_torch(state, model, allow_new=("head",), seed=5)["params"]["head"]["kernel"]
    expected = jax.jit(model.init)(jax.random.key(5), jnp.zeros((1, 32, 32, 3)))["params"]["head"]["kernel"]
    np.testing.assert_allclose(fresh, expected, rtol=1e-5)


def test_other_clusters_start_fresh_only_when_asked():
    model, variables = _nano(cluster_position_embedding=True)
    state = to_torch(variables, model)
    other = golden.nano(cluster_position_embedding=True, clusters=(20, 8, 0, 0))
    with pytest.raises(UserError, match=r"allow_new=\('clustering',\)"):
        from_torch(state, other)
    attention = "params/stage1/block{}/attention/{}".format
    assert fill_from_torch(state, other, allow_new=["clustering"]).fresh == [
        attention(0, "cluster_position_embedding"),
        attention(0, "conv_clustering/project/kernel"),
        attention(1, "cluster_position_embedding"),
    ]
    without = golden.nano(cluster_position_embedding=True, clusters=(16, 0, 3, 0))
    filled = fill_from_torch(state, without, allow_new=["clustering", "head"])
    assert filled.unused
    assert all(key.startswith("stage2") for key in filled.unused)
    assert all("stage3" in path for path in filled.fresh)


def test_other_clusters_of_a_teacher(nano_with_teacher):
    _, _, state = nano_with_teacher
    model = golden.nano(teacher=TEACHER, clusters=(6, 5, 9, 3))
    fresh = fill_from_torch(state, model, allow_new=("clustering",)).fresh
    assert fresh == ["params/teacher/assign3/bias", "params/teacher/assign3/kernel"]


def test_a_wrong_backbone_is_never_forgiven(nano):
    _, _, state = nano
    model = golden.nano(num_classes=7, depths=(1, 2, 2, 1))
    with pytest.raises(UserError, match=r"unexpected .*stage1\.1\.") as caught:
        from_torch(state, model, allow_new=("head", "clustering"))
    assert "head" not in str(caught.value)


@pytest.mark.parametrize("allow_new", ["head", ("heads",), 5, [None], [["head"]]])
def test_unknown_groups_are_told(nano, allow_new):
    with unchecked(), pytest.raises(UserError, match="Expected allow_new to be a tuple"):
        from_torch(nano[2], nano[0], allow_new=allow_new)


def test_gradients_take_the_names_of_parameters(nano_with_teacher):
    model, variables, state = nano_with_teacher
    buffers = ("running_mean", "running_var", "num_batches_tracked", "blur_filter")
    expected = [key for key in state if not key.endswith(buffers)]
    gradients = jax.tree.map(lambda leaf: 2 * leaf, variables["params"])
    for tree in (gradients, {"params": gradients}):
        converted = to_torch(tree, model)
        assert sorted(converted) == sorted(expected)
        for key in expected:
            np.testing.assert_array_equal(converted[key], 2 * state[key])


def test_sharded_variables_convert_alike(nano):
    model, variables, _ = nano
    params = variables["params"]
    sharded = jax.device_put(params, parameter_shardings(params, make_mesh(2, 2, 2)))
    assert sum(not leaf.is_fully_replicated for leaf in jax.tree.leaves(sharded)) > 20
    whole, parts = (to_torch({"params": tree}, model) for tree in (params, sharded))
    assert len(whole) > 50
    assert {key: array.tobytes() for key, array in whole.items()} == {key: array.tobytes() for key, array in parts.items()}


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_classifiers_weights_start_a_segmentor(nano, wrapped):
    _, variables, state = nano
    segmentor = create_model("pacahead_nano", num_classes=4, **{k: v for k, v in golden.NANO.items() if k != "num_classes"})
    given = {"model": {f"module.{key}": value for key, value in state.items()}} if wrapped else state
    with pytest.raises(UserError, match=r"missing \(60\): decode_head.*allow_new=\('head',\)"):
        from_torch(given, segmentor)
    filled = fill_from_torch(given, segmentor, allow_new=("head",))
    backbone = {name: part for name, part in variables["params"].items() if name != "head"}
    _assert_equal_trees(filled.variables["params"]["backbone"], backbone)
    assert sorted(filled.unused) == ["backbone.head.bias", "backbone.head.weight"]
    assert all(path.split("/")[1] == "head" for path in filled.fresh)
    assert len(filled.fresh) == len(jax.tree.leaves([filled.variables[c]["head"] for c in ("params", "batch_stats")]))


def test_more_clusters_and_other_classes_of_a_segmentor_start_fresh():
    first = create_model("upernet_nano", num_classes=4, head_channels=8)
    state = to_torch(golden.random_variables(first), first)
    second = create_model("upernet_nano", num_classes=5, head_channels=8, clusters=(20, 8, 0, 0))
    filled = fill_from_torch(state, second, allow_new=("head", "clustering"))
    assert filled.unused == []
    assert sorted(filled.fresh) == [
        "params/auxiliary_head/classifier/project/bias",
        "params/auxiliary_head/classifier/project/kernel",
        "params/backbone/stage1/block0/attention/conv_clustering/project/kernel",
        "params/head/classifier/project/bias",
        "params/head/classifier/project/kernel",
    ]
