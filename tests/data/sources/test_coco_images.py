"""Finding the images that a COCO file names: inside the folder, whatever the spelling; missing ones are noticed at once."""

import copy
import json
import os

import pytest

from paca_jax.data import open_dataset
from paca_jax.errors import UserError
from tests.data.coco_folder import content, square, write_folder

FEATURES = ("image", "objects")
SIZES = {1: (40, 60), 2: (50, 40), 3: (33, 32)}
JSON = "annotations/instances_train2017.json"
NAMES = ["0001.png", "0002.png", "0003.png"]


@pytest.fixture
def holds():
    return copy.deepcopy(content(SIZES, [square(number, number, 3, 4, 9) for number in SIZES]))


@pytest.fixture
def folder(holds, tmp_path):
    return write_folder(tmp_path / "data", holds, JSON, "train2017")


def renamed(holds, folder, *names):
    for image, name in zip(holds["images"], names, strict=True):
        image["file_name"] = name
    (folder / JSON).write_text(json.dumps(holds))


def paths(folder, **options):
    dataset = open_dataset("coco", "train_all", str(folder), FEATURES, **options)
    assert all(dataset[index]["image"] for index in range(len(dataset)))
    return [dataset.where(index) for index in range(len(dataset))]


def refused(folder):
    with pytest.raises(UserError) as caught:
        paths(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "spelling",
    [
        "{name}",
        "./{name}",
        "train2017/{name}",
        "../train2017/{name}",
        "..\\train2017\\{name}",
        ".\\{name}",
        "{root}/train2017/{name}",
        "{link}/train2017/{name}",
        "{root}/annotations/../train2017/{name}",
    ],
)
def test_every_spelling_of_a_path_inside_is_right(holds, folder, tmp_path, spelling):
    (tmp_path / "link").symlink_to(folder)
    renamed(holds, folder, *(spelling.format(name=name, root=folder, link=tmp_path / "link") for name in NAMES))
    assert paths(folder) == [f"image {number} ({folder}/train2017/{NAMES[number - 1]})" for number in SIZES]


def test_a_name_on_windows_in_subfolders_and_with_a_backslash_of_its_own(holds, folder):
    (folder / "train2017/a/b").mkdir(parents=True)
    os.rename(folder / "train2017" / NAMES[0], folder / "train2017/a/b" / NAMES[0])
    os.rename(folder / "train2017" / NAMES[1], folder / "train2017" / "a\\2.png")
    renamed(holds, folder, f"a\\b\\{NAMES[0]}", "a\\2.png", NAMES[2])
    assert paths(folder)[1] == f"image 2 ({folder}/train2017/a\\2.png)"


@pytest.mark.parametrize(
    "spelling", ["../../{name}", "..\\..\\{name}", "{outside}/{name}", "../out/{name}", "https://host/{name}", "gs://b/{name}"]
)
@pytest.mark.parametrize("number", [1, 3])
def test_a_path_outside_is_refused(holds, folder, tmp_path, spelling, number):
    (tmp_path / "elsewhere").mkdir()
    for place in (tmp_path, tmp_path / "elsewhere"):
        (place / NAMES[number - 1]).write_bytes((folder / "train2017" / NAMES[number - 1]).read_bytes())
    (folder / "out").symlink_to(tmp_path / "elsewhere")
    name = spelling.format(name=NAMES[number - 1], outside=tmp_path / "elsewhere")
    renamed(holds, folder, *[name if k == number else NAMES[k - 1] for k in SIZES])
    sentence = refused(folder)
    assert sentence.startswith(f"Expected every image of the COCO file {folder / JSON} to be inside {folder}, got {name!r}")
    assert f"as the file_name of image {number}, which leads out of it" in sentence


def test_a_link_to_a_file_outside_is_refused(folder, tmp_path):
    os.rename(folder / "train2017" / NAMES[1], tmp_path / "x.png")
    (folder / "train2017" / NAMES[1]).symlink_to(tmp_path / "x.png")
    assert f"got '{NAMES[1]}' as the file_name of image 2, which leads out of it" in refused(folder)


def test_links_inside_and_a_linked_folder_of_images_are_right(folder, tmp_path):
    os.rename(folder / "train2017" / NAMES[1], folder / "x.png")
    (folder / "train2017" / NAMES[1]).symlink_to(folder / "x.png")
    before = paths(folder)
    os.rename(folder / "train2017", tmp_path / "disk")
    (folder / "train2017").symlink_to(tmp_path / "disk")
    assert paths(folder) == before


@pytest.mark.parametrize("number", [1, 2])
def test_missing_images_are_noticed_at_the_start(folder, caplog, number):
    (folder / "train2017" / NAMES[number - 1]).unlink()
    missing = f"image {number} ({folder}/train2017/{NAMES[number - 1]})"
    sentence = refused(folder)
    assert f"in {folder}, got 1 of 3 that are missing: image {number} (train2017/{NAMES[number - 1]})" in sentence
    assert sentence.endswith("leave them out and count them with dataset.skip_corrupt=True.")
    found = paths(folder, skip_missing=True)
    assert len(found) == 2
    assert missing not in found
    assert f"Left out 1 of 3 images of the COCO file {folder / JSON} that are missing: image {number} " in caplog.text


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.symlink_to(path.with_name("nowhere"))])
def test_folders_and_dangling_links_are_missing_images(folder, make):
    (folder / "train2017" / NAMES[1]).unlink()
    make(folder / "train2017" / NAMES[1])
    assert "got 1 of 3 that are missing: image 2 (train2017/0002.png)" in refused(folder)


def test_a_folder_without_any_of_the_images_is_refused(folder):
    for name in NAMES:
        (folder / "train2017" / name).unlink()
    assert f"Expected the image 0001.png in '{folder}/train2017', '{folder}/images/train2017'" in refused(folder)
    with pytest.raises(UserError, match="found it in none of them, nor any other image of the COCO file"):
        paths(folder, skip_missing=True)


def test_an_image_that_vanishes_later_is_named(folder):
    dataset = open_dataset("coco", "train", str(folder), FEATURES)
    (folder / "train2017" / NAMES[1]).unlink()
    with pytest.raises(UserError, match=r"Expected a file at .*train2017/0002\.png, got: No such file"):
        dataset[1]


def test_images_that_the_training_split_leaves_out_are_counted(holds, folder, caplog):
    holds["annotations"].pop()
    holds["images"][0]["width"] = 31
    (folder / JSON).write_text(json.dumps(holds))
    with caplog.at_level("INFO"):
        assert len(open_dataset("coco", "train", str(folder), FEATURES)) == 1
    assert f"Split 'train' leaves out 2 of 3 images of the COCO file {folder / JSON}: 1 without annotations, and 1 more" in (
        caplog.text
    )
