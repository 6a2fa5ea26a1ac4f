"""The command line: every bad input is one clear sentence and a non-zero exit."""

import shutil
import signal
import subprocess
import time

import pytest

from tests.runs import ROOT, command, environment, run_main, scalars

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
        (["--config.batch_size=33", "--config.mesh.data=1", "--config.accumulate_steps=2"], "batch_size=33 must be a multiple"),
        (["--config.mesh.data=4"], "does not fit the 1 devices"),
        (["--config.dataset.name=cifar100"], "python -m paca_jax.data.prepare cifar100"),
        (["--config.dataset.data_dir={tmp}"], "python -m paca_jax.data.convert_records"),
        (["stray"], "Everything is a --flag, but got 'stray'"),
        (["--config=configs/nothing.py"], "no config file configs/nothing.py"),
    ],
)
def test_bad_input_is_told_in_one_sentence(arguments, sentence, tmp_path):
    if any("{tmp}" in argument for argument in arguments):
        tfrecord_folder(tmp_path)
    arguments = [argument.replace("{tmp}", str(tmp_path)) for argument in arguments]
    done = run_main(*command(tmp_path / "run"), *arguments)
    assert done.returncode == 2
    told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(told) == 1, done.stderr
    assert sentence in told[0]
    assert "Traceback" not in done.stderr


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
