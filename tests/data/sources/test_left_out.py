"""What image folders leave out of a data set, and that they say so."""

import os
import stat

import numpy as np
import pytest

from paca_jax.data import open_dataset
from paca_jax.errors import UserError
from tests.data.tiny import encode


def fill(folder, names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(np.zeros((4, 5, 3), np.uint8)) if path.suffix == ".png" else b"")


def logged(caplog, folder, split):
    caplog.clear()
    open_dataset("folder", split, str(folder))
    return [record.getMessage() for record in caplog.records]


def left_out(folder, files):
    return f"Files left out of {folder}: {files}. Convert those that are pictures to JPEG or PNG."


@pytest.fixture
def single(tmp_path):
    fill(tmp_path, [f"{name}/{i}.png" for name in ("ant", "bee") for i in range(3)])
    return tmp_path


def test_nothing_is_said_if_nothing_is_left_out(single, caplog):
    fill(single, [".hidden.heic", "ant/.DS_Store", ".cache/x.heic", "ant/.thumbs/x.heic"])
    for split in ("train", "validation", "all"):
        assert logged(caplog, single, split) == []


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (["ant/a.HEIC", "bee/b.heic", "bee/deep/c.Heic", "bee/d.cr2"], "3 .heic, 1 .cr2"),
        (["ant/a.jxl"], "1 .jxl"),
        (["ant/readme", "bee/b.tar.gz"], "1 without an ending, 1 .gz"),
        (["loose.png", "labels.csv"], "1 .png, 1 .csv"),
    ],
)
def test_one_folder_is_reported_by_its_training_split_alone(single, caplog, names, files):
    fill(single, names)
    for split, lines in (("train", 1), ("validation", 0), ("all", 1)):
        found = logged(caplog, single, split)
        assert len(found) == lines
        assert all(sorted(line) == sorted(left_out(single, files)) for line in found)  # the order of the listing may differ


def test_each_of_two_folders_is_reported_by_its_split(tmp_path, caplog):
    fill(tmp_path, [f"{split}/{name}/0.png" for split in ("train", "val") for name in ("ant", "bee")])
    fill(tmp_path, ["train/ant/x.avi", "val/loose.png", "notes.txt", "more/cat/1.png"])
    assert logged(caplog, tmp_path, "train") == [
        f"Folders of {tmp_path} that are no split: 'more'.",
        left_out(tmp_path, "1 .txt"),
        left_out(tmp_path, "1 .avi"),
    ]
    assert logged(caplog, tmp_path, "validation") == [left_out(tmp_path, "1 .png")]


def test_a_class_of_nothing_but_other_files_is_refused(single):
    fill(single, ["cat/1.heic", "cat/2.heic", "cat/3.dng", "ant/4.cr2"])
    with pytest.raises(UserError, match=rf"in the class folder {single}/cat, found 2 \.heic, 1 \.dng\. Add some"):
        open_dataset("folder", "train", str(single))


def test_classes_too_small_to_hold_out_are_unseen_in_validation(single):
    fill(single, ["cat/1.png", "dog/1.png"])
    unseen = {split: open_dataset("folder", split, str(single)).unseen_classes() for split in ("train", "validation", "all")}
    assert unseen == {"train": (), "validation": ("cat", "dog"), "all": ()}


@pytest.mark.parametrize("kind", ["a pipe", "a socket", "a device"])
@pytest.mark.parametrize("file", ["images/train/0.png", "masks/train/0.png", "classes.txt"])
def test_only_regular_files_of_a_folder_are_opened(tmp_path, kind, file):
    for folder in ("images/train", "masks/train", "images/val", "masks/val"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "0.png").write_bytes(encode(np.zeros((2, 3), np.uint8)))
    (tmp_path / "classes.txt").write_text("ant\nbee\n")
    path = tmp_path / file
    path.unlink()
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    else:
        os.mknod(path, stat.S_IFSOCK | 0o600)
    dataset = open_dataset("folder", "train", str(tmp_path), ("image", "mask"))
    with pytest.raises(UserError, match=f"Expected a file at .*{file}, got {kind}"):
        dataset.class_names if file == "classes.txt" else dataset[0]


def test_names_that_are_no_text_are_logged(tmp_path, caplog):
    for name in (b"ant/1.png", b"ant/2.png", b"bee/1.png", b"bee/2.png", b"bee/\xff.png", b"bee/3.\xff", b"bee/4.x\ny"):
        path = os.path.join(os.fsencode(tmp_path), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(encode(np.zeros((2, 3), np.uint8)))
    assert len(open_dataset("folder", "all", str(tmp_path))) == 5
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.isprintable()
    assert "1 .\\udcff" in line
