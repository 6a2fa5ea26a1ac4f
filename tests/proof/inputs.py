"""Hundreds of malformed files, folders, command lines and calls: each ends with one sentence, or is right for a reason.

Clear is an exit status of 2, exactly one line `error: ...` that names the file or the field, no traceback in the output, at
most 20 seconds and 4 GiB, and no file changed that was there before.
"""

import gc
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from tests.proof.hostile.case import Case
from tests.runs import ROOT, environment

KINDS_NEED = 3  # members
CASES_NEEDED = 400
# One device, no thread before the first fork, and no words from TensorFlow.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    "OPENBLAS_NUM_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TPU_SKIP_MDS_QUERY": "1",
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1",
}


def every_case(world: Path, seed: int) -> list[Case]:
    """Returns all cases; the seed decides where and how files are damaged."""
    from tests.proof.hostile.calls import of_data, of_models
    from tests.proof.hostile.commands import configs, flags, names, outputs, pipes
    from tests.proof.hostile.data import annotations, images, masks, tfds
    from tests.proof.hostile.weights import files, recorded, tensors, workdirs

    modules = (outputs, tensors, files, recorded, workdirs, configs, flags, names, pipes)
    modules += (images, annotations, masks, tfds, of_models, of_data)
    return [case for module in modules for case in module.cases(world, random.Random(f"{module.__name__} {seed}"))]


def campaign(out: Path, seed: int, only: str = "") -> dict[str, Any]:
    """Runs the cases, those whose kind and name match an expression alone if one is given, in a process of their own."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    began = time.monotonic()
    line = [sys.executable, "-m", "tests.proof.inputs", str(out), str(seed), only]
    subprocess.run(line, cwd=ROOT, env=environment() | ENVIRONMENT, check=True)
    rows = list(map(json.loads, (out / "rows.jsonl").read_text().splitlines()))
    kinds = Counter(row["kind"] for row in rows)
    good = all(row["outcome"] in ("clear", "right") for row in rows)
    whole = len(rows) >= CASES_NEEDED and min(kinds.values()) >= KINDS_NEED
    minutes = round((time.monotonic() - began) / 60, 1)
    return {"seed": seed, "minutes": minutes, "rows": rows, "holds": good and (whole or bool(only))}


def as_table(result: dict[str, Any]) -> str:
    """Returns the numbers by kind as a Markdown table, and lists what is right for a reason and what is unclear."""
    rows = result["rows"]
    lines = ["| kind | inputs | clear | right | unclear |", "|:--|--:|--:|--:|--:|"]
    for kind in dict.fromkeys(row["kind"] for row in rows):
        outcomes = Counter(row["outcome"] for row in rows if row["kind"] == kind)
        clear, right = outcomes["clear"], outcomes["right"]
        lines.append(f"| {kind} | {outcomes.total()} | {clear} | {right} | {outcomes.total() - clear - right} |")
    total = Counter(row["outcome"] for row in rows)
    unclear = total.total() - total["clear"] - total["right"]
    lines.append(f"| all | {total.total()} | {total['clear']} | {total['right']} | {unclear} |")
    slowest, largest = (max((row[key] for row in rows), default=0) for key in ("seconds", "mib"))
    lines += ["", f"Seed {result['seed']}; {result['minutes']} minutes; at most {slowest} s and {largest} MiB an input.", ""]
    lines += ["Right for a reason:", ""]
    lines += [f"- {row['kind']}: {row['name']}: {row['why']}" for row in rows if row["outcome"] == "right"] or ["- none"]
    lines += ["", "Unclear:", ""]
    lines += [_unclear(row) for row in rows if row["outcome"] not in ("clear", "right")] or ["- none"]
    return "\n".join(lines) + "\n"


def _unclear(row: dict[str, Any]) -> str:
    end = f"{row['outcome']}, status {row['status']}, {row['seconds']} s"
    return f"- {row['kind']}: {row['name']}: {end}. {' '.join(row['error'].split())[-300:]}"


def _run_all(out: Path, seed: int, only: str) -> None:
    """Makes the intact files in children, and runs the cases."""
    from tests.proof.hostile.server import fork, import_library, run_cases
    from tests.proof.hostile.world import make_files, make_run

    import_library()
    gc.collect()
    gc.freeze()
    world = out / "world"
    world.mkdir(parents=True)
    for make in (make_files, make_run):
        if os.waitpid(fork(partial(make, world), out, out / make.__name__), 0)[1]:
            raise RuntimeError(f"The intact files could not be made: see {out / make.__name__}.stderr.")
    cases = [case for case in every_case(world, seed) if re.search(only, f"{case.kind}: {case.name}")]
    with (out / "rows.jsonl").open("w") as rows:

        def report(row: dict[str, Any]) -> None:
            rows.write(json.dumps(row) + "\n")
            rows.flush()
            wrong = "" if row["outcome"] in ("clear", "right") else f"   <<< {row['error'][-200:].strip()!r}"
            place = f"{row['folder']} of {len(cases)}"
            print(f"{place} {row['outcome']} {row['seconds']} s {row['kind']}: {row['name']}{wrong}", flush=True)

        run_cases(cases, out, report)


if __name__ == "__main__":
    _run_all(Path(sys.argv[1]).absolute(), int(sys.argv[2]), sys.argv[3])
