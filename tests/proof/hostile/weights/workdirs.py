"""Workdirs: damaged checkpoints and records, names that lie, and folders that are none."""

import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from paca_jax.cli.main import main
from tests.proof.hostile.case import WORKDIR, Case, copies, nothing, predict, short, then, train, writes
from tests.proof.hostile.weights.recorded import change_metadata, metadata_file


def cases(world: Path, rng: random.Random) -> Iterator[Case]:
    """Yields the cases of this module."""
    there = copies(world, "a.png", "trained:run")
    yield from _of_convert(world)
    yield from _step_names(there)
    yield from _metadata(there)
    yield from _metrics(world, there)
    yield from _damaged(there, rng)
    yield from _not_workdirs(world)
    yield from _empty(world)


def _of_convert(world: Path) -> Iterator[Case]:
    kind = "workdirs that convert wrote"
    there = copies(world, "a.png", "converted:run")
    yield Case(kind, "another model, trained in", there, train(), ("run",))
    yield Case(kind, "another model, evaluated", there, train("--mode=eval"), ("run",))
    convert = partial(main, ["convert", str(world / "trained"), WORKDIR])
    yield Case(kind, "trained in", convert, train(), loads="an ordinary user does that: the run starts from these weights")
    yield Case(kind, "evaluated", convert, train("--mode=eval"), loads="the weights are whole")
    yield Case(kind, "predicted with", there, predict("run", "a.png"), loads="an ordinary workdir")

    def halve() -> None:
        folder = Path("run/checkpoints/0")
        folder.rename("run/checkpoints/0.orbax-checkpoint-tmp-1")

    half = then(there, halve)
    yield Case(kind, "half written, loaded", half, predict("run", "a.png"), ("run",))
    again = ["convert", str(world / "classifier.safetensors"), "run"]
    yield Case(kind, "half written, converted again", half, again, ("run",), may_load="what a killed convert left is replaced")


def _renamed(old: str, new: str) -> Callable[[], None]:
    return lambda: shutil.move(f"run/checkpoints/{old}", f"run/checkpoints/{new}")


def _step_names(there: Callable[[], None]) -> Iterator[Case]:
    for name, run in (
        ("predicted with", predict("run", "a.png")),
        ("converted", ["convert", "run", "new.safetensors"]),
        ("evaluated", train("--mode=eval")),
        ("resumed", train()),
    ):
        make = then(there, lambda: shutil.rmtree("run/checkpoints/1"), _renamed("2", "7"))
        yield Case("checkpoints whose names are not their steps", f"2 is called 7, {name}", make, run, ("7",))
    make = then(there, _renamed("1", "5"))
    yield Case("checkpoints whose names are not their steps", "1 is called 5, resumed", make, train(), ("5",))


def _metadata(there: Callable[[], None]) -> Iterator[Case]:
    runs = (
        ("predict", predict("run", "a.png")),
        ("resume", train()),
        ("evaluate", train("--mode=eval")),
        ("convert", ["convert", "run", "new.safetensors"]),
    )
    for index, content in enumerate(
        ("", "null", "[]", "{}", "{", '{"model": {}}', '{"model": 3}', '{"model": {"name": null}}', b"\xff\xfe\x00\x01")
    ):
        for command, run in (runs[index % 4], runs[(index + 1) % 4]):
            make = then(there, lambda content=content: writes(str(metadata_file("run")), content)())
            yield Case("metadata of a checkpoint", f"{command}: {short(content, 30)}", make, run, ("run",))
    for key, value in (
        ("config", None),
        ("config", 3),
        ("config", {"model": 3}),
        ("config", []),
        ("state_layout", "x"),
        ("class_names", 5),
        ("class_names", "abcdefghij"),
    ):
        command, run = runs[1] if key != "class_names" else runs[0]
        make = then(there, lambda key=key, value=value: change_metadata("run", {key: value}))
        may = "it is only compared with the config of the run, and the log says what differs" if isinstance(value, dict) else ""
        yield Case("metadata of a checkpoint", f"{command}: {key}={value!r}", make, run, ("run",), may_load=may)


def _metrics(world: Path, there: Callable[[], None]) -> Iterator[Case]:
    def edited(edit: Callable[[list[str]], list[str]]) -> Callable[[], None]:
        def make() -> None:
            path = Path("run/metrics.jsonl")
            path.write_text("".join(edit(path.read_text().splitlines(keepends=True))))

        return then(there, make)

    reason = "a run must resume although a line of its metrics was damaged by a crash; the log says so"
    for name, edit in (
        ("a blank line", lambda lines: [lines[0], "\n", *lines[1:]]),
        ("a last line that is cut", lambda lines: [*lines, '{"step": 3, "tr']),
        ("a line of zero bytes", lambda lines: [lines[0], "\0" * 40 + "\n", *lines[1:]]),
        ("a line that is cut in the middle", lambda lines: [lines[0][:20] + "\n", *lines[1:]]),
        ("a line without a step", lambda lines: ["{}\n", *lines]),
        ("a line with a list", lambda lines: ["[1, 2]\n", *lines]),
        ("a step that is a text", lambda lines: ['{"step": "1"}\n', *lines]),
        ("a step that is null", lambda lines: ['{"step": null}\n', *lines]),
        ("a score that is a text", lambda lines: ['{"step": 1, "eval/accuracy": "high"}\n', *lines]),
        ("seconds that are null", lambda lines: ['{"step": 1, "time/seconds": null}\n', *lines]),
    ):
        yield Case("metrics.jsonl", name, edited(edit), train(), ("metrics.jsonl",), may_load=reason)
    make = then(there, lambda: Path("run/metrics.jsonl").unlink(), lambda: Path("run/metrics.jsonl").mkdir())
    yield Case("metrics.jsonl", "a folder", make, train(), ("metrics.jsonl",))


def _damaged(there: Callable[[], None], rng: random.Random) -> Iterator[Case]:
    runs = (("predict", predict("run", "a.png")), ("resume", train()))

    def cut(part: float, number: float) -> None:
        here = Path("run/checkpoints/2/variables")
        largest = max(here.glob("ocdbt.process_0/d/*"), key=lambda path: path.stat().st_size)
        files = [here / "_METADATA", here / "manifest.ocdbt", largest, *here.glob("d/*")]
        path = files[int(number * len(files))]
        path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])

    for index in range(6):
        part, number = rng.random() * 0.9, rng.random()
        command, run = runs[index % 2]
        make = then(there, lambda part=part, number=number: cut(part, number))
        yield Case("damaged checkpoints", f"{command}: file {number:.2f} cut at {part:.2f}", make, run, ("checkpoints/2",))
    for name, gone in (
        ("no variables", "variables"),
        ("no training state", "training"),
        ("no metadata", "metadata"),
        ("nothing", ""),
    ):
        for command, run in runs[1:] if name == "no training state" else runs:

            def remove(gone: str = gone) -> None:
                shutil.rmtree(f"run/checkpoints/2/{gone}")
                if not gone:
                    Path("run/checkpoints/2").mkdir()

            make = then(there, remove)
            may = "the checkpoint before it is whole" if not gone else ""
            yield Case("damaged checkpoints", f"{command}: {name}", make, run, ("checkpoints",), may_load=may)


def _not_workdirs(world: Path) -> Iterator[Case]:
    kind = "folders that are no workdirs"
    picture = copies(world, "a.png")
    for name, make in (
        ("a file", writes("run", "x")),
        ("checkpoints is a file", writes("run/checkpoints", "x")),
        ("checkpoints of another program", writes("run/checkpoints/best/model.bin", "x")),
        ("a step of another program", writes("run/checkpoints/3/model.bin", "x")),
        ("the lock is a folder", writes("run/.lock/x", "x")),
    ):
        yield Case(kind, f"{name}, trained in", make, train(), ("run",))
    for name, make in (
        ("empty", lambda: Path("run").mkdir()),
        ("pictures", writes("run/a.png", "x")),
        ("no checkpoint yet", lambda: Path("run/checkpoints").mkdir(parents=True)),
    ):
        yield Case(kind, f"{name}, predicted with", then(picture, make), predict("run", "a.png"), ("run",))
    yield Case(kind, "another model, resumed", copies(world, "trained:run"), train(model__depths=(2,)), ("run",))
    yield Case(kind, "another optimizer, resumed", copies(world, "trained:run"), train(clip_norm=0.0), ("run",))


def _empty(world: Path) -> Iterator[Case]:
    for text in ("", " ", "\t", "s3://bucket/run", "file:///tmp/run"):
        yield Case("empty and foreign workdirs", f"trained in {text!r}", nothing, train(workdir=text), ("workdir", repr(text)))
    yield Case("empty and foreign workdirs", "evaluated, empty", nothing, train("--mode=eval", workdir=""), ("workdir", "''"))
    yield Case("empty and foreign workdirs", "none", nothing, train(workdir=None), ("workdir",))

    def call(place: Any) -> Callable[[], Any]:
        def run() -> None:
            from paca_jax.train.train_loop import train as train_run
            from tests.runs import small_config

            train_run(small_config(), place)

        return run

    for place in ("", 7, b"run"):
        yield Case(
            "empty and foreign workdirs", f"train(config, {place!r})", nothing, call(place), ("path", "workdir", "folder")
        )
