import io
import pickle
import re

import numpy as np
import pytest
from PIL import Image

from paca_jax.command_line import command_line
from paca_jax.data import Dataset, EvalTransform, TrainTransform, eval_batches, open_dataset, train_batches
from paca_jax.errors import UserError
from tests.data.tiny import encode


def write(path, value=0, file_format="PNG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(np.full((4, 5, 3), value, np.uint8), file_format))


def fill(folder, counts):
    for name, count in counts.items():
        for i in range(count):
            write(folder / name / f"{i:03}.png", i)


def paths(dataset):
    return [dataset.where(i) for i in range(len(dataset))]


def labels(dataset):
    return [dataset[i]["label"] for i in range(len(dataset))]


@pytest.fixture
def single(tmp_path):
    fill(tmp_path, {"cat": 30, "ant": 100, "bee": 2, "dog": 1})
    return tmp_path


@pytest.fixture
def pair(tmp_path):
    fill(tmp_path / "train", {"cat": 3, "ant": 2})
    fill(tmp_path / "val", {"ant": 1, "cat": 2})
    return tmp_path


def test_classes_are_the_sorted_folders(single):
    dataset = open_dataset("folder", "all", str(single))
    assert isinstance(dataset, Dataset)
    assert (dataset.name, dataset.split, len(dataset)) == ("folder", "all", 133)
    assert dataset.class_names == ("ant", "bee", "cat", "dog")
    assert dataset.num_classes == 4
    assert labels(dataset) == [0] * 100 + [1] * 2 + [2] * 30 + [3]
    assert paths(dataset) == sorted(str(path) for path in single.rglob("*.png"))
    assert dataset[101] == {"image": (single / "bee" / "001.png").read_bytes(), "label": 1}
    assert type(dataset[0]["label"]) is int
    for index in (-1, 133):
        with pytest.raises(IndexError, match="has images 0 to 132"):
            dataset[index]


def test_a_tenth_of_each_class_is_held_out(single):
    train, held_out = (open_dataset("folder", split, str(single)) for split in ("train", "validation"))
    assert sorted(paths(train) + paths(held_out)) == paths(open_dataset("folder", "all", str(single)))
    assert train.class_names == held_out.class_names == ("ant", "bee", "cat", "dog")
    counts = np.bincount(labels(held_out), minlength=4)
    assert 4 <= counts[0] <= 18
    assert counts[1] == 1
    assert 1 <= counts[2] <= 8
    assert counts[3] == 0
    assert np.bincount(labels(train))[1:].tolist() == [1, 30 - counts[2], 1]


def test_the_number_held_out_is_logged_once(single, caplog):
    with caplog.at_level("INFO", logger="paca_jax"):
        for split in ("train", "validation", "all"):
            open_dataset("folder", split, str(single))
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"Holds out {len(open_dataset('folder', 'validation', str(single)))} of 133 images in {single} for ")
    assert "about a tenth of each class and at least one" in line


def test_the_share_held_out_is_a_tenth(tmp_path):
    for i in range(2000):
        (tmp_path / f"class{i % 2}" / "sub").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"class{i % 2}" / "sub" / f"{i}.jpg").touch()
    assert 150 < len(open_dataset("folder", "validation", str(tmp_path))) < 250


def test_the_hold_out_neither_moves_with_the_folder_nor_with_other_images(single, tmp_path_factory):
    held_out = open_dataset("folder", "validation", str(single))
    names = {path.removeprefix(str(single)) for path in paths(held_out)}
    other = tmp_path_factory.mktemp("other")
    fill(other, {"cat": 60, "ant": 100, "bee": 2, "dog": 1, "emu": 5})
    moved = {path.removeprefix(str(other)) for path in paths(open_dataset("folder", "validation", f"{other}/"))}
    assert names < moved
    assert all("/cat/" in name or "/emu/" in name for name in moved - names)


def test_every_split_of_small_classes_has_an_image(tmp_path):
    fill(tmp_path, {f"class{i:02}": 2 for i in range(40)})
    for split in ("train", "validation"):
        assert labels(open_dataset("folder", split, str(tmp_path))) == list(range(40))


def test_a_pair_of_folders_gives_the_splits(pair):
    train, validation = (open_dataset("folder", split, str(pair)) for split in ("train", "validation"))
    assert paths(train) == sorted(str(path) for path in (pair / "train").rglob("*.png"))
    assert paths(validation) == sorted(str(path) for path in (pair / "val").rglob("*.png"))
    assert labels(train) == [0, 0, 1, 1, 1]
    assert labels(validation) == [0, 1, 1]
    assert train.class_names == validation.class_names == ("ant", "cat")


def test_test_is_the_validation_set_where_there_is_no_other(pair):
    (pair / "val").rename(pair / "test")
    for split in ("validation", "test"):
        assert len(open_dataset("folder", split, str(pair))) == 3
    fill(pair / "validation", {"ant": 2, "cat": 2})
    assert len(open_dataset("folder", "validation", str(pair))) == 4
    assert len(open_dataset("folder", "test", str(pair))) == 3


def test_an_unlabeled_test_folder_is_no_obstacle(pair):
    write(pair / "test" / "000.png")
    assert len(open_dataset("folder", "validation", str(pair))) == 3
    with pytest.raises(UserError, match=r"Expected the same class folders .* has 'ant', 'cat'"):
        open_dataset("folder", "test", str(pair))


def test_only_visible_images_count_at_any_depth(tmp_path):
    fill(tmp_path, {"ant": 1, "bee": 1})
    for name in ("ant/deep/er/x.JPG", "ant/.hidden.png", "ant/.cache/y.png", "ant/._000.png", ".git/z.png"):
        write(tmp_path / name)
    for name in ("ant/notes.txt", "ant/Thumbs.db", "labels.csv"):
        (tmp_path / name).write_text("x")
    dataset = open_dataset("folder", "all", str(tmp_path))
    assert dataset.class_names == ("ant", "bee")
    assert paths(dataset) == [f"{tmp_path}/{name}" for name in ("ant/000.png", "ant/deep/er/x.JPG", "bee/000.png")]


def test_names_in_any_script_and_linked_classes(tmp_path):
    fill(tmp_path / "data", {"été 1": 2})
    fill(tmp_path / "elsewhere", {"猫": 3})
    (tmp_path / "data" / "猫").symlink_to(tmp_path / "elsewhere" / "猫")
    dataset = open_dataset("folder", "all", str(tmp_path / "data"))
    assert dataset.class_names == ("été 1", "猫")
    assert [Image.open(io.BytesIO(dataset[i]["image"])).getpixel((0, 0))[0] for i in range(5)] == [0, 1, 0, 1, 2]


@pytest.mark.parametrize("name", ["x\nerror: forged", "x\r\x1b[2Jy", "x\udcff\udcfe"])
def test_names_with_line_breaks_or_bytes_are_read_and_told_on_one_line(tmp_path, name, capsys):
    fill(tmp_path, {"ant": 2, name: 2})
    write(tmp_path / "ant" / f"{name}.png")
    dataset = open_dataset("folder", "all", str(tmp_path))
    assert dataset.class_names == ("ant", name)
    assert f"{tmp_path}/ant/{name}.png" in paths(dataset)
    assert len(list(eval_batches(dataset, EvalTransform(8), batch_size=1))) == 5
    (tmp_path / "ant" / f"{name}.png").write_bytes(b"no picture")
    with pytest.raises(SystemExit), command_line():
        list(eval_batches(dataset, EvalTransform(8), batch_size=1))
    (line,) = capsys.readouterr().err.splitlines()
    assert f"got a corrupt one at {tmp_path}/ant/{repr(name)[1:-1]}.png. Replace it" in line


def test_a_pickled_copy_is_light_and_keeps_the_list(tmp_path):
    fill(tmp_path, {"ant": 2})
    (tmp_path / "bee").mkdir()
    for i in range(3000):
        (tmp_path / "bee" / f"image_{i:05}.jpeg").touch()
    dataset = open_dataset("folder", "all", str(tmp_path))
    pickled = pickle.dumps(dataset)
    assert len(pickled) < 3002 * 45
    write(tmp_path / "ant" / "0000.png")  # comes to the folder while workers run
    copy = pickle.loads(pickled)
    assert paths(copy) == paths(dataset)
    assert copy[1] == dataset[1]


@pytest.mark.parametrize(
    ("layout", "split", "message"),
    [
        ("single", "val", "Expected one of the splits 'train', 'validation', 'all' of the folder .*, got 'val'"),
        ("single", "train[:90%]", r"got 'train\[:90%\]'. Correct the split"),
        ("pair", "all", "Expected one of the splits 'train', 'validation' of the folder .*, got 'all'"),
        ("pair", "test", "got 'test'"),
    ],
)
def test_unknown_splits_are_refused(layout, split, message, request):
    with pytest.raises(UserError, match=message):
        open_dataset("folder", split, str(request.getfixturevalue(layout)))


def refused(data_dir, split="train"):
    with pytest.raises(UserError) as caught:
        open_dataset("folder", split, data_dir if data_dir is None else str(data_dir))
    return str(caught.value)


def test_what_is_no_folder_of_classes_is_refused(tmp_path):
    assert refused(None) == "Expected the folder of images, got None. Set dataset.data_dir."
    missing = tmp_path / "missing"
    assert refused(missing) == f"Expected a folder of images at {missing}, found none. Correct dataset.data_dir."
    write(tmp_path / "a.png")
    assert refused(tmp_path / "a.png").startswith(f"Expected a folder of images at {tmp_path / 'a.png'}, found none.")
    assert f"Expected a folder for each of two or more classes in {tmp_path}, found none." in refused(tmp_path)
    fill(tmp_path / "train", {"ant": 2, "bee": 2})
    assert "found 'train'. Give a folder that holds class folders" in refused(tmp_path)
    (tmp_path / "val").mkdir()
    assert f"same class folders in {tmp_path}/train and {tmp_path}/val, only one of them has 'ant', 'bee'" in refused(tmp_path)


def test_classes_that_differ_are_named(pair):
    fill(pair / "train", {"emu": 1})
    fill(pair / "val", {"fox": 1})
    for split in ("train", "validation"):
        assert "only one of them has 'emu', 'fox'. Make them alike." in refused(pair, split)


def test_a_class_without_images_is_named(single):
    (single / "emu").mkdir()
    (single / "emu" / "readme.txt").touch()
    message = refused(single)
    assert message.startswith("Expected images (.avif, .bmp, ")
    assert f"in the class folder {single}/emu, found 1 .txt. Add some or remove the folder." in message


def test_nothing_to_hold_out_is_reported(tmp_path):
    fill(tmp_path, {"ant": 1, "bee": 1})
    assert len(open_dataset("folder", "train", str(tmp_path))) == 2
    assert "Expected a class of two or more images in" in refused(tmp_path, "validation")


def test_other_features_are_refused(single):
    for features in (("image", "depth"), ("image", "label", "mask")):
        with pytest.raises(
            UserError, match="Expected features of the data set 'folder', 'image' and 'label' or 'image' and 'mask'"
        ):
            open_dataset("folder", "all", str(single), features=features)


def test_an_image_that_vanished_is_named(pair):
    dataset = open_dataset("folder", "train", str(pair))
    (pair / "train" / "ant" / "001.png").unlink()
    with pytest.raises(UserError, match=r"train/ant/001\.png, got: No such file"):
        dataset[1]


# Smooth, so that compression keeps it.
COLOR = np.asarray(Image.fromarray(np.random.default_rng(2).integers(0, 256, (4, 5, 3), dtype=np.uint8)).resize((50, 40)))


def saved(image, file_format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def varieties():
    """File name -> its bytes, of images that people have in their folders."""
    image = Image.fromarray(COLOR)
    gray, alpha = image.convert("L"), Image.fromarray(np.full((40, 50), 128, np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    return {
        "palette.png": saved(image.quantize(64)),
        "palette.gif": saved(image.quantize(64), "GIF"),
        "palette_transparent.png": saved(image.quantize(64), transparency=3),
        "cmyk.jpg": saved(image.convert("CMYK"), "JPEG"),
        "gray.jpg": saved(gray, "JPEG"),
        "gray_alpha.png": saved(Image.merge("LA", [gray, alpha])),
        "color_alpha.png": saved(Image.merge("RGBA", [*image.split(), alpha])),
        "turned.jpg": saved(image, "JPEG", exif=turned),
        "deep_gray.png": saved(Image.fromarray(COLOR[:, :, 0].astype(np.uint16) * 257)),
        "deep_gray.tif": saved(Image.fromarray(COLOR[:, :, 0].astype(np.uint16) * 257), "TIFF"),
        "bits.png": saved(gray.convert("1")),
        "wrong_name.png": saved(image, "JPEG"),
        "photo.webp": saved(image, "WEBP"),
        "photo.bmp": saved(image, "BMP"),
        "photo.ppm": saved(image, "PPM"),
    }


@pytest.fixture
def mixed(tmp_path):
    """A folder of two classes, one of many kinds of files."""
    write(tmp_path / "other" / "000.png")
    (tmp_path / "mixed").mkdir()
    for name, data in varieties().items():
        (tmp_path / "mixed" / name).write_bytes(data)
    return tmp_path


@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_file_is_read(mixed, channels):
    dataset = open_dataset("folder", "all", str(mixed))
    transform = TrainTransform(16, channels, rand_operations=2, color_jitter=0.4)
    batch = next(train_batches(dataset, transform, batch_size=len(dataset), seed=0, start_step=0, num_steps=1))
    assert batch["image"].shape == (len(varieties()) + 1, 16, 16, channels)
    assert batch["image"].dtype == np.uint8
    assert batch["valid"].all()


def test_every_kind_of_file_shows_the_right_pixels(mixed):
    dataset = open_dataset("folder", "all", str(mixed))
    transform = EvalTransform(40, crop=1.0)
    views = {dataset.where(i).rsplit("/", 1)[1]: transform(dataset[i])["image"].astype(int) for i in range(len(varieties()))}
    assert set(views) == set(varieties())
    exact = COLOR[:, 5:45].astype(int)
    luma = np.asarray(Image.fromarray(COLOR).convert("L"))[:, 5:45, None].astype(int)
    for name in ("photo.bmp", "photo.ppm"):
        np.testing.assert_array_equal(views[name], exact)
    for name in ("deep_gray.png", "deep_gray.tif"):
        np.testing.assert_array_equal(views[name], np.broadcast_to(exact[:, :, :1], exact.shape))
    assert np.abs(views["color_alpha.png"] - (exact * 128 + 255 * 127) / 255).max() <= 1
    assert np.abs(views["gray_alpha.png"] - (luma * 128 + 255 * 127) / 255).max() <= 1
    np.testing.assert_array_equal(views["palette.png"], views["palette.gif"])
    opaque = (views["palette_transparent.png"] == views["palette.png"]).all(-1)
    assert 0.5 < opaque.mean() < 1
    assert (views["palette_transparent.png"][~opaque] == 255).all()
    assert np.abs(views["palette.png"] - exact).mean() < 12
    for name in ("cmyk.jpg", "wrong_name.png", "photo.webp"):
        assert np.abs(views[name] - exact).mean() < 4, name
    assert np.abs(views["gray.jpg"] - luma).mean() < 2
    assert set(np.unique(views["bits.png"])) == {0, 255}
    assert np.abs(views["turned.jpg"] - np.rot90(COLOR, -1)[5:45]).mean() < 4


DAMAGED = {
    "empty": b"",
    "truncated_png": saved(Image.fromarray(COLOR))[:300],
    "truncated_jpeg": saved(Image.fromarray(COLOR), "JPEG")[:700],
    "text": b"<html>404 not found</html>",
}


@pytest.mark.parametrize(("damage", "workers"), [*((damage, 0) for damage in DAMAGED), ("empty", 1)])
def test_a_damaged_image_is_named_or_masked(pair, damage, workers):
    path = pair / "train" / "cat" / "001.png"
    path.write_bytes(DAMAGED[damage])
    dataset = open_dataset("folder", "train", str(pair))
    with pytest.raises(UserError, match=re.escape(f"got a corrupt one at {path}. Replace it")):
        list(eval_batches(dataset, EvalTransform(8), batch_size=3, num_workers=workers))
    batches = list(eval_batches(dataset, EvalTransform(8), batch_size=3, num_workers=workers, skip_corrupt=True))
    assert np.concatenate([batch["valid"] for batch in batches]).tolist() == [1, 1, 1, 0, 1, 0]
