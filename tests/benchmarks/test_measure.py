import fcntl
import json
import re

import jax

from benchmarks.measure import interleaved, publish, quartiles, table


def test_calls_take_turns_and_warm_up_does_not_count():
    made = []
    durations = interleaved({"a": lambda: made.append("a"), "b": lambda: made.append("b")}, rounds=3, warm_up=1)
    assert made == ["a", "b"] * 4
    assert {name: len(values) for name, values in durations.items()} == {"a": 3, "b": 3}
    assert all(seconds > 0 for values in durations.values() for seconds in values)


def test_rounds_after_the_first_are_measured_alone(tmp_path, monkeypatch):
    lock = tmp_path / "lock"
    monkeypatch.setenv("BENCHMARKS_LOCK", str(lock))
    taken = []

    def call():
        with open(lock, "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                taken.append(False)
            except BlockingIOError:
                taken.append(True)

    interleaved({"a": call}, rounds=2)
    call()
    assert taken == [False, True, True, True, False]


def test_quartiles():
    assert quartiles([5, 1, 4, 2, 3]) == (2, 3, 4)


def test_a_table_aligns_numbers_to_the_right():
    assert (
        table(("model",), ("ms", "images/s"), [("a", "1.0", "")]) == "| model | ms | images/s |\n|:--|--:|--:|\n| a | 1.0 |  |"
    )


def test_the_file_contains_the_circumstances(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.orig_argv", ["/somewhere/python3", "-m", "benchmarks.step", "--json", "a b.json"])
    publish("THE TABLE", [{"ms": 1.5}], tmp_path / "found.json", device="a chip")
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["rows"] == [{"ms": 1.5}]
    assert found["command"] == "python -m benchmarks.step --json 'a b.json'"
    assert found["device"] == "a chip"
    assert found["versions"]["jax"] == jax.__version__
    assert found["cores"] >= 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", found["date"])
    printed = capsys.readouterr().out
    assert printed.startswith(f"{found['date']}; a chip; jax {jax.__version__}, ")
    assert printed.endswith("\n\nTHE TABLE\n")
