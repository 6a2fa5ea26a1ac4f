import json
import math

from etils import epath

from paca_jax.train.metrics import JsonLinesWriter, best_evaluation, read_metrics


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_step_is_one_line(tmp_path):
    writer = JsonLinesWriter(epath.Path(tmp_path), start_step=0)
    writer.write_scalars(1, {"train/loss": 2})
    writer.write_scalars(1, {"eval/loss": 3})
    writer.write_scalars(2, {"train/loss": 1})
    writer.close()
    assert lines(tmp_path) == [{"step": 1, "train/loss": 2.0, "eval/loss": 3.0}, {"step": 2, "train/loss": 1.0}]
    assert read_metrics(epath.Path(tmp_path)) == lines(tmp_path)


def test_values_that_are_not_finite_are_null(tmp_path):
    writer = JsonLinesWriter(epath.Path(tmp_path), start_step=0)
    writer.write_scalars(1, {"train/loss": float("nan"), "train/grad_norm": float("inf")})
    writer.close()
    assert lines(tmp_path) == [{"step": 1, "train/loss": None, "train/grad_norm": None}]
    assert math.isnan(read_metrics(epath.Path(tmp_path))[0]["train/loss"])
    JsonLinesWriter(epath.Path(tmp_path), start_step=1)
    assert lines(tmp_path) == [{"step": 1, "train/loss": None, "train/grad_norm": None}]


def test_the_best_evaluation_is_the_earliest_of_the_highest():
    found = [
        {"step": 1, "eval/accuracy": 0.5},
        {"step": 2},
        {"step": 3, "eval/accuracy": 0.7},
        {"step": 4, "eval/accuracy": 0.7},
    ]
    assert best_evaluation(found, "eval/accuracy") == found[2]
    assert best_evaluation(found[1:2], "eval/accuracy") is None


def test_a_resumed_run_drops_the_lines_of_later_steps(tmp_path):
    text = '{"step": 1, "a": 1.0}\n{"step": 2, "a": 2.0}\n{"step": 3, "a": 3.0}\n{"step": 4, "a"'
    (tmp_path / "metrics.jsonl").write_text(text)
    writer = JsonLinesWriter(epath.Path(tmp_path), start_step=2)
    writer.write_scalars(3, {"a": 3})
    writer.close()
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3]
