"""Flags that unset keys of a config."""

import argparse

import pytest

from paca_jax.cli import config_flags
from paca_jax.errors import UserError


def _parse(*flags):
    line = ["--config=configs/photos.py", *flags]
    return config_flags.parse(argparse.ArgumentParser(prog="test"), line)[1]


@pytest.mark.parametrize("flag", ["--config.init_from=None", "--config.init_from=", "-config.init_from=None"])
def test_no_text_means_none(flag):
    assert _parse().init_from == "official"
    assert _parse(flag).init_from is None
    assert _parse("--config.init_from", "None").init_from is None


@pytest.mark.parametrize("key", ["num_steps", "model.clusters", "model.layer_scale", "dataset.ignore_zero", "dataset.data_dir"])
def test_every_key_that_may_be_none_can_be_unset(key):
    config = _parse(f"--config.{key}=None", "--config.batch_size=8")
    for part in key.split("."):
        config = config[part]
    assert config is None


@pytest.mark.parametrize("flag", ["--config.batch_size=None", "--config.flip=", "--config.learning_rate=None"])
def test_a_key_that_needs_a_value_cannot_be_unset(flag):
    with pytest.raises(UserError):
        _parse(flag)


def test_other_values_are_untouched():
    config = _parse("--config.init_from=Nonesuch", "--config.model.clusters=(4,4,0,0)", "--config.augment.flip=False")
    assert (config.init_from, config.model.clusters, config.augment.flip) == ("Nonesuch", (4, 4, 0, 0), False)
