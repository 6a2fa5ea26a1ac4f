"""`paca explain`: what the clusters of a model do for its answers to pictures."""

import json

import numpy as np
import pytest
from PIL import Image

from paca_jax import create_model, data, explain
from paca_jax.checkpoints.workdir import write_variables
from paca_jax.cli.pictures.explain import main
from tests import golden

SMALL = {"embed_dims": [16, 16, 32, 32], "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}
CLASSIFIER = {"name": "pacavit_nano", "num_classes": 4, "clusters": [5, 3, 0, 0], **SMALL}
SEGMENTOR = {"name": "pacahead_nano", "num_classes": 3, "head_channels": 8, **SMALL}
NAMES = ["ant", "bee", "bee", "dog | cat"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with workdirs of a classifier, a classifier without clusters and a segmentor, and two pictures."""
    root = tmp_path_factory.mktemp("place")
    for name, recipe in (("run", CLASSIFIER), ("plain", CLASSIFIER | {"clusters": [0] * 4}), ("segmentor", SEGMENTOR)):
        description = {"model": recipe} if name == "segmentor" else {"model": recipe, "class_names": NAMES}
        write_variables(root / name, golden.random_variables(create_model(**recipe)), description)
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        Image.fromarray(rng.integers(0, 256, (50, 37, 3), np.uint8)).save(root / f"{name}.png")
    return root


def explained(place, out, *flags, checkpoint="run", pictures=("a.png", "b.png")):
    files = [str(place / each) for each in pictures]
    main([*files, f"--checkpoint={place / checkpoint}", f"--out={out}", *flags])


def refused(capsys, *arguments, **options):
    """Returns the error of a command that must fail."""
    with pytest.raises(SystemExit) as ended:
        explained(*arguments, **options)
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("by_mean", [False, True])
def test_effects_are_written_as_numbers_and_tables(place, tmp_path, by_mean, capsys):
    explained(place, tmp_path, *["--by-mean"][:by_mean], pictures=("a.png", "a.png", "b.png"))
    report = json.loads((tmp_path / "effects.json").read_text())
    model, variables = create_model(**CLASSIFIER), golden.random_variables(create_model(**CLASSIFIER))
    pictures = [str(place / "a.png"), str(place / "b.png")]
    images = np.stack([data.preprocess(data.read_picture(each, 3), model) for each in pictures])
    assert list(report["pictures"]) == pictures
    assert list(report["blocks"]) == ["stage1/block0", "stage2/block0"]
    for block, count in (("stage1/block0", 5), ("stage2/block0", 3)):
        effects = explain.cluster_effects(model, variables, images, block, by_mean=by_mean)
        curves = explain.removal_curves(model, variables, images, block, effects.order)
        found = report["blocks"][block]
        assert (found["clusters"], found["counts"]) == (count, list(range(count + 1)))
        for name in ("deletion", "random_deletion", "insertion", "random_insertion"):
            np.testing.assert_allclose(found["areas"][name], curves.area(getattr(curves, name)).mean(), atol=1e-5)
        for index, picture in enumerate(pictures):
            answer = report["pictures"][picture]
            own = answer["blocks"][block]
            assert answer["name"] == NAMES[effects.values[index].argmax()]
            assert [entry["cluster"] for entry in own["clusters"]] == effects.order[index].tolist()
            np.testing.assert_allclose(own["deletion"], curves.deletion[index], atol=1e-5)
            first = own["clusters"][0]
            np.testing.assert_allclose(first["drop"], effects.drops[index].max(), atol=1e-5)
            changes = sorted(effects.changes[index, first["cluster"]], key=lambda change: -abs(change))
            np.testing.assert_allclose([each["change"] for each in first["logits"]], changes, atol=1e-5)
    text = (tmp_path / "effects.md").read_text()
    assert f"| stage1/block0 | 5 | {report['blocks']['stage1/block0']['areas']['deletion']:.3f} |" in text
    assert "dog \\| cat" in text
    assert "dog | cat" not in text
    printed = capsys.readouterr().out
    assert "stage2/block0, 3 clusters: deletion " in printed
    assert f"random {report['blocks']['stage2/block0']['drops']['random']:+.4f}" in printed


def test_a_segmentor_is_explained_in_its_own_words(place, tmp_path):
    Image.effect_noise((40, 90), 90).convert("RGB").save(tmp_path / "wide.png")
    explained(place, tmp_path, "--image-size=32", checkpoint="segmentor", pictures=("a.png", tmp_path / "wide.png"))
    report = json.loads((tmp_path / "effects.json").read_text())
    assert report["model"] == "segmentor"
    answer = report["pictures"][str(tmp_path / "wide.png")]
    assert sum(each["fraction"] for each in answer["classes"]) == pytest.approx(1)
    assert {each["name"] for each in answer["classes"]} <= {"class 0", "class 1", "class 2"}
    assert "classes that change most, in percent of the image" in (tmp_path / "effects.md").read_text()


def test_earlier_effects_are_replaced_only_if_asked(place, tmp_path, capsys):
    (tmp_path / "effects.md").write_text("mine")
    assert "Expected no effects in" in refused(capsys, place, tmp_path)
    assert (tmp_path / "effects.md").read_text() == "mine"
    assert not (tmp_path / "effects.json").exists()
    explained(place, tmp_path, "--overwrite")
    assert "mine" not in (tmp_path / "effects.md").read_text()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"checkpoint": "plain"}, "Expected a model with clusters"),
        ({"checkpoint": "absent"}, "absent"),
        ({"pictures": ("a.png", "absent.png")}, "absent.png"),
    ],
)
def test_what_cannot_be_explained_is_refused_and_nothing_is_written(place, tmp_path, given, message, capsys):
    out = tmp_path / "out"
    assert message in refused(capsys, place, out, **given)
    assert not out.exists()
