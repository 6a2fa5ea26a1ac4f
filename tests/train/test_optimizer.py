import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from paca_jax.convert import names
from paca_jax.models import create_model
from paca_jax.train.config import Steps, default_config
from paca_jax.train.optimizer import decays, layer_scales, learns, make_optimizer, make_schedule, rate_scales
from tests import golden


def schedule_of(total=100, warmup=10, per_epoch=10.0, **values):
    config = default_config()
    config.learning_rate, config.warmup_learning_rate, config.min_learning_rate = 1.0, 0.1, 0.2
    with config.unlocked():
        config.update(values)
    return make_schedule(config, Steps(total=total, warmup=warmup, per_epoch=per_epoch))


def test_the_schedule_warms_up_and_follows_the_unshifted_cosine():
    schedule = schedule_of()
    assert float(schedule(0)) == pytest.approx(0.1)
    assert float(schedule(5)) == pytest.approx(0.55)
    assert float(schedule(10)) == pytest.approx(0.2 + 0.8 * (1 + np.cos(np.pi * 0.1)) / 2)
    assert float(schedule(50)) == pytest.approx(0.6)
    assert float(schedule(100)) == pytest.approx(0.2)


def test_a_warmup_longer_than_the_run_is_legal():
    assert float(schedule_of(total=10, warmup=100, warmup_learning_rate=0.0)(9)) == pytest.approx(0.09)


def test_all_three_rates_scale_with_the_batch():
    plain = schedule_of(batch_size=64)
    scaled = schedule_of(batch_size=64, learning_rate_batch_size=16)
    for step in (0, 5, 10, 50, 100):
        assert float(scaled(step)) == pytest.approx(4 * float(plain(step)))


def test_by_epoch_the_rate_is_that_of_the_epochs_first_step():
    smooth, stairs = schedule_of(), schedule_of(schedule_by_epoch=True)
    for step in range(100):
        assert float(stairs(step)) == pytest.approx(float(smooth(step // 10 * 10)), rel=1e-6)


def test_the_imagenet_recipe_by_epoch():
    """timm's cosine with warmup_prefix off: warm-up e -> w + e (r - w) / 5, then f + (r - f)(1 + cos(pi e / 300)) / 2."""
    from configs.paca_tiny import get_config

    config = get_config()
    per_epoch = 1_281_167 / config.batch_size
    schedule = make_schedule(config, Steps(total=round(300 * per_epoch), warmup=round(5 * per_epoch), per_epoch=per_epoch))
    rate, low, floor = 1e-3, 1e-6, 1e-5
    for epoch in (0, 1, 4, 5, 6, 150, 299):
        expected = (
            low + epoch * (rate - low) / 5 if epoch < 5 else floor + (rate - floor) * (1 + np.cos(np.pi * epoch / 300)) / 2
        )
        for inside in (0.1, 0.9):
            assert float(schedule(round((epoch + inside) * per_epoch))) == pytest.approx(expected, rel=1e-3)


def test_decay_acts_on_matrices_only():
    config = default_config()
    config.weight_decay = 0.5
    optimizer = make_optimizer(config, 0.1)
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.05)
    np.testing.assert_allclose(updates["bias"], 0)


def test_clipping_bounds_the_global_norm():
    config = default_config()
    config.clip_norm, config.weight_decay = 1.0, 0.0
    params = {"a": jnp.zeros(2)}
    for size in (10.0, 1000.0):
        optimizer = make_optimizer(config, 1.0)
        _, state = optimizer.update({"a": jnp.array([size, 0.0])}, optimizer.init(params), params)
        np.testing.assert_allclose(state[1][0].mu["a"], [0.1, 0.0], rtol=1e-5)


@pytest.fixture(scope="module", params=["pacavit_nano", "pacavit_convmixer_tiny_100"])
def params(request):
    model = create_model(request.param, num_classes=5)
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]


def test_layers_learn_the_slower_the_further_they_are_from_the_head(params):
    scales = layer_scales(params, 0.5)
    depths = [sum(name.startswith("block") for name in params[f"stage{stage}"]) for stage in range(1, 5)]
    last = sum(depths) + 1
    assert set(jax.tree.leaves(scales["head"])) == {1.0}
    assert set(jax.tree.leaves(scales["stem"])) == {0.5**last}
    layer = 0
    for stage, depth in enumerate(depths, start=1):
        if stage > 1:
            assert set(jax.tree.leaves(scales[f"transition{stage - 1}"])) == {0.5 ** (last - layer - 1)}
        for block in range(depth):
            layer += 1
            assert set(jax.tree.leaves(scales[f"stage{stage}"][f"block{block}"])) == {0.5 ** (last - layer)}
        assert set(jax.tree.leaves(scales[f"stage{stage}"]["norm"])) == {0.5 ** (last - layer)}
    if "teacher" in params:
        assert 0.5**last < min(jax.tree.leaves(scales["teacher"])) < max(jax.tree.leaves(scales["teacher"])) < 1


def test_layer_decay_scales_updates_and_decay_alike():
    params = {
        "stem": {"kernel": jnp.ones((2, 2))},
        "stage1": {"block0": {"kernel": jnp.ones((2, 2))}},
        "head": jnp.ones((2, 2)),
    }
    config = default_config()
    config.layer_decay = 0.5
    updates = []
    for optimizer in (make_optimizer(default_config(), 0.1), make_optimizer(config, 0.1)):
        grads = jax.tree.map(jnp.ones_like, params)
        updates.append(optimizer.update(grads, optimizer.init(params), params)[0])
    for name, scale in (("head", 1), ("stage1", 0.5), ("stem", 0.25)):
        for plain, scaled in zip(*(jax.tree.leaves(part[name]) for part in updates), strict=True):
            np.testing.assert_allclose(scaled, scale * plain, rtol=1e-6)


def test_a_frozen_backbone_keeps_its_weights_and_no_moments():
    params = {"stem": {"kernel": jnp.ones((2, 2))}, "head": {"kernel": jnp.ones((2, 3))}}
    config = default_config()
    config.freeze_backbone = True
    optimizer = make_optimizer(config, 0.1)
    state = optimizer.init(params)
    updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, params), state, params)
    assert (updates["stem"]["kernel"] == 0).all()
    assert (updates["head"]["kernel"] < 0).all()
    assert {leaf.shape for leaf in jax.tree.leaves(state)} == {(), (2, 3)}
    assert learns(params) == {"stem": {"kernel": False}, "head": {"kernel": True}}


@pytest.fixture(scope="module", params=["pacahead_tiny", "pacahead_convmixer_small", "upernet_tiny"])
def segmentor(request):
    return request.param, golden.shapes(request.param)["params"]


def test_the_ade20k_recipe_by_official_names(segmentor):
    """mmengine: "clustering.4" and "head" in a name make it learn ten times as fast, "norm" keeps it from decay."""
    from configs.ade20k import get_config

    name, params = segmentor
    head = "paca_head" if name.startswith("pacahead") else "upernet"
    config = get_config(f"{head},{name.split('_', 1)[1]}")
    scales = flatten_dict(rate_scales(params, config.rate_scales), sep="/")
    decaying = flatten_dict(decays(params, config.no_decay), sep="/")
    found = {names.match(f"params/{path}").key: (scales[path], decaying[path]) for path in scales}
    for key, (scale, decay) in found.items():
        fast = head == "paca_head" and ("clustering.4" in key or "head" in key)
        assert scale == (10.0 if fast else 1.0), key
        assert decay == ("norm" not in key), key
    assert {scale for scale, _ in found.values()} == ({1.0, 10.0} if head == "paca_head" else {1.0})
    assert {decay for _, decay in found.values()} == {True, False}


def test_the_ade20k_schedule():
    from configs.ade20k import get_config

    schedule = make_schedule(get_config("upernet,base"), Steps(total=160_000, warmup=1500, per_epoch=1263.0))
    for step in (0, 1, 750, 1499, 1500, 80_000, 159_999):
        expected = 6e-5 * (1e-6 + (1 - 1e-6) * step / 1500 if step < 1500 else 1 - (step - 1500) / 158_500)
        assert float(schedule(step)) == pytest.approx(expected, rel=1e-5, abs=1e-11)


def test_the_coco_schedule():
    from configs.coco import get_config

    schedule = make_schedule(get_config("tiny"), Steps(total=87_948, warmup=500, per_epoch=7329.0))
    for step, expected in ((0, 1e-7), (250, 5e-5), (500, 1e-4), (58_600, 1e-4), (58_700, 1e-5), (80_700, 1e-6)):
        assert float(schedule(step)) == pytest.approx(expected, rel=2e-3)


def test_rates_scale_updates_by_the_first_expression_that_a_path_holds():
    params = {"head": {"a": jnp.ones((2, 2))}, "backbone": {"b": jnp.ones((2, 2)), "c": jnp.ones((2, 2))}}
    config = default_config()
    config.rate_scales = (("head", 10.0), ("/b$", 0.0), ("backbone", 2.0))
    updates = []
    for optimizer in (make_optimizer(default_config(), 0.1), make_optimizer(config, 0.1)):
        updates.append(optimizer.update(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params)[0])
    plain, scaled = updates
    np.testing.assert_allclose(scaled["head"]["a"], 10 * plain["head"]["a"], rtol=1e-6)
    np.testing.assert_allclose(scaled["backbone"]["b"], 0)
    np.testing.assert_allclose(scaled["backbone"]["c"], 2 * plain["backbone"]["c"], rtol=1e-6)


def test_layers_and_frozen_backbones_of_segmentors():
    params = golden.shapes("upernet_nano")["params"]
    scales = layer_scales(params, 0.5)
    assert set(jax.tree.leaves([scales["head"], scales["auxiliary_head"]])) == {1.0}
    assert set(jax.tree.leaves(scales["backbone"]["stem"])) == {0.5**7}
    learning = learns(params)
    assert not any(jax.tree.leaves(learning["backbone"]))
    assert all(jax.tree.leaves([learning["head"], learning["auxiliary_head"]]))
