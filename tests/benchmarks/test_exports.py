"""The tables of exports."""

import json
import sys

import pytest

from benchmarks import exports, int8

DONE = {"format": "stablehlo", "weight_dtype": "int8", "bytes": 1_000_000, "seconds": 9.6, "difference": 2e-7, "images": [[1]]}


def test_results_that_are_there_are_not_measured_again(tmp_path, monkeypatch, capsys):
    file, asked = tmp_path / "rows.jsonl", []
    rounding = {"rounding": {"logits": 0.0123}, "agreement": 0.5}
    file.write_text(json.dumps({"model": "pacavit_nano", **DONE, **rounding}) + "\n")

    def measure(name, form, weight_dtype, size):
        asked.append((name, form, weight_dtype, size))
        return {**DONE, "model": name, "format": form, "weight_dtype": weight_dtype}

    monkeypatch.setattr(exports, "measure", measure)
    models = ["pacavit_nano", "mask_rcnn_nano"]
    monkeypatch.setattr(
        sys, "argv", ["exports", "--model", *models, "--weight-dtype", "int8", "--size=64x96", f"--rows={file}"]
    )
    exports.main()
    cases = (("pacavit_nano", "onnx"), ("mask_rcnn_nano", "stablehlo"), ("mask_rcnn_nano", "onnx"))
    expected = [(*case, "int8", (64, 96)) for case in cases]
    assert asked == expected
    assert len(file.read_text().splitlines()) == 4
    lines = capsys.readouterr().out.splitlines()
    assert "| `pacavit_nano` | stablehlo | int8 | 1.0 | 2.0e-07 | 1.2e-02 | 50.0 % | 10 |" in lines
    assert "| `mask_rcnn_nano` | stablehlo | int8 | 1.0 | 2.0e-07 | - | - | 10 |" in lines
    exports.main()
    assert asked == expected


@pytest.mark.slow
def test_an_export_is_measured():
    row = exports.measure("pacavit_nano", "stablehlo", "int8", exports.SIZE)
    assert row["difference"] <= 1e-4
    assert 1.0e6 < row["bytes"] < 2.2e6, "1,014,344 parameters, and the operations"
    assert row["rounding"]["logits"] > 0


def test_scores_and_exports_are_two_tables():
    spread = {"low": 0.001, "median": 0.002, "high": 0.004}
    rows = [{"format": "onnx", "weight_dtype": "int8", "bytes": 1_250_000, "seconds": spread, "ratio": spread}]
    scores = {"float32": {"eval/accuracy": 0.5}, "int8": {"eval/accuracy": 0.25}}
    found = int8.markdown(scores, rows).splitlines()
    assert found[2:4] == ["| float32 | 0.5000 |", "| int8 | 0.2500 |"]
    assert found[-1] == "| onnx | int8 | 1.25 | 2.0 (1.0 to 4.0) | 0.00 (0.00 to 0.00) |"
