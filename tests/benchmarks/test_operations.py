import json
import sys

import pytest

from benchmarks.operations import markdown, measure, stage_cases
from tests.runs import run_main


def test_each_stage_has_its_operations():
    cases = list(stage_cases("pacavit_tiny_p2cconv_100_0", batch=2))
    assert [(case.operation, case.maps) for case in cases if case.maps[0] == 28] == [
        ("depthwise 3x3, GELU", (28, 28, 768)),
        ("layer norm", (28, 28, 192)),
        ("depthwise 7x7, GELU", (28, 28, 192)),
        ("attention to 100", (28, 28, 192)),
    ]
    assert [case.operation for case in cases if case.maps[0] == 7] == ["depthwise 3x3, GELU", "layer norm"]


def test_only_forms_that_the_platform_has_are_timed():
    case = next(iter(stage_cases("pacavit_nano", batch=1)))
    assert measure(case, "pallas_gpu", "float32", gradient=False, rounds=1) is None
    assert measure(case, "cudnn", "float32", gradient=False, rounds=1) is None
    row = measure(case, "xla_cpu", "float32", gradient=True, rounds=1)
    assert row["seconds"]["median"] > 0
    height, width, channels = case.maps
    assert row["bytes"] == 4 * 2 * (height * width * channels + 9 * channels + channels)


def test_the_table():
    row = {"operation": "a", "maps": (8, 8, 64), "implementation": "xla", "gradient": True, "bytes": 4_000_000}
    rows = [{**row, "seconds": {"low": 0.001, "median": 0.002, "high": 0.003}}]
    assert markdown(rows).splitlines()[-1] == "| a | 8x8x64 | xla | with gradient | 2000 (1000 to 3000) | 2 |"


@pytest.mark.slow
def test_the_command(tmp_path):
    file = tmp_path / "operations.json"
    options = ["--model", "pacavit_nano", "--batch", "1", "--dtype", "float32", "--rounds", "1", "--json", str(file)]
    done = run_main(sys.executable, "-m", "benchmarks.operations", *options)
    assert done.returncode == 0, done.stderr
    assert {row["implementation"] for row in json.loads(file.read_text())["rows"]} == {"xla", "xla_cpu"}
