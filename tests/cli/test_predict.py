"""`paca predict` with a classifier, a segmentor and a detector."""

import hashlib
import json
import shutil
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from paca_jax import create_model, explain, load
from paca_jax.checkpoints import write_state_dict
from paca_jax.checkpoints.workdir import write_variables
from paca_jax.cli import convert
from paca_jax.cli.pictures.predict import main
from paca_jax.convert import to_torch
from paca_jax.data.class_names import IMAGENET_CLASSES
from tests import golden
from tests.runs import run_main

SMALL = {"embed_dims": [16, 16, 32, 32], "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}
CLASSIFIER = {"name": "pacavit_nano", "num_classes": 4, **SMALL}
SEGMENTOR = {"name": "pacahead_nano", "num_classes": 3, "short_side": 32, "long_side": 64, "head_channels": 8, **SMALL}

DETECTOR = {
    "name": "mask_rcnn_nano",
    "num_classes": 3,
    "short_side": 32,
    "long_side": 64,
    "head_channels": 8,
    "box_channels": 8,
    "candidates": 20,
    "proposals": 10,
    "detections": 5,
    **SMALL,
}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """The workdir of a classifier, files of a segmentor and a detector, and two pictures of the same name."""
    root = tmp_path_factory.mktemp("places")
    model = create_model(**CLASSIFIER)
    names = {"model": CLASSIFIER, "class_names": ["ant", "bee", "cat", "dog"]}
    write_variables(root / "run", golden.random_variables(model), names)
    for name, recipe in (("segmentor", SEGMENTOR), ("detector", DETECTOR)):
        model = create_model(**recipe)
        write_state_dict(root / f"{name}.safetensors", to_torch(golden.random_variables(model), model), recipe)
    rng = np.random.default_rng(0)
    pictures = []
    for folder, size in (("a", (50, 37)), ("b", (61, 90))):
        (root / folder).mkdir()
        pictures.append(root / folder / "photo.png")
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(pictures[-1])
    return root, pictures


def _found(out):
    """Returns {picture: entries}, after a look at the list of files."""
    found = json.loads((out / "predictions.json").read_text())
    files = {entry["name"]: entry["sha256"] for entry in found.pop("files/")}
    assert files == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.glob("*.*.png")}
    return found


def test_a_classifier(places, tmp_path, capsys):
    root, pictures = places
    main(["--checkpoint", str(root / "run"), *map(str, pictures), "--out", str(tmp_path / "out")])
    found = _found(tmp_path / "out")
    assert list(found) == [str(path) for path in pictures]
    for answer in found.values():
        assert {entry["name"] for entry in answer} == {"ant", "bee", "cat", "dog"}
        shares = [entry["share"] for entry in answer]
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(1, abs=1e-5)
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {"photo.clusters.png", "photo_2.clusters.png"}
    assert f"{pictures[0]}: {found[str(pictures[0])][0]['name']} " in capsys.readouterr().out


def test_a_segmentor(places, tmp_path):
    root, pictures = places
    main(["--checkpoint", str(root / "segmentor.safetensors"), *map(str, pictures), "--out", str(tmp_path)])
    found = _found(tmp_path)
    for path, name in zip(pictures, ("photo", "photo_2"), strict=True):
        mask = Image.open(tmp_path / f"{name}.mask.png")
        assert (mask.mode, mask.size) == ("P", Image.open(path).size)
        labels = np.asarray(mask)
        shares = {entry["name"]: entry["share"] for entry in found[str(path)]}
        assert shares == pytest.approx({f"class {k}": np.mean(labels == k) for k in np.unique(labels)})
        assert Image.open(tmp_path / f"{name}.overlay.png").size[0] > 320
        expected = explain.sheet(
            *load(root / "segmentor.safetensors"), path, [f"class {k}" for k in range(3)], order="sharpness"
        )
        assert (tmp_path / f"{name}.clusters.png").read_bytes() == explain.to_png(expected)


def test_a_detector(places, tmp_path, capsys):
    root, pictures = places
    main(["--checkpoint", str(root / "detector.safetensors"), str(pictures[1]), "--out", str(tmp_path)])
    (found,) = _found(tmp_path).values()
    assert found
    for entry in found:
        assert entry["name"] in {"class 0", "class 1", "class 2"}
        left, top, right, bottom = entry["box"]
        assert 0 <= left <= right <= 90
        assert 0 <= top <= bottom <= 61
    assert max(entry["box"][2] for entry in found) > 64  # in pixels of the picture, not of what the model saw
    scores = [entry["score"] for entry in found]
    assert scores == sorted(scores, reverse=True)
    assert 0.05 < scores[-1] <= scores[0] <= 1
    said = capsys.readouterr().out.split(": ", 1)[1].splitlines()[0]
    assert sum(int(part.split(" x ")[0]) for part in said.split(", ")) == sum(score > 0.5 for score in scores) > 0
    assert Image.open(tmp_path / "photo.overlay.png").size[0] > 640
    expected = explain.sheet(
        *load(root / "detector.safetensors"), pictures[1], [f"class {k}" for k in range(3)], order="sharpness"
    )
    assert (tmp_path / "photo.clusters.png").read_bytes() == explain.to_png(expected)


def test_a_segmentor_without_clusters_has_no_picture_of_them(places, tmp_path):
    recipe = SEGMENTOR | {"name": "upernet_nano", "clusters": [0, 0, 0, 0]}
    model = create_model(**recipe)
    write_state_dict(tmp_path / "w.safetensors", to_torch(golden.random_variables(model), model), recipe)
    _predict(tmp_path / "w.safetensors", places[1][:1], tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {"photo.mask.png", "photo.overlay.png"}


@pytest.mark.parametrize("recipe", [CLASSIFIER, SEGMENTOR, DETECTOR], ids=lambda recipe: recipe["name"])
def test_weights_that_give_no_numbers_give_no_pictures(places, tmp_path, capsys, recipe):
    model = create_model(**recipe)
    variables = golden.random_variables(model)
    broken = variables | {"params": jax.tree.map(lambda leaf: leaf * np.nan, variables["params"])}
    write_state_dict(tmp_path / "w.safetensors", to_torch(broken, model), recipe)
    with pytest.raises(SystemExit) as ended:
        _predict(tmp_path / "w.safetensors", places[1][:1], tmp_path / "out", "--allow-nonfinite")
    assert ended.value.code == 2
    assert "Expected finite outputs of the model, got NaN or infinity. Take other weights." in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_score_of_shown_objects(places, tmp_path, capsys):
    root, pictures = places
    place, picture = root / "detector.safetensors", pictures[1]
    entries = _predict(place, [picture], tmp_path / "usual")[str(picture)]
    capsys.readouterr()
    middle = entries[len(entries) // 2]["score"]
    drawn = []
    for score in (0, middle, 0.5, 1):
        out = tmp_path / str(score)
        assert _predict(place, [picture], out, f"--score={score}")[str(picture)] == entries
        drawn.append([(out / f"photo.{kind}.png").read_bytes() for kind in ("overlay", "clusters")])
        said = capsys.readouterr().out.split(": ", 1)[1].splitlines()[0]
        if count := sum(entry["score"] > score for entry in entries):
            assert sum(int(part.split(" x ")[0]) for part in said.split(", ")) == count
        else:
            assert said == f"no object with a score above {score}"
    for one, other in ((0, 1), (1, 3), (3, 0)):
        assert all(a != b for a, b in zip(drawn[one], drawn[other], strict=True))
    assert drawn[2] == [(tmp_path / "usual" / f"photo.{kind}.png").read_bytes() for kind in ("overlay", "clusters")]


@pytest.mark.parametrize(
    ("place", "score", "message"),
    [
        ("detector.safetensors", "1.5", "Expected score to be a number from 0 to 1 or None, got 1.5"),
        ("detector.safetensors", "nan", "Expected score to be a number from 0 to 1 or None, got nan"),
        ("detector.safetensors", "half", "--score: invalid float value: 'half'"),
        ("run", "0.5", "Expected a detector with a score, got pacavit_nano"),
        ("segmentor.safetensors", "0.5", "Expected a detector with a score, got pacahead_nano"),
    ],
)
def test_a_score_that_does_not_fit_is_told(places, tmp_path, capsys, place, score, message):
    root, pictures = places
    with pytest.raises(SystemExit):
        main(["--checkpoint", str(root / place), str(pictures[0]), "--out", str(tmp_path / "out"), f"--score={score}"])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_turned_photo_is_seen_upright(places, tmp_path):
    root, pictures = places
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(pictures[1]).save(tmp_path / "turned.png", exif=exif)
    Image.open(pictures[1]).transpose(Image.Transpose.ROTATE_270).save(tmp_path / "upright.png")
    names = ("turned", "upright")
    files = [str(tmp_path / f"{name}.png") for name in names]
    main(["--checkpoint", str(root / "segmentor.safetensors"), *files, "--out", str(tmp_path / "out")])
    turned, upright = (np.asarray(Image.open(tmp_path / "out" / f"{name}.mask.png")) for name in names)
    assert turned.shape == (90, 61)
    np.testing.assert_array_equal(turned, upright)


def test_no_picture_takes_the_files_of_another(places, tmp_path):
    root, pictures = places
    third = tmp_path / "photo_2.png"
    shutil.copy(pictures[0], third)
    main(["--checkpoint", str(root / "segmentor.safetensors"), *map(str, (*pictures, third)), "--out", str(tmp_path / "out")])
    written = {path.name.removesuffix(".mask.png"): Image.open(path).size for path in (tmp_path / "out").glob("*.mask.png")}
    assert written == {"photo": (37, 50), "photo_2": (90, 61), "photo_2_2": (37, 50)}


def test_a_picture_that_cannot_be_read_keeps_the_predictions_before_it(places, tmp_path, capsys):
    root, pictures = places
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    for bad, reason in ((broken, "cannot decode"), (tmp_path / "absent.png", "No such file")):
        out = tmp_path / bad.stem
        with pytest.raises(SystemExit) as ended:
            main(["--checkpoint", str(root / "segmentor.safetensors"), str(pictures[0]), str(bad), "--out", str(out)])
        assert ended.value.code == 2
        error = capsys.readouterr().err
        assert str(bad) in error
        assert reason in error
        assert list(_found(out)) == [str(pictures[0])]


def test_a_checkpoint_that_is_not_there_ends_with_one_line(places, tmp_path):
    done = run_main(
        sys.executable, "-m", "paca_jax.predict", "--checkpoint", "nowhere", str(places[1][0]), "--out", str(tmp_path)
    )
    assert done.returncode == 2
    assert "error: There is nothing to load at 'nowhere'" in done.stderr


def _predict(place, pictures, out, *flags):
    main(["--checkpoint", str(place), *map(str, pictures), "--out", str(out), *flags])
    return _found(out)


@pytest.mark.parametrize("form", ["w.safetensors", "w.pth", "folder"])
def test_a_converted_model_answers_the_same(places, tmp_path, form):
    if form == "w.pth":
        pytest.importorskip("torch")
    _, pictures = places
    recipe = CLASSIFIER | {"image_size": 64, "crop": 0.7}
    names = {"model": recipe, "class_names": ["Käfer", "bee", "cat", "dog"]}
    write_variables(tmp_path / "run", golden.random_variables(create_model(**recipe)), names)
    convert.main([str(tmp_path / "run"), str(tmp_path / form)])
    before, after = (_predict(tmp_path / place, pictures, tmp_path / f"{place}-out") for place in ("run", form))
    assert before == after
    assert {entry["name"] for entry in before[str(pictures[0])]} == set(names["class_names"])


def test_without_its_description_a_file_says_what_is_missing(places, tmp_path, capsys, caplog):
    pytest.importorskip("torch")
    _, pictures = places
    recipe = {"name": "pacavit_nano", "num_classes": 4, "image_size": 64}
    write_variables(
        tmp_path / "run", golden.random_variables(create_model(**recipe)), {"model": recipe, "class_names": list("abcd")}
    )
    convert.main([str(tmp_path / "run"), str(tmp_path / "w.pth")])
    assert "Keep w.pth.json beside it" in capsys.readouterr().out
    expected = _predict(tmp_path / "w.pth", pictures, tmp_path / "a")
    (tmp_path / "w.pth.json").unlink()
    _predict(tmp_path / "w.pth", pictures, tmp_path / "b")
    assert "does not say the size of its images: takes 32 pixels" in caplog.text
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\n", "utf-16")
    flags = ["--image-size=64", f"--class-names={tmp_path / 'names.txt'}"]
    assert _predict(tmp_path / "w.pth", pictures, tmp_path / "c", *flags) == expected
    convert.main([str(tmp_path / "w.pth"), str(tmp_path / "w.safetensors"), *flags])
    assert _predict(tmp_path / "w.safetensors", pictures, tmp_path / "d") == expected


@pytest.mark.parametrize(
    ("lines", "told"), [("a\nb\n", "Expected the names of 4 classes, got 2"), ("a\n\nc\nd\n", r"got an empty one (number 2)")]
)
def test_wrong_names_are_told(places, tmp_path, capsys, lines, told):
    root, pictures = places
    (tmp_path / "names.txt").write_text(lines)
    with pytest.raises(SystemExit):
        _predict(root / "run", pictures, tmp_path / "out", f"--class-names={tmp_path / 'names.txt'}")
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(("count", "names"), [(80, "class "), (150, "class "), (1000, None)])
def test_names_are_those_of_a_classifiers_own_data_set(places, tmp_path, count, names, caplog):
    _, pictures = places
    recipe = CLASSIFIER | {"num_classes": count}
    model = create_model(**recipe)
    write_state_dict(tmp_path / "w.safetensors", to_torch(golden.random_variables(model), model), recipe)
    found = _predict(tmp_path / "w.safetensors", pictures[:1], tmp_path / "out")[str(pictures[0])]
    if names:
        assert all(entry["name"].startswith(names) for entry in found)
    else:
        assert {entry["name"] for entry in found} <= set(IMAGENET_CLASSES)
        assert "takes the names of ImageNet-1k" in caplog.text


@pytest.mark.parametrize("flag", ["IMAGE", "--checkpoint", "--out", "--class-names"])
def test_an_address_that_is_none_of_weights_is_told(places, tmp_path, capsys, flag):
    root, pictures = places
    values = {"IMAGE": str(pictures[0]), "--checkpoint": str(root / "run"), "--out": str(tmp_path / "out")}
    values[flag] = "s3://bucket/x"
    picture = values.pop("IMAGE")
    with pytest.raises(SystemExit) as ended:
        main([picture, *(f"{name}={value}" for name, value in values.items())])
    assert ended.value.code == 2
    assert "got 's3://bucket/x'" in capsys.readouterr().err
