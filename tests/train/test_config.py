import importlib

import pytest

from paca_jax.errors import UserError
from paca_jax.models import create_model
from paca_jax.train.config import check_config, count_steps, default_config, model_overrides
from tests.runs import ROOT

FILES = sorted(path.stem for path in (ROOT / "configs").glob("*.py") if path.stem != "imagenet")


@pytest.mark.parametrize("name", FILES)
def test_every_config_and_variant_names_a_model_and_defines_its_length(name):
    module = importlib.import_module(f"configs.{name}")
    for variant in getattr(module, "VARIANTS", [None]):
        config = module.get_config() if variant is None else module.get_config(variant)
        create_model(config.model.name, **model_overrides(config))
        check_config(config, batch_shards=8)
        assert count_steps(config, 1000).total > 0
        assert "Command:" in module.__doc__


def test_an_unknown_variant_names_the_known_ones():
    with pytest.raises(UserError, match=r"no variant 'medium'; known are 100, 100_49, .*teacher"):
        importlib.import_module("configs.paca_small").get_config("medium")


def test_steps_follow_from_epochs_and_num_steps_wins():
    config = default_config()
    config.batch_size, config.num_epochs, config.warmup_epochs = 100, 2.5, 0.5
    assert (count_steps(config, 1000).total, count_steps(config, 1000).warmup) == (25, 5)
    config.num_steps, config.warmup_steps = 7, 50
    assert (count_steps(config, 1000).total, count_steps(config, 1000).warmup) == (7, 50)


def test_a_run_without_steps_is_refused():
    config = default_config()
    config.num_epochs = 0.0
    with pytest.raises(UserError, match="at least one step"):
        count_steps(config, 1000)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("batch_size", 12, "batch_size to be a multiple of 8 .*, got 12"),
        ("accumulate_steps", 3, "to be a multiple of 24"),
        ("log_every_steps", 0, "log_every_steps to be at least 1"),
        ("schedule", "poly", "schedule to be cosine or linear or steps, got 'poly'"),
        ("rate_scales", (("head",),), "pairs of a regular expression and a factor"),
        ("rate_scales", (("head", -1.0),), "a factor of 0 or more"),
        ("rate_scales", (("(head", 2.0),), "regular expression in rate_scales, got '\\(head'"),
        ("no_decay", "norm[", "regular expression in no_decay"),
        ("ema_decay", 1.0, "ema_decay to be in"),
        ("dtype", "float16", "float32 or bfloat16"),
        ("on_nonfinite", "ignore", "on_nonfinite to be stop or skip, got 'ignore'"),
        ("layer_decay", 0.0, r"layer_decay to be in \(0, 1\]"),
        ("learning_rate_batch_size", 0, "learning_rate_batch_size to be at least 1"),
        ("profile_steps", (5, 3), "two steps .* in order"),
        ("profile_steps", (5,), "two steps .* in order"),
        ("model.implementation", "cuda", "model.implementation to be one of None, xla, xla_cpu, .*, got 'cuda'"),
        ("label_smoothing", 1.0, "label_smoothing to be in"),
        ("augment.erase_probability", 1.5, "augment.erase_probability to be in"),
        ("augment.cutmix_probability", -0.1, "augment.cutmix_probability to be in"),
        ("augment.mixup_alpha", -1.0, "augment.mixup_alpha to be positive, or 0"),
        ("augment.mix_group", 100, "augment.mix_group to be a divisor of batch_size=1024, got 100"),
    ],
)
def test_values_that_do_not_fit(key, value, message):
    config = default_config()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=message):
        check_config(config, batch_shards=8)


def test_model_options_are_typed_and_unset():
    config = default_config()
    assert model_overrides(config) == {}
    config.model.clusters = (49, 49, 49, 0)
    config.model.layer_scale = 0.5
    config.model.implementation = "xla"  # of the machine, not of the network
    assert model_overrides(config) == {"clusters": (49, 49, 49, 0), "layer_scale": 0.5}
    with pytest.raises(TypeError):
        config.model.post_norm = "yes"
