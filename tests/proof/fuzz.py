"""Ten thousand seeded mutations of what is read: each is accepted whole, or refused with a `UserError`.

No other exception, no crash, no hang, and no weights that are not finite. Mutation i of a reader depends on the seed, the
reader and i alone, so that each can be repeated.
"""

import faulthandler
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from paca_jax.errors import UserError
from tests.proof.hostile.readers import Reader, readers
from tests.proof.inputs import ENVIRONMENT
from tests.runs import ROOT, environment

SECONDS = 20  # a mutation may take


def fuzz(reader: Reader, seed: int, first: int, count: int) -> Iterator[dict[str, Any]]:
    """Yields the outcome of each mutation: "read", "refused", or what is wrong with a description."""
    for index in range(first, first + count):
        content = reader.mutate(random.Random(f"{seed} {reader.name} {index}"))
        yield {"reader": reader.name, "index": index, **_outcome(reader, content)}


def _outcome(reader: Reader, content: Any) -> dict[str, Any]:
    began = time.monotonic()
    try:
        with _alarm():
            reader.read(content)
    except UserError as error:
        return {"outcome": "unclear", "error": repr(error)} if "\n" in str(error) else {"outcome": "refused"}
    except TimeoutError:
        return {"outcome": "hang", "error": f"{time.monotonic() - began:.0f} s"}
    except AssertionError as error:
        return {"outcome": "silent", "error": str(error)[:500]}
    except BaseException:
        return {"outcome": "exception", "error": traceback.format_exc()[-1500:]}
    return {"outcome": "read"}


@contextmanager
def _alarm() -> Iterator[None]:
    """Returns a context that a `TimeoutError` ends if it takes too long."""

    def stop(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def campaign(out: Path, seed: int) -> dict[str, Any]:
    """Runs all mutations in a process of its own; after a crash or a hang in one, another process goes on behind it."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    counts = {reader.name: reader.mutations for reader in readers(out)}
    for name, count in counts.items():
        done = 0
        while done < count:
            line = [sys.executable, "-m", "tests.proof.fuzz", str(out), name, *map(str, (seed, done, count - done))]
            ended = subprocess.run(line, cwd=ROOT, env=environment() | ENVIRONMENT, capture_output=True, text=True, check=False)
            rows += map(json.loads, (out / "rows.jsonl").read_text().splitlines())
            done = sum(row["reader"] == name for row in rows)
            if ended.returncode:
                rows.append({"reader": name, "index": done, "outcome": "crash", "error": ended.stderr[-1500:]})
                done += 1
        found = Counter(row["outcome"] for row in rows if row["reader"] == name)
        print(f"{name}: {dict(found)}", flush=True)
    good = all(row["outcome"] in ("read", "refused") for row in rows)
    wrong = [row for row in rows if row["outcome"] not in ("read", "refused")]
    outcomes = {name: Counter(row["outcome"] for row in rows if row["reader"] == name) for name in counts}
    return {"seed": seed, "count": len(rows), "outcomes": outcomes, "wrong": wrong, "holds": good and len(rows) >= 10_000}


def as_table(result: dict[str, Any]) -> str:
    """Returns the outcomes by reader as a Markdown table, and lists what is wrong."""
    lines = ["| reader | mutations | read | refused | wrong |", "|:--|--:|--:|--:|--:|"]
    total: Counter[str] = Counter()
    for name, found in result["outcomes"].items():
        total.update(found)
        lines.append(_row(name, Counter(found)))
    lines.append(_row("all", total))
    wrong = [
        f"- {row['reader']}, {row['index']}: {row['outcome']}: {row['error'].strip().splitlines()[-1]}"
        for row in result["wrong"]
    ]
    return "\n".join([*lines, "", f"Seed {result['seed']}.", "", "Wrong:", "", *(wrong or ["- none"])]) + "\n"


def _row(name: str, found: Counter[str]) -> str:
    count = found.total()
    return f"| {name} | {count} | {found['read']} | {found['refused']} | {count - found['read'] - found['refused']} |"


def _run(out: Path, name: str, seed: int, first: int, count: int) -> None:
    faulthandler.dump_traceback_later(count * 1.0 + 10 * SECONDS, exit=True)
    with (out / "rows.jsonl").open("w") as rows, tempfile.TemporaryDirectory() as folder:
        reader = next(reader for reader in readers(Path(folder)) if reader.name == name)
        for row in fuzz(reader, seed, first, count):
            rows.write(json.dumps(row) + "\n")
            rows.flush()


if __name__ == "__main__":
    _run(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
