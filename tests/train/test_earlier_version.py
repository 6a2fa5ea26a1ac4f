"""A run that the library wrote before its rooms were moved resumes, and evaluates, to the numbers of that time."""

import json
import tarfile

import jax
import numpy as np
import pytest

import paca_jax
from paca_jax.train.evaluation import evaluate_only
from paca_jax.train.start import recorded_config
from paca_jax.train.train_loop import train
from tests import golden
from tests.runs import scalars, small_config

# As the earlier version computed them on one CPU device: `LAST` by training on to step 12, `AT_STEP_8` by evaluating.
LAST = {
    "train/loss": 2.2515783309936523,
    "train/grad_norm": 0.7999436259269714,
    "train/parameter_norm": 23.982723236083984,
    "eval/loss": 2.262375831604004,
    "eval/accuracy": 0.2777777910232544,
}
AT_STEP_8 = {"eval/loss": 2.2751, "eval/accuracy": 0.2222}
MODEL = {
    "model__embed_dims": (8, 8, 16, 16),
    "model__depths": (1, 1, 1, 1),
    "model__num_heads": (1, 1, 2, 2),
    "model__clusters": (4, 4, 0, 0),
}


@pytest.fixture
def workdir(tmp_path):
    with tarfile.open(golden.FOLDER / "checkpoints" / "run_at_step_8.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def config():
    return small_config(**MODEL, checkpoint_keep=9, ema_decay=0.9)


def test_a_checkpoint_of_an_earlier_version_resumes_and_evaluates_to_the_same_numbers(workdir):
    before = scalars(workdir)
    found = evaluate_only(config(), workdir, devices=jax.devices()[:1])
    assert found == pytest.approx(AT_STEP_8, abs=1e-4)
    train(config(), workdir, devices=jax.devices()[:1])
    after = scalars(workdir)
    assert [line["step"] for line in after] == [2, 4, 6, 8, 10, 12]
    assert after[:4] == before[:4]
    assert {name: after[-1][name] for name in LAST} == pytest.approx(LAST, rel=1e-4)


def test_it_loads(workdir):
    model, variables = paca_jax.load(workdir)
    assert (model.config.clusters, model.config.num_classes) == ((4, 4, 0, 0), 10)
    assert np.isfinite(jax.jit(model.apply)(variables, np.zeros((1, 32, 32, 3), np.float32))).all()
    metadata = json.loads((workdir / "checkpoints" / "8" / "metadata" / "metadata").read_text())
    assert metadata["model"]["name"] == "pacavit_nano"


def test_it_evaluates_with_the_config_that_it_records(workdir, caplog):
    metadata = workdir / "checkpoints" / "8" / "metadata" / "metadata"
    content = json.loads(metadata.read_text())
    content["config"]["model"]["removed"] = 3
    metadata.write_text(json.dumps(content))
    recorded = recorded_config(workdir)
    assert "boxes_only" not in content["config"]["dataset"]
    assert recorded.dataset.boxes_only is False
    recorded.dataset.data_dir = config().dataset.data_dir
    assert recorded == config()
    found = evaluate_only(recorded, workdir, devices=jax.devices()[:1])
    assert found == pytest.approx(AT_STEP_8, abs=1e-4)
    assert "dataset.boxes_only (not recorded) -> False" in caplog.text
    assert "model.removed 3 -> (no such key)" in caplog.text
