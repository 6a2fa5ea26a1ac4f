"""`paca export`: weights from anywhere become a folder that runs elsewhere."""

import json
import re

import pytest

from paca_jax.checkpoints import write_state_dict
from paca_jax.cli.export import main
from paca_jax.convert import to_torch
from tests import golden
from tests.export.small import NAMES, SMALL, small


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Returns a file of weights that says its model and its classes."""
    file, model = tmp_path_factory.mktemp("weights") / "nano.safetensors", small()
    recipe = {"name": "pacavit_nano", "num_classes": len(NAMES), **SMALL}
    write_state_dict(file, to_torch(golden.random_variables(model), model), recipe, NAMES)
    return file


def refusal(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_it_writes_and_reports_the_export(weights, tmp_path, capsys):
    main([str(weights), str(tmp_path / "new"), "--image-size=48"])
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"Wrote {tmp_path / 'new'}: pacavit_nano; certificate.json (")
    assert second.startswith("Run without this library on 3 photographs; largest differences from the model: logits ")
    described = json.loads((tmp_path / "new" / "export.json").read_text())
    assert described["class_names"] == list(NAMES)
    assert described["preprocessing"]["center_crop"] == [48, 48]


def test_it_says_what_rounding_the_kernels_changed(weights, tmp_path, capsys):
    main([str(weights), str(tmp_path / "new"), "--weight-dtype=int8"])
    third = capsys.readouterr().out.splitlines()[2]
    assert re.fullmatch(r"That model has the same rounded .*: logits \d\.\de-\d\d, [\d.]+% of the answers remain\.", third)
    assert json.loads((tmp_path / "new" / "export.json").read_text())["weight_dtype"] == "int8"


def test_bad_input_is_one_line(weights, tmp_path, capsys):
    new = tmp_path / "new"
    assert "Expected a new or empty folder" in refusal(capsys, weights, weights.parent)
    assert "Expected --size as HEIGHTxWIDTH" in refusal(capsys, weights, new, "--size=large")
    assert "Expected a detector with a size, got a classifier" in refusal(capsys, weights, new, "--size=64x64")
    assert "none" in refusal(capsys, tmp_path / "none", new)
    assert not new.exists()
