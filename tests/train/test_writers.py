import json

from etils import epath

from paca_jax.train.writers import JsonLinesWriter, scalars_of_step


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_step_is_one_line(tmp_path):
    writer = JsonLinesWriter(epath.Path(tmp_path), start_step=0)
    writer.write_scalars(1, {"train/loss": 2})
    writer.write_scalars(1, {"eval/loss": 3})
    writer.write_scalars(2, {"train/loss": 1})
    writer.close()
    assert lines(tmp_path) == [{"step": 1, "train/loss": 2.0, "eval/loss": 3.0}, {"step": 2, "train/loss": 1.0}]
    assert scalars_of_step(epath.Path(tmp_path), 1, "eval/") == {"eval/loss": 3.0}


def test_a_resumed_run_drops_what_it_will_write_again(tmp_path):
    text = '{"step": 1, "a": 1.0}\n{"step": 2, "a": 2.0}\n{"step": 3, "a": 3.0}\n{"step": 4, "a"'
    (tmp_path / "metrics.jsonl").write_text(text)
    writer = JsonLinesWriter(epath.Path(tmp_path), start_step=2)
    writer.write_scalars(3, {"a": 3})
    writer.close()
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3]
