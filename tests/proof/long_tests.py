"""The tests that take too long for the suite: `@pytest.mark.campaign`."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.proof.versions import summary
from tests.runs import ROOT


def campaign(out: Path, seed: int) -> dict[str, Any]:
    """Runs them, one after another; nothing is random."""
    del seed
    out.mkdir(parents=True, exist_ok=True)
    line = [sys.executable, "-m", "pytest", "-q", "--campaign"]
    done = subprocess.run(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    (out / "tests.log").write_text(done.stdout)
    return {"holds": done.returncode == 0, "tests": summary(done.stdout)}


def as_table(result: dict[str, Any]) -> str:
    """Returns the campaign as a Markdown table."""
    return f"| tests that are too long for the suite |\n|:--|\n| {result['tests']} |\n"
