import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import paca_jax
from paca_jax.checkpoints.workdir import read_variables
from paca_jax.errors import UserError
from paca_jax.train.evaluation import evaluate_only
from paca_jax.train.train_loop import train
from tests.runs import scalars, small_config

pytestmark = pytest.mark.xdist_group("train")  # so that one worker makes what they share

ONE = jax.devices()[:1]


def test_a_run_leaves_metrics_checkpoints_overview_and_picture(finished_run):
    lines = scalars(finished_run)
    assert [line["step"] for line in lines] == [2, 4, 6, 8, 10, 12]
    assert {"train/loss", "train/grad_norm", "train/learning_rate", "train/accuracy"} <= lines[0].keys()
    assert [line["step"] for line in lines if "eval/accuracy" in line] == [6, 12]
    assert 0 <= lines[-1]["eval/accuracy"] <= 1
    assert lines[-1]["train/loss"] < lines[0]["train/loss"]
    assert sorted(path.name for path in (finished_run / "checkpoints").iterdir()) == ["12", "6", "8"]
    assert "stage1/block0/attention/query/kernel" in (finished_run / "parameters.txt").read_text()
    assert Image.open(finished_run / "clusters.png").size[0] > 300
    assert list(finished_run.glob("events.out.tfevents*"))


def test_a_run_leaves_a_report(finished_run):
    report = json.loads((finished_run / "report.json").read_text())
    lines = scalars(finished_run)
    assert report["steps"] == report["last"]["step"] == 12
    assert report["last"]["eval/accuracy"] == lines[-1]["eval/accuracy"]
    assert report["best"]["eval/accuracy"] == max(line.get("eval/accuracy", 0) for line in lines)
    assert report["images_per_second"] > 0
    assert report["seconds"] > 0
    assert report["versions"]["jax"] == jax.__version__
    assert report["config"]["batch_size"] == 32
    assert report["devices"] == {"kind": "cpu", "mesh": {"data": 1, "fsdp": 1, "model": 1}, "processes": 1}


def test_the_same_command_reports_a_finished_run(finished_run, caplog):
    before = (finished_run / "metrics.jsonl").read_bytes()
    with caplog.at_level("INFO", logger="paca_jax"):
        result = train(small_config(), finished_run, devices=ONE)
    assert "finished run" in caplog.text
    assert result["eval/accuracy"] == scalars(finished_run)[-1]["eval/accuracy"]
    assert (finished_run / "metrics.jsonl").read_bytes() == before


def test_a_finished_run_continues_for_more_steps_as_its_report_says(finished_run, tmp_path, caplog):
    workdir = tmp_path / "run"
    shutil.copytree(finished_run, workdir)
    with caplog.at_level("INFO", logger="paca_jax"):
        train(small_config(), workdir, devices=ONE)
        assert "A larger num_steps continues this run; its learning rate then rises again" in caplog.text
        train(small_config(num_steps=18), workdir, devices=ONE)
    assert "Going on from the checkpoint at step 12" in caplog.text
    before, after = scalars(finished_run), scalars(workdir)
    assert after[: len(before)] == before
    assert [line["step"] for line in after[len(before) :]] == [14, 16, 18]
    assert before[-1]["train/learning_rate"] < after[len(before)]["train/learning_rate"]


@pytest.mark.parametrize("last_kept", [6, None])
def test_an_interrupted_run_goes_on_to_the_same_bits(finished_run, tmp_path, last_kept):
    workdir = tmp_path / "run"
    shutil.copytree(finished_run, workdir)
    for step in (6, 8, 12):
        if last_kept is None or step > last_kept:
            shutil.rmtree(workdir / "checkpoints" / str(step))
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 14, "train/lo')
    train(small_config(), workdir, devices=ONE)
    assert scalars(workdir) == scalars(finished_run)
    _, whole = paca_jax.load(finished_run)
    _, resumed = paca_jax.load(workdir)
    assert jax.tree.all(jax.tree.map(np.array_equal, whole, resumed))


def test_evaluation_gives_the_last_evaluation_again(finished_run):
    result = evaluate_only(small_config(), finished_run, devices=ONE)
    last = scalars(finished_run)[-1]
    assert result == {name: value for name, value in last.items() if name.startswith("eval/")}


def test_evaluation_starts_from_init_from_and_writes_nothing(finished_run, tmp_path):
    result = evaluate_only(small_config(init_from=str(finished_run)), tmp_path / "none", devices=ONE)
    assert result["eval/accuracy"] == scalars(finished_run)[-1]["eval/accuracy"]
    assert not (tmp_path / "none").exists()


def test_official_means_the_weights_of_the_configs_model():
    with pytest.raises(UserError, match="pacavit_nano"):
        evaluate_only(small_config(init_from="official"), None, devices=ONE)


def test_the_implementation_is_logged_and_belongs_to_no_checkpoint(finished_run, tmp_path, caplog):
    workdir = tmp_path / "run"
    shutil.copytree(finished_run, workdir)
    shutil.rmtree(workdir / "checkpoints" / "12")
    with caplog.at_level("INFO", logger="paca_jax"):
        train(small_config(model__implementation="xla"), workdir, devices=ONE)
    assert "The config has changed" not in caplog.text
    for operation in ("attention", "mlp"):
        lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith(f"{operation}: ")]
        assert len(lines) == 1
        assert "xla" in lines[0]
        assert "xla_cpu" not in lines[0]
    _, metadata = read_variables(workdir)
    assert "implementation" not in metadata["config"]["model"]
    assert "implementation" not in metadata["model"]
    assert [line["step"] for line in scalars(workdir)] == [line["step"] for line in scalars(finished_run)]


def test_nothing_to_evaluate(tmp_path):
    with pytest.raises(UserError, match="nothing to evaluate"):
        evaluate_only(small_config(), tmp_path, devices=ONE)


def test_a_frozen_backbone_stays_as_it_was_and_is_resumed(finished_run, tmp_path):
    config = small_config(freeze_backbone=True, init_from=str(finished_run), num_steps=4, mesh__fsdp=2)
    train(config, tmp_path)
    train(config, tmp_path)
    _, before = paca_jax.load(finished_run)
    _, after = paca_jax.load(tmp_path)
    for name, part in before["params"].items():
        assert jax.tree.all(jax.tree.map(np.array_equal, part, after["params"][name])) == (name != "head")


def test_another_model_is_refused_and_nothing_is_lost(finished_run):
    before = sorted(finished_run.rglob("*"))
    with pytest.raises(UserError, match=r"model\.depths \[1, 1, 1, 1\] -> \[1, 1, 2, 1\]"):
        train(small_config(model__depths=(1, 1, 2, 1)), finished_run, devices=ONE)
    assert sorted(finished_run.rglob("*")) == before


@pytest.mark.parametrize("change", [{"ema_decay": 0.9}, {"freeze_backbone": True}, {"layer_decay": 0.5}, {"clip_norm": 0.0}])
def test_another_optimizer_is_refused_and_other_changes_are_logged(finished_run, change, caplog):
    with pytest.raises(UserError, match=next(iter(change))):
        train(small_config(**change), finished_run, devices=ONE)
    train(small_config(weight_decay=0.1), finished_run, devices=ONE)
    assert "The config has changed since the checkpoint: weight_decay 0.05 -> 0.1." in caplog.text


def test_evaluation_counts_every_example_once_whatever_the_batch(finished_run):
    counts = set()
    for batch_size in (32, 8):
        result = evaluate_only(small_config(batch_size=batch_size), finished_run, devices=ONE)
        counts.add(round(result["eval/accuracy"] * 72, 3))
    assert len(counts) == 1
    assert counts.pop() % 1 == 0


def test_the_average_is_loaded(averaged_run, tmp_path):
    workdir, result = averaged_run
    loaded = evaluate_only(small_config(init_from=str(workdir)), tmp_path / "none", devices=ONE)
    assert loaded == result
