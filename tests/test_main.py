"""The command line of training: bad input gives one clear sentence and exit status 2."""

import shutil
import signal
import subprocess
import time

import jax
import pytest

from paca_jax.errors import UserError
from paca_jax.train.train_loop import train
from tests.runs import ROOT, command, environment, run_main, scalars, small_config

TFRECORD_INFO = '"fileFormat": "tfrecord"'


def tfrecord_folder(data_dir):
    """Makes the shipped data set look as if it had been prepared as TFRecord."""
    source = ROOT / "datasets" / "fashion_mnist_small"
    shutil.copytree(source, data_dir / "fashion_mnist_small")
    info = data_dir / "fashion_mnist_small" / "1.0.0" / "dataset_info.json"
    text = info.read_text()
    assert '"fileFormat": "array_record"' in text
    info.write_text(text.replace('"fileFormat": "array_record"', TFRECORD_INFO))
    for file in info.parent.glob("*.array_record*"):
        file.rename(file.with_name(file.name.replace("array_record", "tfrecord")))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--config.model.name=pacavit_tny"], "no model named 'pacavit_tny'"),
        (["--config.learning_rat=1"], "no key 'learning_rat'; the nearest are learning_rate"),
        (["--config.batch_size=many"], "does not fit"),
        (["stray"], "Expected only flags (--name=value), got 'stray'"),
        (["--learning_rate=1"], "no flag --learning_rate"),
        (["--config=configs/nothing.py"], "no config file configs/nothing.py"),
    ],
)
def test_bad_input_gives_one_sentence(arguments, sentence, tmp_path):
    done = run_main(*command(tmp_path / "run"), *arguments)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert sentence in errors[0]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"batch_size": 33, "mesh__data": 1, "accumulate_steps": 2}, "batch_size to be a multiple of 2 .*, got 33"),
        ({"mesh__data": 4}, "Expected mesh sizes with a product of 1"),
        ({"dataset__name": "cifar100"}, "python -m paca_jax.data.prepare cifar100"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(values, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence) as raised:
        train(small_config(**values), tmp_path, devices=jax.devices()[:1])
    assert "\n" not in str(raised.value)


def test_a_data_set_prepared_as_tfrecord_names_the_conversion(tmp_path):
    tfrecord_folder(tmp_path)
    with pytest.raises(UserError, match=r"python -m paca_jax\.data\.convert_records"):
        train(small_config(dataset__data_dir=str(tmp_path)), tmp_path / "run", devices=jax.devices()[:1])


def test_a_killed_run_goes_on_and_ends_like_an_uninterrupted_one(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    options = {"num_steps": 60, "checkpoint_every_steps": 10}
    assert run_main(*command(whole, **options)).returncode == 0

    process = subprocess.Popen(command(killed, **options), cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL)
    checkpoints = killed / "checkpoints"
    while process.poll() is None and not (checkpoints.exists() and any(p.name.isdigit() for p in checkpoints.iterdir())):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL, "the run ended before it could be killed"
    assert max((line["step"] for line in scalars(killed)), default=0) < 60

    again = run_main(*command(killed, **options))
    assert again.returncode == 0
    assert "Going on from the checkpoint" in again.stderr
    assert scalars(killed) == scalars(whole)
