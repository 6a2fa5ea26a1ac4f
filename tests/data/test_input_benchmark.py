import json

import numpy as np
import pytest
from PIL import Image

from benchmarks import input as benchmark


def test_images_look_like_imagenet_to_a_decoder(tmp_path):
    mean_bytes = benchmark.write_images(tmp_path, 12)
    paths = sorted(tmp_path.rglob("*.jpg"))
    assert len(paths) == 12
    assert len({path.parent for path in paths}) == benchmark.CLASSES
    assert mean_bytes == pytest.approx(np.mean([path.stat().st_size for path in paths]), abs=1)
    assert 60_000 < mean_bytes < 150_000
    with Image.open(paths[0]) as image:
        assert (image.size, image.mode, image.format) == ((500, 375), "RGB", "JPEG")


def test_the_table_compares_ours_with_the_other():
    measured = [(0, "paca_jax", 300), (0, "PyTorch DataLoader", 200), (1, "paca_jax", 100), (1, "PyTorch DataLoader", 80)]
    names = ("workers", "pipeline", "images_per_second", "images_per_core_second")
    rows = [dict(zip(names, (*row, row[2] / 2), strict=True)) for row in measured]
    assert benchmark.markdown(rows).splitlines()[2:] == [
        "| 0 | paca_jax | 300.0 | 150.0 | 1.50 | 1.50 |",
        "| 0 | PyTorch DataLoader | 200.0 | 100.0 |  |  |",
        "| 1 | paca_jax | 100.0 | 50.0 | 1.25 | 1.25 |",
        "| 1 | PyTorch DataLoader | 80.0 | 40.0 |  |  |",
    ]


@pytest.mark.slow
def test_the_script_times_both(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")
    path = tmp_path / "input.json"
    options = ["--images", "16", "--batch", "8", "--workers", "0", "--rounds", "1", "--json", str(path)]
    monkeypatch.setattr("sys.argv", ["input", *options])
    benchmark.main()
    result = json.loads(path.read_text())
    assert [(row["workers"], row["pipeline"]) for row in result["rows"]] == [(0, "paca_jax"), (0, "PyTorch DataLoader")]
    assert all(row["images_per_second"] > 0 and row["images_per_core_second"] > 0 for row in result["rows"])
    assert benchmark.markdown(result["rows"]) in capsys.readouterr().out


def test_the_other_pipeline_gives_normalized_tensors(tmp_path):
    pytest.importorskip("torch")
    benchmark.write_images(tmp_path, 10)
    tensor, label = benchmark.TorchStyle(tmp_path)[9]
    assert tuple(tensor.shape) == (3, 224, 224)
    assert str(tensor.dtype) == "torch.float32"
    assert -2.2 < float(tensor.min()) < float(tensor.max()) < 2.7
    assert label == 9
