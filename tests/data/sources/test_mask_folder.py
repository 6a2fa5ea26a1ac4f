import pickle
import re

import numpy as np
import pytest

from paca_jax.data import (
    ADE20K_CLASSES,
    Dataset,
    SegmentationEvalTransform,
    SegmentationTrainTransform,
    decode_mask,
    describe_dataset,
    eval_batches,
    image_sizes,
    open_dataset,
    train_batches,
)
from paca_jax.errors import UserError
from tests.data.tiny import encode

FEATURES = ("image", "mask")


def write(path, value=0, channels=3, size=(6, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (*size, channels) if channels > 1 else size
    path.write_bytes(encode(np.full(shape, value, np.uint8), "JPEG" if path.suffix == ".jpg" else "PNG"))


def fill(folder, names, images="images", masks="masks"):
    for index, name in enumerate(names):
        write(folder / images / f"{name}.jpg", 10 * index)
        write(folder / masks / f"{name}.png", index % 3, channels=1)


@pytest.fixture
def folder(tmp_path):
    fill(tmp_path, ["train/a", "train/deep/er/b", "train/c", "val/d", "val/e"])
    (tmp_path / "classes.txt").write_text("ant\nbee \nsea lion\n", "utf-8")
    return tmp_path


def opened(folder, split="train"):
    return open_dataset("folder", split, str(folder), features=FEATURES)


def refused(folder, split="train"):
    with pytest.raises(UserError) as caught:
        opened(folder, split)
    return str(caught.value)


def test_images_and_masks_are_paired(folder):
    dataset = opened(folder)
    assert isinstance(dataset, Dataset)
    assert (dataset.name, dataset.split, len(dataset)) == ("folder", "train", 3)
    assert dataset.class_names == ("ant", "bee", "sea lion")
    assert dataset.num_classes == 3
    for index, name in enumerate(("a", "c", "deep/er/b")):
        image, mask = folder / "images" / "train" / f"{name}.jpg", folder / "masks" / "train" / f"{name}.png"
        assert dataset[index] == {"image": image.read_bytes(), "mask": mask.read_bytes()}
        assert dataset.where(index) == f"{image} with mask {mask}"
    assert [opened(folder, "validation").where(i).split(" ")[0] for i in range(2)] == [
        f"{folder}/images/val/{name}.jpg" for name in "de"
    ]
    for index in (-1, 3):
        with pytest.raises(IndexError, match="has images 0 to 2"):
            dataset[index]


def test_ade20k_works_as_it_comes(tmp_path):
    names = ["training/ADE_train_00000001", "training/ADE_train_00000002", "validation/ADE_val_00000001"]
    fill(tmp_path, names, masks="annotations")
    (tmp_path / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tStuff\tName\n")
    assert (len(opened(tmp_path)), len(opened(tmp_path, "validation"))) == (2, 1)
    assert opened(tmp_path).class_names == ADE20K_CLASSES
    (tmp_path / "classes.txt").write_text("mine")
    assert opened(tmp_path).class_names == ("mine",)


def test_ade20k_by_its_own_name(tmp_path):
    fill(tmp_path, ["training/a", "training/b", "validation/c"], masks="annotations")
    for split, published, count in (("train", 20210, 2), ("validation", 2000, 1)):
        facts = describe_dataset("ade20k", split, None, FEATURES)
        dataset = open_dataset("ade20k", split, str(tmp_path), FEATURES)
        assert (len(facts), len(dataset)) == (published, count)
        assert (dataset.name, dataset.split) == ("ade20k", split)
        assert facts.class_names == dataset.class_names == ADE20K_CLASSES
        plain = opened(tmp_path, split)
        assert [dataset[i] for i in range(count)] == [plain[i] for i in range(count)]
    with pytest.raises(UserError, match="features of the data set 'ade20k', 'image' and 'mask', got 'image', 'annotation'"):
        open_dataset("ade20k", "train", str(tmp_path), ("image", "annotation"))
    with pytest.raises(UserError, match="Expected the folder of images, got None"):
        open_dataset("ade20k", "train", None, FEATURES)


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("train", "validation"), {"train": "train", "validation": "validation"}),
        (("train", "test"), {"train": "train", "validation": "test", "test": "test"}),
        (("training", "val", "test"), {"train": "training", "validation": "val", "test": "test"}),
        (("train", "training"), {"train": "train"}),
    ],
)
def test_names_of_splits(tmp_path, folders, splits):
    fill(tmp_path, [f"{name}/{name}" for name in folders])
    for split, name in splits.items():
        assert [opened(tmp_path, split).where(i).split("/")[-1] for i in range(len(opened(tmp_path, split)))] == [f"{name}.png"]
    known = ", ".join(map(repr, splits))
    assert f"Expected one of the splits {known} of the folder {tmp_path}/images, got 'all'" in refused(tmp_path, "all")


def test_hidden_and_other_files_are_left_out(folder):
    write(folder / "images" / "train" / ".hidden.jpg")
    write(folder / "masks" / "train" / ".hidden" / "x.png")
    (folder / "images" / "train" / "notes.txt").touch()
    (folder / "masks" / "train" / "Thumbs.db").touch()
    assert len(opened(folder)) == 3


def test_a_pickled_copy_keeps_the_list(folder):
    dataset = opened(folder)
    pickled = pickle.dumps(dataset)
    fill(folder, ["train/0"])
    copy = pickle.loads(pickled)
    assert [copy.where(i) for i in range(3)] == [dataset.where(i) for i in range(3)]
    assert copy[2] == dataset[2]
    assert copy.class_names == dataset.class_names


def test_missing_classes_are_reported(folder):
    (folder / "classes.txt").unlink()
    with pytest.raises(UserError) as caught:
        opened(folder).class_names  # noqa: B018
    assert str(caught.value) == (
        f"Expected the names of the classes in {folder}/classes.txt, found no such file. Write it, one name per line."
    )
    (folder / "classes.txt").write_text("ant\n\nbee\n")
    with pytest.raises(UserError, match="line 2 is empty"):
        opened(folder).class_names  # noqa: B018


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]
)
def test_classes_of_other_editors(folder, encoding, newline):
    mark = "\ufeff" if encoding[-2:] in ("le", "be") else ""
    (folder / "classes.txt").write_bytes(f"{mark}fourmi{newline}été{newline}{newline}".encode(encoding))
    assert opened(folder).class_names == ("fourmi", "été")


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "mac-roman", "shift-jis", "utf-16-le", "utf-16-be", "utf-32-le"])
def test_classes_in_another_encoding_are_refused(folder, encoding):
    (folder / "classes.txt").write_bytes(("うみ\nant" if encoding == "shift-jis" else "fourmi\nété\n").encode(encoding))
    with pytest.raises(UserError, match=r"Expected text in UTF-8 in .*/classes\.txt, got .* Save it as UTF-8\."):
        opened(folder).class_names  # noqa: B018


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfant\nb\xe9e", b"\xff\xfea\0b", b"\xff\xfe\0\0ant"])
def test_damaged_text_is_refused(folder, content):
    (folder / "classes.txt").write_bytes(content)
    with pytest.raises(UserError, match="Expected text in UTF-8"):
        opened(folder).class_names  # noqa: B018


@pytest.mark.parametrize("name", ["c.PNG", "c.bmp", "c.Tiff", "c.pgm"])
def test_masks_of_other_endings(folder, name):
    path = folder / "masks" / "train" / name
    (folder / "masks" / "train" / "c.png").unlink()
    (folder / "images" / "train" / "c.jpg").rename(folder / "images" / "train" / "c.JPEG")
    path.write_bytes(encode(np.full((6, 8), 2, np.uint8), {"bmp": "BMP", "Tiff": "TIFF", "pgm": "PPM"}.get(name[2:], "PNG")))
    dataset = opened(folder)
    assert dataset.where(1) == f"{folder}/images/train/c.JPEG with mask {path}"
    assert (decode_mask(dataset[1]["mask"]) == 2).all()
    assert pickle.loads(pickle.dumps(dataset))[1] == dataset[1]


def test_two_masks_of_one_image_are_refused(folder):
    write(folder / "masks" / "train" / "c.tif", channels=1)
    assert f"the masks 'c.png' and 'c.tif' in {folder}/masks/train have the same. Rename or remove one." in refused(folder)


@pytest.mark.parametrize("ending", ["jpg", "gif", "npy"])
def test_masks_of_no_such_ending_are_named(folder, ending):
    mask = folder / "masks" / "train" / "c.png"
    mask.rename(mask.with_suffix(f".{ending}"))
    assert f"found no {mask} for {folder}/images/train/c.jpg; {folder}/masks/train has other files: 1 .{ending}." in refused(
        folder
    )


def test_left_out_files_are_counted_and_named(folder, caplog):
    write(folder / "images" / "loose.jpg")
    (folder / "images" / "extra").mkdir()
    for name in (
        "images/train/x.HEIC",
        "images/train/deep/y.heic",
        "images/train/notes",
        "masks/train/.hidden",
        "masks/train/c.csv",
    ):
        (folder / name).touch()
    opened(folder)
    convert = "Convert those that are pictures to JPEG or PNG."
    assert [record.getMessage() for record in caplog.records] == [
        f"Folders of {folder}/images that are no split: 'extra'.",
        f"Files left out of {folder}/images: 1 .jpg. {convert}",
        f"Files left out of {folder}/images/train: 2 .heic, 1 without an ending. {convert}",
        f"Files left out of {folder}/masks/train: 1 .csv. {convert}",
    ]
    caplog.clear()
    opened(folder, "validation")
    assert not caplog.records


def test_unpaired_files_are_named(folder):
    (folder / "masks" / "train" / "c.png").unlink()
    image, mask = folder / "images" / "train" / "c.jpg", folder / "masks" / "train" / "c.png"
    assert refused(folder) == f"Expected a mask for every image, found no {mask} for {image}. Add it or remove the image."
    (folder / "masks" / "train" / "a.png").unlink()
    assert "train/a.png for " in refused(folder)
    assert "train/a.jpg (and 1 more). Add it" in refused(folder)
    write(folder / "masks" / "val" / "lone.png", channels=1)
    lone = folder / "masks" / "val" / "lone.png"
    assert refused(folder, "validation") == (
        f"Expected an image for every mask, found none in {folder}/images/val for {lone}. Add it or remove the mask."
    )


def test_two_images_of_one_mask_are_refused(folder):
    write(folder / "images" / "train" / "a.png")
    assert f"the images 'a.jpg' and 'a.png' in {folder}/images/train have the same. Rename or remove one." in refused(folder)


def test_what_is_no_such_folder_is_refused(tmp_path, folder):
    with pytest.raises(UserError, match="Expected the folder of images, got None"):
        open_dataset("folder", "train", None, features=FEATURES)
    missing = tmp_path / "missing"
    assert refused(missing) == f"Expected a folder of images at {missing}, found none. Correct dataset.data_dir."
    (tmp_path / "other" / "train").mkdir(parents=True)
    assert refused(tmp_path / "other") == (
        f"Expected the folders 'images' and 'masks' or 'annotations' in {tmp_path}/other, found 'train'. Lay out the images "
        "and their masks like this."
    )
    (folder / "images" / "test").mkdir()
    assert f"in {folder}/images/test, found none. Add some." in refused(folder, "test")
    write(folder / "images" / "test" / "x.jpg")
    assert f"Expected the masks of {folder}/images/test in {folder}/masks/test, found no such folder" in refused(folder, "test")


def test_a_mask_that_vanished_is_named(folder):
    dataset = opened(folder)
    (folder / "masks" / "train" / "c.png").unlink()
    with pytest.raises(UserError, match=r"masks/train/c\.png, got: No such file"):
        dataset[1]


def test_it_trains_and_evaluates(folder):
    train = SegmentationTrainTransform(16, 3, short_side=8, long_side=32)
    batch = next(train_batches(opened(folder), train, batch_size=3, seed=0, start_step=0, num_steps=1))
    assert batch["image"].shape == (3, 16, 16, 3)
    assert set(np.unique(batch["label"])) <= {0, 1, 2, 255}
    dataset, view = opened(folder, "validation"), SegmentationEvalTransform(3, short_side=8, long_side=32, size_multiple=4)
    groups = [view.group(size) for size in image_sizes(dataset)]
    (batch,) = eval_batches(dataset, view, batch_size=2, groups=groups)
    assert batch["label_size"].tolist() == [[6, 8], [6, 8]]
    assert [set(np.unique(label[:6, :8])) for label in batch["label"]] == [{0}, {1}]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((6, 7), np.uint8), "Expected a mask as large as its upright image, 8x6 (width x height), got one of 7x6."),
        (
            np.full((6, 8), 3, np.uint8),
            "got 3. If 0 stands for no class and classes are numbered from 1, set ignore_zero=True.",
        ),
        (
            np.zeros((6, 8, 3), np.uint8),
            "Expected the mask to be an index map, one channel whose values are class numbers, got",
        ),
    ],
)
def test_a_mask_that_does_not_fit_is_named(folder, values, message, workers):
    path = folder / "masks" / "train" / "c.png"
    path.write_bytes(encode(values))
    options = {"batch_size": 3, "seed": 0, "start_step": 0, "num_steps": 2, "num_workers": workers, "skip_corrupt": True}
    where = f"{folder}/images/train/c.jpg with mask {path} of data set 'folder', split 'train': "
    with pytest.raises(UserError, match=re.escape(where) + ".*" + re.escape(message)):
        list(train_batches(opened(folder), SegmentationTrainTransform(16, 3), **options))
