"""Config files that fail, and flags that set and unset keys of a config."""

import argparse
import os

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


@pytest.mark.parametrize("path", ["/runs/decay=", "/runs/decay=None"])
def test_a_path_may_end_as_a_flag_that_unsets(path):
    assert _parse(f"--config.init_from={path}").init_from == path
    assert _parse("--config.init_from", path).init_from == path


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


def test_the_last_flag_of_a_key_counts():
    config = _parse(
        *("--config.augment.crop_scale=(0.1,1.0)", "--config.augment.crop_scale", "(0.5,1.0)"),
        *("--config.batch_size=8", "--config.batch_size", "16", "--config.init_from=None", "--config.init_from=file.pth"),
        *("--config.mesh.data", "-1", "--noconfig.augment.flip", "--config.dataset.ignore_zero", "--config.remat"),
    )
    assert (config.augment.crop_scale, config.batch_size, config.init_from) == ((0.5, 1.0), 16, "file.pth")
    assert (config.mesh.data, config.augment.flip, config.dataset.ignore_zero, config.remat) == (-1, False, True, True)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.batch_size"], "does not fit its key: Missing value"),
        (["--config.batch_size=1.5"], "does not fit its key"),
        (["--config.batch_size=" + "9" * 5000], "does not fit its key: .*batch_size"),
        (["--config.batch_size=" + "many" * 1000], "does not fit its key: .*batch_size"),
        (["--config.augment.crop_scale=" + "(" * 5000], "augment.crop_scale to be"),
        (["--config.augment.crop_scale=(0.1,"], "does not fit its key"),
        (["--config.augment.crop_scale=(1,2,3,4)"], "augment.crop_scale to be a tuple of a number"),
        (["--config.init_allow_new=head,clustering"], "does not fit its key|init_allow_new to be"),
        (["--config.learning_rate=nan"], "learning_rate to be a number from 0 to 1000, got nan"),
        (["--config.model.clusters=1000000000,100,100,0"], "model.clusters to be"),
        (["--config.remat", "False"], "only flags"),
        (["--noconfig.batch_size"], "does not fit its key"),
        (["--config.mesh={}"], "no key 'mesh'"),
        (["--flagfile=/etc/hostname"], "no flag --flagfile"),
        (["--undefok=typo", "--typo=1"], "no flag --undefok"),
        (["-x"], "no flag -x"),
    ],
)
def test_flags_that_do_not_fit(flags, message):
    with pytest.raises(UserError, match=message):
        _parse(*flags)


HEAD = "from paca_jax.train.config import default_config\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(:\n", "SyntaxError in line 1: "),
        ("x = 1\nimport no_such_package\n", "ModuleNotFoundError in line 2: No module named 'no_such_package'"),
        ("\n\nraise SystemExit\n", "SystemExit in line 3"),
        ("import sys\nsys.exit(0)\n", "SystemExit in line 2: 0"),
        ("def get_config():\n    return {}['a']\n", "KeyError in line 2: a"),
        ("def get_config():\n    open('no such file')\n", "FileNotFoundError in line 2: .*'no such file'"),
        ("def get_config():\n    return get_config()\n", "RecursionError in line 2"),
        ("class Odd(Exception):\n    pass\nraise Odd('one\\ntwo')\n", "Odd in line 3: one two"),
        (HEAD + "def get_config():\n    c = default_config()\n    c.batch = 1\n", "AttributeError in line 4: .*batch"),
        (HEAD + "def get_config():\n    c = default_config()\n    c.batch_size = '1'\n", "TypeError in line 4: "),
        ("def get_config(variant):\n    pass\n", "TypeError: get_config.. missing 1 required"),
        ("x = 1\0\n", "(SyntaxError|ValueError).*null bytes"),
        ("x = '\udcff'\n", "SyntaxError"),
        ("x = 1\n", "a function get_config in .*, got none"),
        ("get_config = 3\n", "TypeError: 'int' object is not callable"),
        ("def get_config():\n    pass\n", "to return a ConfigDict, got NoneType"),
        ("def get_config():\n    return {'batch_size': 8}\n", "to return a ConfigDict, got dict"),
        (
            HEAD + "def get_config():\n    c = default_config().unlock()\n    del c.model\n    return c\n",
            "without model.attention",
        ),
        (
            HEAD + "def get_config():\n    c = default_config()\n    c.clip_norm = float('nan')\n    return c\n",
            "clip_norm to be",
        ),
    ],
)
def test_a_config_file_that_fails_is_named_with_its_line(text, message, tmp_path):
    file = tmp_path / "config.py"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=message) as raised:
        config_flags.parse(argparse.ArgumentParser(prog="test"), [f"--config={file}"])
    assert str(file) in str(raised.value) or "clip_norm" in message
    assert len(str(raised.value)) < 600


def test_a_config_must_be_a_file_on_this_machine(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, message in [
        (tmp_path, "got a folder"),
        (tmp_path / "pipe", "got a pipe"),
        (tmp_path / "absent.py", "There is no config file"),
        ("https://example.org/config.py", "got 'https://example.org/config.py'"),
        ("gs://bucket/config.py", "a config file on this machine"),
        ("", "Expected a path, got ''"),
    ]:
        with pytest.raises(UserError, match=message):
            config_flags.read_config(str(path))


@pytest.mark.parametrize("typed", ["", " "])
def test_an_empty_config_is_told(typed):
    with pytest.raises(UserError, match=r"Expected --config=FILE\[:VARIANT\], got no file"):
        config_flags.parse(argparse.ArgumentParser(prog="test"), [f"--config={typed}"])


def test_a_config_file_runs_once(tmp_path, capsys):
    file = tmp_path / "config.py"
    file.write_text(HEAD + "print('ran')\nget_config = default_config\n")
    config_flags.parse(argparse.ArgumentParser(prog="test"), [f"--config={file}"])
    assert capsys.readouterr().out == "ran\n"
