import functools
import importlib
import math
import re
import types
import typing

import pytest
from ml_collections import ConfigDict

from paca_jax.errors import UserError
from paca_jax.models import create_model
from paca_jax.train.config import VALUES, check_config, count_steps, default_config, flat_items, model_overrides
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
    with pytest.raises(UserError, match=r"a run of 1 to 2147483647 steps .*, got 0"):
        count_steps(config, 1000)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("batch_size", 12, "batch_size to be a multiple of 8 .*, got 12"),
        ("accumulate_steps", 3, "to be a multiple of 24"),
        ("log_every_steps", 0, "log_every_steps to be a whole number from 1 to"),
        ("schedule", "poly", "schedule to be one of cosine, linear, steps, got 'poly'"),
        ("rate_scales", (("head",),), "rate_scales to be a tuple of 0 to 1000 values, each a tuple of a string and a number"),
        ("rate_scales", (("head", -1.0),), "a string and a number from 0 to"),
        ("rate_scales", (("(head", 2.0),), "regular expression in rate_scales, got '\\(head'"),
        ("no_decay", "norm[", "regular expression in no_decay"),
        ("ema_decay", 1.0, "ema_decay to be a number at least 0 and below 1"),
        ("dtype", "float16", "one of float32, bfloat16"),
        ("on_nonfinite", "ignore", "on_nonfinite to be one of stop, skip, got 'ignore'"),
        ("layer_decay", 0.0, "layer_decay to be a number above 0 and at most 1"),
        ("learning_rate_batch_size", 0, "learning_rate_batch_size to be a whole number from 1"),
        ("profile_steps", (5, 3), "an empty tuple or a tuple of .* in ascending order"),
        ("profile_steps", (5,), "an empty tuple or a tuple of .* in ascending order"),
        ("model.implementation", "cuda", "model.implementation to be one of xla, xla_cpu, .* or None, got 'cuda'"),
        ("label_smoothing", 1.0, "label_smoothing to be a number at least 0 and below 1"),
        ("augment.erase_probability", 1.5, "augment.erase_probability to be a number from 0 to 1"),
        ("augment.cutmix_probability", -0.1, "augment.cutmix_probability to be a number from 0 to 1"),
        ("augment.mixup_alpha", -1.0, "augment.mixup_alpha to be a number from 0 to"),
        ("augment.mix_group", 100, "augment.mix_group to be a divisor of batch_size=1024, got 100"),
    ],
)
def test_values_that_do_not_fit(key, value, message):
    config = default_config()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=message):
        check_config(config, batch_shards=8)


def plain(hint):
    """Returns the annotation without None, and the restrictions on it."""
    parts = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return plain(next(part for part in parts if part is not type(None)))
    return plain(parts[0]) if typing.get_origin(hint) is typing.Annotated else hint


def untyped(key, value):
    """Returns a config that was not made from the default one, with this value."""
    values = default_config().to_dict()
    *folders, name = key.split(".")
    functools.reduce(dict.get, folders, values)[name] = value
    return ConfigDict(values)


def wrong_values(key):
    """Returns values that no key of this type takes: another type, not finite, negative, huge, another length."""
    kind = plain(VALUES[key])
    if typing.get_origin(kind) is tuple:
        inside = [("conv",), (float("nan"),) * 4, (float("inf"),) * 2, (-2,) * 4, (10**12,) * 2, ((),), (None,), (1.0,) * 2000]
        return ["text", 3, True, [None], *inside]
    if kind in (int, float):
        return ["text", (), True, float("nan"), float("inf"), -math.inf, -2, 10**12, 10**5000]
    return [b"bytes", 0.5, (), float("nan")] if kind is bool else [3, True, float("nan"), ("text",), ["text"]]


@pytest.mark.parametrize("key", VALUES)
def test_every_key_has_a_type_and_a_range(key):
    for value in wrong_values(key):
        with pytest.raises(UserError, match=f"^Expected {re.escape(key)} to be ") as raised:
            check_config(untyped(key, value), batch_shards=1)
        assert len(str(raised.value)) < 800


@pytest.mark.parametrize("key", [key for key, value, _ in flat_items(default_config()) if value is not None])
def test_a_key_with_a_default_is_never_none(key):
    config = default_config()
    config.update_from_flattened_dict({key: None})
    with pytest.raises(UserError, match=f"Expected {re.escape(key)} to be .*, got None"):
        check_config(config, batch_shards=1)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("beta2", 2.0),
        ("learning_rate", -1e-3),
        ("clip_norm", math.nan),
        ("num_epochs", math.nan),
        ("num_steps", 0),
        ("num_steps", 10**18),
        ("profile_steps", (0, 0)),
        ("profile_steps", (2.0, 3.0)),
        ("augment.crop_scale", (0.08, 1.0, 0.5, 1.0)),
        ("augment.crop_scale", (1.0, 0.08)),
        ("augment.short_sides", ()),
        ("batch_size", 10**12),
        ("mesh.model", 10**9),
        ("dataset.num_workers", 10**6),
        ("seed", 2**32),
        ("model.clusters", (10**9, 100, 100, 0)),
        ("model.num_heads", (0, 1, 1, 1)),
        ("init_allow_new", ("heads",)),
        ("decay_epochs", (11.0, 8.0)),
    ],
)
def test_numbers_that_no_run_can_take(key, value):
    config = default_config()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=f"Expected {re.escape(key)} to be "):
        check_config(config, batch_shards=1)


def test_a_config_has_the_keys_of_the_default():
    config = default_config().unlock()
    config.batch = 8
    with pytest.raises(UserError, match=r"keys of default_config\(\) in the config, got a config that also has batch\. "):
        check_config(config, batch_shards=1)
    del config.batch, config.augment.flip
    with pytest.raises(UserError, match=r"got a config without augment\.flip\. "):
        check_config(config, batch_shards=1)


@pytest.mark.parametrize(("key", "value"), [("num_epochs", 1e6), ("warmup_epochs", 1e6)])
def test_a_run_is_not_longer_than_its_counter(key, value):
    config = default_config()
    config[key] = value
    with pytest.raises(UserError, match=r"a run of 1 to 2147483647 steps and no longer warm-up"):
        count_steps(config, 10**7)


def test_model_options_are_typed_and_unset():
    config = default_config()
    assert model_overrides(config) == {}
    config.model.clusters = (49, 49, 49, 0)
    config.model.layer_scale = 0.5
    config.model.implementation = "xla"  # of the machine, not of the network
    assert model_overrides(config) == {"clusters": (49, 49, 49, 0), "layer_scale": 0.5}
    with pytest.raises(TypeError):
        config.model.post_norm = "yes"
