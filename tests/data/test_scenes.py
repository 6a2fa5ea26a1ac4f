import bz2
import hashlib
import io
import socket
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paca_jax.data import open_dataset
from paca_jax.data.prepare import main
from paca_jax.data.scenes.compose import MIN_VISIBLE_PIXELS, Garment, Piece, compose, cut_out, paint, resample, settle
from paca_jax.data.sources.tfds_files import find_builder
from paca_jax.errors import UserError
from scripts import build_photographs, scenes_folder
from tests.data.tiny import DATASETS, encode

PHOTOGRAPHS = Path(DATASETS) / "photographs"
SCENES = {"train": 12, "test": 8}
FEATURES = ("image", "mask", "instances", "objects", "photograph")
SHIRT, SANDAL, BAG = 6, 5, 8


def builder(folder, **options):
    from paca_jax.data.scenes.builder import Scenes

    return Scenes(**{"data_dir": str(folder), "file_format": "array_record", "scenes": SCENES, **options})


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    builder(folder).download_and_prepare()
    return folder


def opened(folder, split):
    dataset = open_dataset("scenes", split, str(folder), features=FEATURES)
    return [dataset[i] for i in range(len(dataset))]


def pixels(image):
    """An image feature's pixels, whether it comes encoded or decoded."""
    return np.asarray(Image.open(io.BytesIO(image)) if isinstance(image, bytes) else image).squeeze()


@pytest.fixture(scope="module")
def sources():
    from paca_jax.data.scenes.builder import read_sources

    return read_sources(Path(DATASETS), "train")


def composed(sources, number):
    return compose(np.random.default_rng(number), sources.photographs, sources.garments)


@pytest.mark.parametrize("split", ["train", "test"])
def test_masks_instances_and_objects_agree(prepared, split):
    examples = opened(prepared, split)
    assert len(examples) == SCENES[split]
    for example in examples:
        image, mask, instances = (pixels(example[name]) for name in ("image", "mask", "instances"))
        objects = example["objects"]
        assert mask.shape == instances.shape == image.shape[:2]
        assert set(np.unique(instances)) == {0, *range(1, len(objects["id"]) + 1)}
        np.testing.assert_array_equal(mask == 0, instances == 0)
        for number, label, area, box in zip(*(objects[name] for name in ("id", "label", "area", "bbox")), strict=True):
            visible = instances == number
            assert set(mask[visible]) == {label + 1}
            assert area == visible.sum() >= MIN_VISIBLE_PIXELS
            rows, columns = np.nonzero(visible)
            height, width = mask.shape
            edges = [rows.min() / height, columns.min() / width, (rows.max() + 1) / height, (columns.max() + 1) / width]
            np.testing.assert_allclose(box, edges, rtol=1e-6)


def test_scenes_are_opened_from_files_alone(prepared):
    examples = opened(prepared, "train")
    assert examples[0]["image"][:2] == b"\xff\xd8"
    features = find_builder("scenes", str(prepared)).info.features
    garments = open_dataset("fashion_mnist_small", "train", DATASETS).class_names
    assert tuple(features["objects"]["label"].names) == garments
    assert tuple(features["mask"].names) == ("background", *garments)


def test_scenes_are_written_as_folders_of_masks_and_of_objects(prepared, tmp_path):
    scenes_folder.main([str(prepared), str(tmp_path)])
    for split, name in (("train", "train"), ("test", "validation")):
        examples = opened(prepared, split)
        masks = open_dataset("folder", name, str(tmp_path / "segmentation"), ("image", "mask"))
        objects = open_dataset("coco", name, str(tmp_path / "detection"), ("image", "objects"))
        assert masks.class_names == ("background", *objects.class_names)
        assert len(masks) == len(objects) == len(examples)
        for index, example in enumerate(examples):
            assert masks[index] == {"image": example["image"], "mask": example["mask"]}
            found = objects[index]
            assert found["image"] == example["image"]
            np.testing.assert_array_equal(found["objects"]["labels"], example["objects"]["label"])
            np.testing.assert_array_equal(found["objects"]["area"], example["objects"]["area"])
            height, width = pixels(example["mask"]).shape
            edges = example["objects"]["bbox"][:, [1, 0, 3, 2]] * [width, height, width, height]
            np.testing.assert_allclose(found["objects"]["boxes"], edges, atol=1e-3)


def test_train_and_test_share_neither_photographs_nor_garments(prepared):
    names = {split: {path.stem for path in (PHOTOGRAPHS / split).iterdir()} for split in SCENES}
    assert not names["train"] & names["test"]
    for split in SCENES:
        garments = open_dataset("fashion_mnist_small", split, DATASETS)
        for example in opened(prepared, split):
            assert example["photograph"].decode() in names[split]
            for garment, label in zip(example["objects"]["garment"], example["objects"]["label"], strict=True):
                assert garments[int(garment)]["label"] == label


def test_every_preparation_gives_the_same_scenes_however_many(prepared, tmp_path):
    builder(tmp_path, scenes={"train": 3, "test": 1}).download_and_prepare()
    for split, number in (("train", 3), ("test", 1)):
        again = opened(tmp_path, split)
        assert len(again) == number
        for one, other in zip(again, opened(prepared, split), strict=False):
            for name in ("image", "mask", "instances"):
                np.testing.assert_array_equal(pixels(one[name]), pixels(other[name]))
            np.testing.assert_array_equal(one["objects"]["garment"], other["objects"]["garment"])
    first, second = (example["image"] for example in opened(prepared, "train")[:2])
    assert first != second


def test_scenes_stay_what_they_were(sources):
    digest = hashlib.sha256()
    for number in range(4):
        for thing in composed(sources, number).objects:
            digest.update(
                f"{thing.label} {thing.garment} {thing.visible.shape}".encode() + np.packbits(thing.visible).tobytes()
            )
    assert digest.hexdigest() == "ad7117e48e294436bb8b459d07109fd5d7e713c791c33e05c8874de2dad7f29c"


def test_scenes_vary_and_none_is_empty(sources):
    scenes = [composed(sources, number) for number in range(60)]
    heights, widths = zip(*(scene.image.shape[:2] for scene in scenes), strict=True)
    assert 96 <= min(heights + widths) < 105
    assert 150 < max(heights + widths) <= 160
    assert {len(scene.objects) for scene in scenes} == {2, 3, 4}
    assert {thing.label for scene in scenes for thing in scene.objects} == set(range(10))
    assert {scene.photograph for scene in scenes} == set(sources.photographs)
    for scene in scenes:
        assert sum(thing.visible.astype(int) for thing in scene.objects).max() == 1  # nothing twice


def square(value, side, top, left, label=0):
    return Piece(np.full((side, side, 3), value, np.float32), np.ones((side, side), np.float32), top, left, label, 0)


def test_what_is_painted_later_covers():
    low, high = square(50, 10, 2, 2, label=1), square(200, 10, 6, 6, label=2)
    (first, lower), (second, upper) = settle([low, high], 20, 20)
    assert (first.label, second.label) == (1, 2)
    assert upper.sum() == 100
    assert lower.sum() == 100 - 36
    assert not (lower & upper).any()
    image = paint(paint(np.zeros((20, 20, 3), np.float32), low), high)
    np.testing.assert_array_equal(image[..., 0], 50 * lower + 200 * upper)


def test_what_is_hardly_visible_is_left_out_and_hides_nothing():
    bottom, middle, top = square(1, 12, 0, 0), square(2, 12, 1, 0), square(3, 14, 1, 0)
    staying = settle([bottom, middle, top], 40, 40)
    assert [piece.colors[0, 0, 0] for piece, _ in staying] == [3]
    # The middle one goes, so the bottom one keeps the part that only the middle one covered.
    bottom, middle, top = square(1, 12, 0, 0), square(2, 12, 2, 0), square(3, 12, 3, 0)
    staying = settle([bottom, middle, top], 40, 40)
    assert [(piece.colors[0, 0, 0], visible.sum()) for piece, visible in staying] == [(1, 36), (3, 144)]


def test_a_piece_may_leave_the_picture():
    piece = square(9, 10, -4, 15)
    ((_, visible),) = settle([piece], 20, 20)
    assert visible.sum() == 6 * 5
    assert visible[:6, 15:].all()
    image = paint(np.zeros((20, 20, 3), np.float32), piece)
    np.testing.assert_array_equal(image[..., 0] == 9, visible)


def test_dark_cloth_belongs_to_a_garment_and_openings_to_the_ground():
    image = np.zeros((28, 28), np.uint8)
    image[4:24, 4:24] = 200
    image[8:14, 8:14] = 0
    image[18, 18] = 0
    image[1, 1] = 90  # a speck
    whole, opening = np.zeros((2, 28, 28), bool)
    whole[4:24, 4:24] = opening[8:14, 8:14] = True
    np.testing.assert_array_equal(cut_out(Garment(image, SHIRT)), whole)
    for label in (SANDAL, BAG):
        np.testing.assert_array_equal(cut_out(Garment(image, label)), whole & ~opening)


def test_garments_are_scaled_mirrored_and_turned():
    mask = np.zeros((28, 28), bool)
    mask[4:24, 8:18] = True
    gray = np.where(mask, np.arange(28, dtype=np.uint8) * 5, 0).astype(np.uint8)
    shade, alpha = resample(gray, mask, 2.0, 0.0, mirrored=False)
    assert (alpha >= 0.5).sum() == pytest.approx(4 * 200, rel=0.02)
    assert ((alpha > 0) & (alpha < 1)).any()
    row = shade[20][alpha[20] == 1]
    assert (np.diff(row) >= 0).all()
    assert row[0] < row[-1]
    mirrored_shade, mirrored_alpha = resample(gray, mask, 2.0, 0.0, mirrored=True)
    np.testing.assert_allclose(mirrored_alpha, alpha[:, ::-1], atol=1e-4)
    np.testing.assert_allclose(mirrored_shade, shade[:, ::-1], atol=1e-2)
    _, turned = resample(gray, mask, 2.0, 0.25, mirrored=False)
    assert (turned >= 0.5).sum() == pytest.approx(4 * 200, rel=0.02)
    rows, columns = np.nonzero(turned >= 0.5)
    assert np.corrcoef(rows, columns)[0, 1] < -0.2
    assert not turned[[0, -1]].any()
    assert not turned[:, [0, -1]].any()


def test_preparing_needs_no_network(tmp_path, monkeypatch, capsys):
    def refuse(*args, **kwargs):
        raise AssertionError("network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    from tensorflow_datasets.core.utils import gcs_utils

    monkeypatch.setattr(gcs_utils, "exists", refuse)
    from paca_jax.data.scenes import builder as module

    monkeypatch.setitem(module.SCENES, "train", 2)
    monkeypatch.setitem(module.SCENES, "test", 1)
    main(["scenes", "--data_dir", str(tmp_path)])
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "scenes" / "1.0.0")
    assert (len(opened(tmp_path, "train")), len(opened(tmp_path, "test"))) == (2, 1)


def test_a_half_finished_preparation_does_not_count(tmp_path, monkeypatch):
    from paca_jax.data.scenes import builder as module

    def stopped(rng, *sources):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "compose", stopped)
        with pytest.raises(KeyboardInterrupt):
            builder(tmp_path).download_and_prepare()
    assert find_builder("scenes", str(tmp_path)) is None
    with pytest.raises(UserError, match=r"Prepare it with: python -m paca_jax\.data\.prepare scenes"):
        open_dataset("scenes", "train", str(tmp_path), features=("image", "mask"))
    builder(tmp_path).download_and_prepare()
    assert len(opened(tmp_path, "test")) == SCENES["test"]


def test_missing_sources_are_reported(tmp_path):
    with pytest.raises(UserError, match=r"missing 'fashion_mnist_small', 'photographs/train'\. They come with the repository"):
        builder(tmp_path, source=tmp_path)
    (tmp_path / "fashion_mnist_small").mkdir()
    with pytest.raises(UserError, match=r"missing 'photographs/train'\. They come"):
        builder(tmp_path, source=tmp_path)


def test_photographs_are_small_and_have_their_licenses():
    files = sorted(PHOTOGRAPHS.glob("*/*.jpg"))
    assert sum(file.stat().st_size for file in files) < 2**20
    table = (PHOTOGRAPHS / "README.md").read_text("utf-8").splitlines()
    for file in files:
        (line,) = [line for line in table if f"`{file.parent.name}/{file.name}`" in line]
        assert line.endswith(("| CC0 |", "| public domain |", "| CC BY 4.0 |"))
        assert min(Image.open(file).size) >= 160


def debian_package(path, files):
    """Writes a Debian package with these files and nothing else of what one has."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w:xz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    members = {"debian-binary": b"2.0", "data.tar.xz": tar.getvalue()}
    headers = {name: f"{name:<16}{0:<12}{0:<6}{0:<6}{644:<8}{len(data):<10}`\n".encode() for name, data in members.items()}
    path.write_bytes(b"!<arch>\n" + b"".join(headers[name] + data + b"\n" * (len(data) % 2) for name, data in members.items()))


def test_photographs_are_built_from_packages(tmp_path):
    packages = tmp_path / "packages"
    packages.mkdir()
    of_debian = {}
    for photograph in build_photographs.PHOTOGRAPHS:
        raccoon = bz2.compress(bytes([9, 99, 199]) * (1024 * 768))
        data = raccoon if photograph.path.endswith(".dat") else encode(np.full((300, 1000), 7, np.uint8))
        if photograph.package.startswith("lomiri"):
            of_debian[photograph.path] = data
            continue
        with zipfile.ZipFile(packages / f"{photograph.package}-cp311-none-any.whl", "a") as wheel:
            wheel.writestr(photograph.path, data)
    debian_package(packages / "lomiri-wallpapers-16.04_20.04.0-2_all.deb", of_debian)
    built = {str(file.relative_to(tmp_path / "out")): file for file in build_photographs.build(packages, tmp_path / "out")}
    assert set(built) == {str(file.relative_to(PHOTOGRAPHS)) for file in PHOTOGRAPHS.glob("*/*.jpg")}
    raccoon = Image.open(built["test/raccoon.jpg"])
    assert raccoon.size == (512, 384)
    np.testing.assert_allclose(np.asarray(raccoon).mean((0, 1)), [9, 99, 199], atol=2)
    assert Image.open(built["train/cat.jpg"]).size == (512, 154)
    for wheel in packages.glob("scipy*"):
        wheel.unlink()
    with pytest.raises(UserError, match=r"Expected the package scipy-1\.9\.3 in .*, found none"):
        build_photographs.build(packages, tmp_path / "out")
