"""Evaluation of the raw and of the averaged variables."""

import jax
import pytest

from paca_jax.errors import UserError
from paca_jax.train.evaluation import evaluate_only
from paca_jax.train.train_loop import train
from tests.runs import small_config

pytestmark = pytest.mark.xdist_group("train")

ONE = jax.devices()[:1]


@pytest.fixture(scope="module")
def averaged_run(tmp_path_factory, prepare_once):
    workdir = tmp_path_factory.mktemp("averaged")
    train(small_config(ema_decay=0.9, num_steps=4), workdir, devices=ONE)
    return workdir


def test_raw_and_averaged_variables_of_a_checkpoint(averaged_run, caplog):
    config = small_config(ema_decay=0.9, num_steps=4)
    with caplog.at_level("INFO", logger="paca_jax"):
        usual = evaluate_only(config, averaged_run, devices=ONE)
    assert "Evaluating the averaged variables; weights='raw' takes the others." in caplog.text
    raw, averaged = (evaluate_only(config, averaged_run, devices=ONE, weights=weights) for weights in ("raw", "ema"))
    assert usual == averaged
    assert raw["eval/loss"] != averaged["eval/loss"]
    for weights, expected in (("raw", raw), ("ema", averaged), (None, averaged)):
        config.init_from, config.init_weights = str(averaged_run), weights
        assert evaluate_only(config, None, devices=ONE) == expected


def test_weights_that_are_not_there_are_told(finished_run):
    with pytest.raises(UserError, match=r"Expected averaged variables in .*only the raw ones"):
        evaluate_only(small_config(), finished_run, devices=ONE, weights="ema")
    with pytest.raises(UserError, match="Expected weights to be 'raw' or 'ema', got 'average'"):
        evaluate_only(small_config(), finished_run, devices=ONE, weights="average")
    with pytest.raises(UserError, match="Expected averaged variables"):
        evaluate_only(small_config(init_from=str(finished_run), init_weights="ema"), None, devices=ONE)
