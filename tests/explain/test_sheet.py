import flax.linen as nn
import numpy as np
import pytest
from PIL import Image

import paca_jax
from paca_jax import explain
from paca_jax.data import IMAGENET_CLASSES
from paca_jax.errors import UserError
from tests.explain.small import NAMES, nano, normalized, smooth
from tests.shapes import unchecked


def sheet(count=2, **options):
    pictures = smooth(count)
    return explain.cluster_sheet(*nano(), pictures, normalized(pictures), NAMES, **options)


def test_the_sheet_grows_with_its_images_and_heat_maps():
    small, tall, wide = sheet(1), sheet(3), sheet(1, clusters_per_image=6)
    assert small.mode == "RGB"
    assert tall.width == small.width
    assert wide.height == small.height
    assert tall.height > small.height + 2 * 150
    assert wide.width > small.width + 2 * 150


def test_true_labels_are_drawn():
    plain, right_or_wrong = np.asarray(sheet()), np.asarray(sheet(labels=[1, 1]))
    assert plain.shape == right_or_wrong.shape
    assert (plain != right_or_wrong).any()
    assert (right_or_wrong != np.asarray(sheet(labels=[2, 2]))).any()


def test_another_block_gives_other_heat_maps():
    both, first, second = sheet(1), sheet(1, block="stage1/block0"), sheet(1, block="stage2/block0")
    assert first.size == second.size
    assert first != second
    assert both.height > first.height + 150


def test_images_of_another_shape_keep_their_proportions():
    pictures = smooth(1, (40, 80))
    drawn = explain.cluster_sheet(*nano(), pictures, normalized(pictures, (32, 64)), NAMES)
    assert drawn.height < sheet(1).height


def test_a_crop_is_drawn_as_the_model_sees_it():
    model, variables = nano(crop=0.5)
    ring = Image.new("RGB", (64, 64), (255, 0, 0))
    ring.paste((0, 0, 255), (16, 16, 48, 48))
    drawn = explain.cluster_sheet(model, variables, [ring], normalized([ring.crop((16, 16, 48, 48))]), NAMES)
    pixels = np.asarray(drawn).reshape(-1, 3)
    assert (pixels == (0, 0, 255)).all(-1).sum() > 20_000
    assert not (pixels == (255, 0, 0)).all(-1).any()


def test_gray_models_take_gray_pictures():
    images = np.zeros((1, 32, 32, 1), np.float32)
    assert explain.cluster_sheet(*nano(image_channels=1), [smooth(1)[0].convert("L")], images, NAMES).mode == "RGB"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block": "stage9/block0"}, r"'stage9/block0'; the nearest are stage2/block0, stage1/block0\. Choose one"),
        ({"labels": [0]}, "2 images and 1 labels"),
        ({"labels": [0, 4]}, r"from 0 to 3, got \[0, 4\]"),
        ({"labels": [0, -1]}, "from 0 to 3"),
    ],
)
def test_wrong_options_are_rejected(options, message):
    with pytest.raises(UserError, match=message):
        sheet(**options)


def test_numbers_that_do_not_agree_are_rejected():
    pictures = smooth(2)
    with pytest.raises(UserError, match="2 pictures and 1 images"):
        explain.cluster_sheet(*nano(), pictures, normalized(pictures[:1]), NAMES)
    with pytest.raises(UserError, match="4 classes, got 3"):
        explain.cluster_sheet(*nano(), pictures, normalized(pictures), NAMES[:3])
    with pytest.raises(UserError, match="at least one picture"):
        explain.cluster_sheet(*nano(), [], np.zeros((0, 32, 32, 3)), NAMES)


def test_models_without_clusters_or_classes_are_rejected():
    pictures = smooth(1)
    with pytest.raises(UserError, match="model with clusters"):
        explain.cluster_sheet(*nano(clusters=(0, 0)), pictures, normalized(pictures), NAMES)
    with pytest.raises(UserError, match="model with a classifier"):
        explain.cluster_sheet(*nano(num_classes=0), pictures, normalized(pictures), NAMES)


@pytest.fixture
def photo(tmp_path):
    """A file of a picture that lies on its side, as its EXIF tag says."""
    exif = Image.Exif()
    exif[0x0112] = 6
    smooth(1, (40, 80))[0].save(tmp_path / "photo.png", exif=exif)
    return tmp_path / "photo.png"


def test_one_call_draws_what_preprocess_and_cluster_sheet_do(photo):
    model, variables = nano()
    upright = smooth(1, (40, 80))[0].transpose(Image.Transpose.ROTATE_270)
    images = paca_jax.preprocess(photo, model)[None]
    expected = explain.cluster_sheet(model, variables, [upright], images, NAMES)
    for picture in (photo, str(photo), photo.read_bytes(), Image.open(photo), np.asarray(upright)):
        assert explain.sheet(model, variables, picture, NAMES) == expected
    both = explain.sheet(model, variables, [photo, *smooth(1)], NAMES, clusters_per_image=2)
    assert both.height > expected.height + 300
    assert both.width < expected.width


def test_without_names_classes_are_those_of_imagenet_or_numbers(photo, drawn_texts, caplog):
    explain.sheet(*nano(), photo)
    assert any(text.startswith("class ") for text in drawn_texts)
    explain.sheet(*nano(num_classes=1000), photo)
    place = drawn_texts.index("classes by probability", drawn_texts.index("classes by probability") + 1)
    assert any(name.startswith(drawn_texts[place + 2].rstrip(".…")) for name in IMAGENET_CLASSES)
    assert "takes the names of ImageNet-1k" in caplog.text


def test_one_call_takes_gray_models(photo):
    assert explain.sheet(*nano(image_channels=1), photo, NAMES).mode == "RGB"


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        ("absent.jpg", "absent.jpg"),
        ([], "at least one picture"),
        (3, "pictures to be a list or a tuple, got int"),
        ([3], "got int"),
    ],
)
def test_pictures_that_cannot_be_read_are_told(pictures, message):
    with unchecked(), pytest.raises((UserError, FileNotFoundError), match=message):
        explain.sheet(*nano(), pictures, NAMES)


def test_other_models_are_told():
    with pytest.raises(UserError, match=r"a classifier, segmentor or detector, got Dense.*create_model or load"):
        explain.sheet(nn.Dense(3), {}, smooth(1), NAMES)
