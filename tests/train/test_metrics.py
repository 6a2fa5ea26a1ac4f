import json
import math
import os

import pytest
from etils import epath

from paca_jax.errors import UserError
from paca_jax.train.metrics.json_lines import JsonLinesWriter, best_evaluation, read_metrics
from paca_jax.train.metrics.writer import make_writer


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


DAMAGED = [
    b"",
    b'{"step": 2, "a',
    b'{"step": 2, "a{"step": 3, "a": 1.0}',
    b"\0" * 100,
    b"\xff\xfe",
    b"[" * 100_000,
    b"null",
    b"[2]",
    b'{"a": 1.0}',
    b'{"step": null}',
    b'{"step": "2"}',
    b'{"step": true}',
    b'{"step": 2, "a": "1.0"}',
    b'{"step": 2, "a": [1.0]}',
    b'{"step": 2, "a": 1' + b"0" * 400 + b"}",
]


@pytest.mark.parametrize("damaged", DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_lines_are_named_kept_aside_and_stop_nothing(tmp_path, caplog, damaged):
    first, last = b'{"step": 1, "a": 1.0}\n', b'{"step": 3, "a": 3.0}\n'
    (tmp_path / "metrics.jsonl").write_bytes(first + damaged + b"\n" + last)
    assert [line["step"] for line in read_metrics(epath.Path(tmp_path))] == [1, 3]
    if damaged:
        assert f"Leaves out 1 damaged lines of {tmp_path / 'metrics.jsonl'}: 2." in caplog.text
    for _ in range(2):
        writer = JsonLinesWriter(epath.Path(tmp_path), start_step=3)
        writer.write_scalars(4, {"a": 4})
        writer.close()
    assert (tmp_path / "metrics.jsonl").read_bytes() == first + last + b'{"step": 4, "a": 4.0}\n'
    aside = tmp_path / "metrics.damaged.jsonl"
    assert (aside.read_bytes() if aside.exists() else b"") == (damaged + b"\n" if damaged else b"")


def test_events_that_cannot_be_written_are_told(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match=r"Expected to write TensorBoard's events to .*run, got: "):
        make_writer(epath.Path(tmp_path / "run"), 0)


def test_a_pipe_holds_no_metrics(tmp_path):
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(UserError, match=r"metrics\.jsonl, got a pipe"):
        read_metrics(epath.Path(tmp_path))
