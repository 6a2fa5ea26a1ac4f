"""Evaluation of the raw and of the averaged variables."""

import json
import shutil
import sys

import jax
import pytest

from paca_jax.checkpoints.workdir import write_variables
from paca_jax.errors import UserError
from paca_jax.models import create_model
from paca_jax.train.config import flat_items
from paca_jax.train.evaluation import evaluate_only
from paca_jax.train.metrics.progress import format_scalars
from paca_jax.train.start import recorded_config
from tests import golden
from tests.runs import run_main, scalars, small_config

pytestmark = pytest.mark.xdist_group("train")

ONE = jax.devices()[:1]


def test_raw_and_averaged_variables_of_a_checkpoint(averaged_run, caplog):
    (workdir, trained), config = averaged_run, small_config(ema_decay=0.9, num_steps=4)
    with caplog.at_level("INFO", logger="paca_jax"):
        usual = evaluate_only(config, workdir, devices=ONE)
    assert "Evaluating the averaged variables; weights='raw' takes the others." in caplog.text
    raw, averaged = (evaluate_only(config, workdir, devices=ONE, weights=weights) for weights in ("raw", "ema"))
    assert usual == averaged == trained
    assert raw["eval/loss"] != averaged["eval/loss"]
    for weights, expected in (("raw", raw), ("ema", averaged), (None, averaged)):
        config.init_from, config.init_weights = str(workdir), weights
        assert evaluate_only(config, None, devices=ONE) == expected


def test_weights_that_are_not_there_are_told(finished_run):
    with pytest.raises(UserError, match=r"Expected averaged variables in .*only the raw ones"):
        evaluate_only(small_config(), finished_run, devices=ONE, weights="ema")
    with pytest.raises(UserError, match="Expected weights to be 'raw' or 'ema', got 'average'"):
        evaluate_only(small_config(), finished_run, devices=ONE, weights="average")
    with pytest.raises(UserError, match="Expected averaged variables"):
        evaluate_only(small_config(init_from=str(finished_run), init_weights="ema"), None, devices=ONE)


def test_the_config_of_a_run_is_recorded(finished_run):
    assert list(flat_items(recorded_config(finished_run))) == list(flat_items(small_config()))
    assert recorded_config(finished_run / "checkpoints" / "6") == recorded_config(finished_run)


def test_evaluation_takes_the_recorded_config_and_overrides_of_it(finished_run):
    done = run_main(
        *(sys.executable, "main.py", "--mode=eval", f"--workdir={finished_run}"), "--config.dataset.eval_split=test[:40]"
    )
    assert done.returncode == 0, done.stderr
    expected = evaluate_only(small_config(dataset__eval_split="test[:40]"), finished_run, devices=ONE)
    assert format_scalars(expected) in done.stderr
    assert expected["eval/loss"] != scalars(finished_run)[-1]["eval/loss"]
    assert "The config has changed since the checkpoint: dataset.eval_split test[:72] -> test[:40]." in done.stderr


def test_without_a_recorded_config_one_is_asked_for(tmp_path):
    recipe = {"name": "pacavit_nano", "num_classes": 10}
    write_variables(tmp_path / "converted", golden.random_variables(create_model(**recipe)), {"model": recipe})
    for place, found in ((None, "neither"), (tmp_path, "no checkpoint in"), (tmp_path / "converted", "converted weights")):
        with pytest.raises(UserError, match=rf"Expected --config=FILE\[:VARIANT\], or the workdir of a run, .*got {found}"):
            recorded_config(place)


def test_a_recorded_value_that_does_not_fit_is_told(finished_run, tmp_path):
    metadata = tmp_path / "checkpoints" / "12" / "metadata" / "metadata"
    shutil.copytree(finished_run / "checkpoints" / "12", tmp_path / "checkpoints" / "12")
    content = json.loads(metadata.read_text())
    content["config"]["batch_size"] = "many"
    metadata.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"records does not fit: Expected batch_size to be .*, got 'many'.* --config=FILE"):
        recorded_config(tmp_path)
