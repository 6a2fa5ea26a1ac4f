"""Config files that fail, and flags that set and unset keys of a config."""

import os
import sys

import pytest

from configs import photos
from paca_jax.cli import train
from paca_jax.cli.config import flags as config_flags
from paca_jax.command_line import Parser
from paca_jax.errors import UserError
from paca_jax.train.config import VALUES, default_config
from tests.runs import ROOT


def _parse_line(*line):
    options, overrides = config_flags.parse(Parser("test"), line)
    return config_flags.make_config(options.config, overrides)


def _parse(*flags):
    return _parse_line("--config=configs/photos.py", *flags)


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
        (
            ["--config.batch_size"],
            "Expected --config.batch_size=VALUE, with a whole number from 1 to .*, got --config.batch_size without a value",
        ),
        (["--config.model.clusters", "--config.remat"], "clusters=VALUE, with a tuple of 1 to 8 values.* without a value"),
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
        (["--noconfig.batch_size"], "batch_size=VALUE, .* got --noconfig.batch_size without a value"),
        (["--config.mesh={}"], "no key 'mesh'"),
        (["--flagfile=/etc/hostname"], "no flag --flagfile"),
        (["--undefok=typo", "--typo=1"], "no flag --undefok"),
        (["-x"], "no flag -x"),
        (["--batch_size=8"], "no flag --batch_size; the nearest is --config.batch_size"),
        (["--cofnig=FILE"], "no flag --cofnig; the nearest (is|are) --config"),
        (["--helpfull"], "no flag --helpfull; the nearest (is|are) --help"),
        (["--config.xyzzy=8"], "no key 'xyzzy'; known are [0-9]+, such as .* paca train --help-config lists all"),
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
        ("def get_config(variant):\n    pass\n", "Expected a variant, --config=.*:VARIANT, got none. Add one"),
        ("x = 1\0\n", "(SyntaxError|ValueError).*null bytes"),
        ("x = '\udcff'\n", "SyntaxError"),
        ("x = 1\n", "a function get_config in .*, got none"),
        ("get_config = 3\n", "a function get_config in .*, got 3"),
        ("VARIANTS = ('x', 'y')\ndef get_config(variant):\n    pass\n", "got none; known are x, y. Add one"),
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
        _parse_line(f"--config={file}")
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
        _parse_line(f"--config={typed}")
    with pytest.raises(UserError, match=r"Expected --config=FILE\[:VARIANT\], got no file"):
        _parse_line()


def test_a_config_file_runs_once(tmp_path, capsys):
    file = tmp_path / "config.py"
    file.write_text(HEAD + "print('ran')\nget_config = default_config\n")
    _parse_line(f"--config={file}")
    assert capsys.readouterr().out == "ran\n"


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("photos.py:large", r"Expected no variant after configs/photos\.py, which has none, got 'large'"),
        ("coco.py:smal", r"no variant 'smal' of configs/coco\.py; the nearest is small"),
        ("coco.py:xyz", r"no variant 'xyz' of configs/coco\.py; known are tiny, small, base"),
        ("paca_small.py:xyz", "no variant 'xyz'; known are 100, .*teacher"),
        ("photo.py", r"no config file configs/photo\.py; the nearest (is|are) configs/photos\.py"),
    ],
)
def test_a_file_or_variant_that_is_not_there_names_those_that_are(named, message):
    with pytest.raises(UserError, match=message):
        _parse_line(f"--config=configs/{named}")


def test_any_model_may_be_a_variant():
    assert _parse_line("--config=configs/coco.py:small_p2cmlp_100_0").model.name == "mask_rcnn_small_p2cmlp_100_0"


def test_the_keys_are_listed_with_their_comments_and_ranges(capsys):
    train.main(["--config=configs/photos.py", "--help-config", "--config.batch_size=8"])
    lines = capsys.readouterr().out.splitlines()
    keys = [line.partition("=")[0].removeprefix("--config.") for line in lines if line.startswith("--config.")]
    assert sorted(keys) == sorted(VALUES)
    start = lines.index(f"--config.batch_size=8  (default: {default_config().batch_size})")
    assert lines[start + 1 : start + 3] == ["    over all devices", "    a whole number from 1 to 16777216"]
    start = lines.index(f"--config.model.drop_path_rate={photos.get_config().model.drop_path_rate}  (default: None)")
    assert lines[start + 1].startswith("    the rate of stochastic depth")
    train.main(["--help-config"])
    assert f"--config.batch_size={default_config().batch_size}" in capsys.readouterr().out.splitlines()
    assert "--help-config" in (ROOT / "docs" / "training.md").read_text()


def test_a_config_of_the_library_is_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_flags.read_config("paca_base:teacher").model.name == "pacavit_convmixer_base_100"
    (tmp_path / "paca_base.py").write_text("raise ValueError('mine')")
    with pytest.raises(UserError, match="mine"):
        config_flags.read_config("paca_base.py")
    with pytest.raises(UserError, match=r"There is no config file paca_bas; the nearest .* paca_base"):
        config_flags.read_config("paca_bas")


def test_config_files_import_each_other_and_those_of_the_library_wherever_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "sizes.py").write_text("SIDE = 96\n")
    (tmp_path / "own" / "mine.py").write_text(
        "from configs.imagenet import imagenet_config\nfrom configs.sizes import SIDE\n\n\n"
        "def get_config():\n    config = imagenet_config({'': 'pacavit_nano'}, '')\n"
        "    config.image_size = SIDE\n    return config\n"
    )
    config = config_flags.read_config("own/mine.py")
    assert (config.model.name, config.image_size) == ("pacavit_nano", 96)
    assert "configs.sizes" not in sys.modules
