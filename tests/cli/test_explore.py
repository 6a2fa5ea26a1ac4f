"""`paca explore`: a page from a checkpoint and pictures."""

import numpy as np
import pytest
from PIL import Image

from paca_jax import create_model
from paca_jax.checkpoints import write_state_dict
from paca_jax.checkpoints.workdir import write_variables
from paca_jax.cli.pictures.explore import main
from paca_jax.convert import to_torch
from tests import golden
from tests.explain.explored import KINDS, SMALL, content


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A folder with the workdir of a classifier, a file of a segmentor, one of a model without clusters, and two pictures."""
    root = tmp_path_factory.mktemp("places")
    recipe = {"name": "pacavit_nano", "num_classes": 2, "image_size": 32, **SMALL}
    write_variables(
        root / "run", golden.random_variables(create_model(**recipe)), {"model": recipe, "class_names": ["ant", "bee"]}
    )
    segmentor = {"name": KINDS["segmentor"][0], **SMALL, **KINDS["segmentor"][1]}
    plain = recipe | {"clusters": (0, 0, 0, 0)}
    for name, each in (("segmentor", segmentor), ("plain", plain)):
        model = create_model(**each)
        write_state_dict(root / f"{name}.safetensors", to_torch(golden.random_variables(model), model), each)
    rng = np.random.default_rng(0)
    for name in ("one.png", "two.jpg"):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(root / name)
    return root


def test_a_page_of_a_run(places, tmp_path, capsys):
    out = tmp_path / "new" / "page.html"
    main(["--checkpoint", str(places / "run"), str(places / "one.png"), str(places / "two.jpg"), "--out", str(out)])
    found = content(out.read_text())
    assert found["classNames"] == ["ant", "bee"]
    assert [each["name"] for each in found["pictures"]] == ["one.png", "two.jpg"]
    assert {owner: len(each) for owner, each in found["pictures"][1]["without"].items()} == {
        "stage1/block0": 6,
        "stage2/block0": 5,
    }
    assert capsys.readouterr().out.splitlines()[-1] == f"Written to {out} ({len(out.read_bytes()) / 2**20:.1f} MiB)."


def test_names_sizes_and_effects_are_options(places, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("".join(f"thing {number}\n" for number in range(7)))
    out = tmp_path / "page.html"
    line = ["--checkpoint", str(places / "segmentor.safetensors"), str(places / "one.png"), "--out", str(out)]
    main([*line, "--no-effects", f"--class-names={names}", "--image-size=64"])
    found = content(out.read_text())
    assert found["classNames"][6] == "thing 6"
    assert found["pictures"][0]["image"] == [64, 80]
    assert found["pictures"][0]["without"] == {}


def test_a_file_is_replaced_only_if_asked(places, tmp_path, capsys):
    out = tmp_path / "page.html"
    out.write_text("mine")
    line = ["--checkpoint", str(places / "run"), str(places / "one.png"), "--out", str(out), "--no-effects"]
    with pytest.raises(SystemExit):
        main(line)
    assert f"Expected no file at {out}, got one" in capsys.readouterr().err
    assert out.read_text() == "mine"
    main([*line, "--overwrite"])
    assert content(out.read_text())["model"] == "classifier"


@pytest.mark.parametrize(
    ("checkpoint", "picture", "out", "message"),
    [
        ("run", "one.png", "page.txt", "Expected --out to end in .html"),
        ("run", "missing.png", "page.html", "missing.png"),
        ("run", "plain.safetensors", "page.html", "plain.safetensors"),
        ("missing", "one.png", "page.html", "missing"),
        ("plain.safetensors", "one.png", "page.html", "Expected a model with clusters"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(places, tmp_path, capsys, checkpoint, picture, out, message):
    with pytest.raises(SystemExit) as ended:
        main(["--checkpoint", str(places / checkpoint), str(places / picture), "--out", str(tmp_path / out)])
    assert ended.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / out).exists()
