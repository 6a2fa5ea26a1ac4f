import io

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from paca_jax import explain
from paca_jax.errors import UserError
from tests.explain.small import NAMES, nano, normalized, smooth

PICTURE = Image.new("RGB", (8, 6), (90, 120, 30))
LABELS = np.zeros((6, 8), int)
HEAT = np.arange(6.0).reshape(2, 3)
MAPS = np.full((2, 3, 5), 1 / 15, np.float32)
NOTHING = explain.Marked(np.zeros((0, 4)), np.zeros(0, int))


def damaged():
    """A picture whose header can be read and whose pixels cannot."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.open(io.BytesIO(explain.to_png(Image.fromarray(pixels))[:-60]))


DRAWN = {
    "overlay": lambda picture: explain.overlay(picture, HEAT),
    "segment_overlay": lambda picture: explain.segment_overlay(picture, LABELS, NAMES),
    "detection_overlay": lambda picture: explain.detection_overlay(picture, NOTHING, NAMES),
    "cluster_sheet": lambda picture: explain.cluster_sheet(*nano(), [picture], normalized(smooth(1)), NAMES),
    "to_png": explain.to_png,
}


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (None, "Expected a picture as a Pillow image, got NoneType"),
        (np.zeros((6, 8, 3), np.uint8), "Expected a picture as a Pillow image, got ndarray"),
        ("a.png", "Expected a picture as a Pillow image, got str"),
        (Image.new("RGB", (0, 6)), "Expected a picture with pixels, got one of 0x6"),
        (damaged, "Expected an intact picture, Pillow cannot decode it"),
    ],
)
def test_what_is_no_picture_is_rejected(draw, picture, message):
    with pytest.raises(UserError, match=message):
        draw(picture() if callable(picture) else picture)


@pytest.mark.parametrize("draw", [DRAWN[name] for name in ("overlay", "segment_overlay", "detection_overlay", "cluster_sheet")])
def test_pictures_of_every_mode_are_drawn(draw):
    for mode in ("1", "L", "P", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "LA", "I;16"):
        assert draw(Image.new(mode, (8, 6))).mode == "RGB"
    with pytest.raises(UserError, match="Expected a picture of gray or color, got Pillow's mode 'La'"):
        draw(Image.new("La", (8, 6)))


def test_modes_that_png_does_not_have_are_rejected():
    with pytest.raises(UserError, match="of a mode that PNG has, got 'CMYK'"):
        explain.to_png(PICTURE.convert("CMYK"))


@pytest.mark.parametrize(
    ("heat", "message"),
    [
        (None, r"Expected heat to be real numbers of shape \(H, W\), got NoneType"),
        ("hot", "got str"),
        ([[1, 2], [3]], "got list"),
        (HEAT[0], r"got float64 of shape \(3,\)"),
        (HEAT + 1j, r"got complex128 of shape \(2, 3\)"),
        (np.zeros((0, 0)), r"got float64 of shape \(0, 0\)"),
        (np.full((2, 2), np.nan), "Expected heat of finite numbers, got nan to nan"),
        ([[np.inf, 1]], "Expected heat of finite numbers, got 1.0 to inf"),
        ([[-3e38, 3e38]], "Expected heat of finite numbers"),
        ([[0, 1e300]], "Expected heat of finite numbers"),
    ],
)
def test_wrong_heat_is_rejected(heat, message):
    with pytest.raises(UserError, match=message):
        explain.overlay(PICTURE, heat)


def test_heat_may_have_any_real_type():
    drawn = np.asarray(explain.overlay(PICTURE, HEAT))
    for heat in (HEAT.tolist(), HEAT.astype(int), jnp.asarray(HEAT, jnp.bfloat16), jnp.asarray(HEAT, jnp.float16)):
        np.testing.assert_array_equal(explain.overlay(PICTURE, heat), drawn)


@pytest.mark.parametrize("count", ["x", None, 2.0, True, 10**12])
def test_numbers_of_classes_are_whole(count):
    with pytest.raises(UserError, match="Expected num_classes to be a whole number from 1 to 255"):
        explain.palette(count)
    with pytest.raises(UserError, match="Expected num_classes to be a whole number from 1 to 255"):
        explain.mask_png(LABELS, count)


@pytest.mark.parametrize("labels", [None, "labels", [[0], [0, 1]], np.zeros((0, 5), int), [[None]]])
def test_labels_are_whole_numbers_of_pixels(labels):
    with pytest.raises(UserError, match=r"Expected labels to be whole numbers of shape \(H, W\), got "):
        explain.mask_png(labels, 3)


@pytest.mark.parametrize(
    ("draw", "arguments"),
    [
        (explain.segment_overlay, (PICTURE, LABELS)),
        (explain.detection_overlay, (PICTURE, NOTHING)),
        (explain.cluster_sheet, (*nano(), smooth(1), normalized(smooth(1)))),
    ],
)
@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("s", "Expected class_names to be a list or a tuple, got str"),
        (None, "Expected class_names to be a list or a tuple, got NoneType"),
        (4, "Expected class_names to be a list or a tuple, got int"),
        ([1, 2, 3, 4], r"Expected class_names to be a tuple of values, each a \w+, got "),
    ],
)
def test_class_names_are_several_texts(draw, arguments, names, message):
    with pytest.raises(UserError, match=message):
        draw(*arguments, names)
    assert draw(*arguments, np.array(NAMES)) == draw(*arguments, NAMES)


@pytest.mark.parametrize("count", [0, 256])
def test_segments_have_1_to_255_class_names(count):
    with pytest.raises(UserError, match=f"Expected class_names of 1 to 255 classes, got {count}"):
        explain.segment_overlay(PICTURE, LABELS, [f"class {index}" for index in range(count)])


@pytest.mark.parametrize("sheet", [explain.segment_sheet, explain.detection_sheet])
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (None, "Expected rows to be a list or a tuple, got NoneType"),
        ([None], "Expected a row to be a (Segments|Found), got None"),
        ([(PICTURE, LABELS)], "Expected a row to be a (Segments|Found), got "),
        ((), "at least one picture"),
    ],
)
def test_wrong_rows_are_rejected(sheet, rows, message):
    with pytest.raises(UserError, match=message):
        sheet(rows, NAMES)


@pytest.mark.parametrize("objects", [None, np.zeros((1, 4)), {"boxes": [], "labels": []}])
def test_objects_are_marked(objects):
    with pytest.raises(UserError, match="Expected objects to be a Marked, got "):
        explain.detection_overlay(PICTURE, objects, NAMES)
    if objects is not None:
        with pytest.raises(UserError, match="Expected truth to be a Marked, got "):
            explain.detection_overlay(PICTURE, NOTHING, NAMES, objects)


@pytest.mark.parametrize("assignments", [None, "x", MAPS, np.zeros((1, 2, 0, 5)), np.zeros((1, 2, 3, 5), complex)])
def test_wrong_assignments_are_rejected(assignments):
    with pytest.raises(UserError, match=r"Expected assignments to be real numbers of shape \(B, M, H, W\), got "):
        explain.cluster_strengths(assignments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, 3), r"Expected assignment to be real numbers of shape \(M, H, W\), got NoneType"),
        ((MAPS[:0], 3), r"Expected assignment to be real numbers of shape \(M, H, W\), got float32 of shape \(0, 3, 5\)"),
        ((MAPS, -1), "Expected count to be a whole number from 0"),
        ((MAPS, 1.5), "Expected count to be a whole number from 0"),
        ((MAPS, 3, "x"), "Expected similarity to be a number from -1 to 2, got 'x'"),
        ((MAPS, 3, np.nan), "Expected similarity to be a number from -1 to 2, got nan"),
        ((MAPS, 3, 0.8, None), "Expected least_strength to be a number from -1000 to 1000, got None"),
    ],
)
def test_wrong_arguments_of_the_selection_are_rejected(arguments, message):
    with pytest.raises(UserError, match=message):
        explain.strongest_clusters(*arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": None}, "Expected a classifier, segmentor or detector, got NoneType"),
        ({"model": "pacavit_nano"}, "Expected a classifier, segmentor or detector, got str"),
        ({"variables": None}, "Expected variables as a dict, got NoneType"),
        ({"variables": {}}, "The weights do not fit the model. missing"),
        (
            {"variables": {"params": {"head": {"kernel": np.zeros((3, 4))}}}},
            r"kernel \(expected \(8, 4\), found \(3, 4\)\)",
        ),
        ({"variables": {"params": {"head": "kernel", 1: None}}}, "The weights do not fit the model. missing"),
        ({"pictures": PICTURE}, "Expected pictures to be a list or a tuple, got Image"),
        ({"images": None}, r"Expected images as an array of shape \(batch, height, width, 3\), got NoneType"),
        ({"images": np.zeros((1, 32, 32, 1), np.float32)}, r"Expected images of shape \(batch, height, width, 3\), got"),
        ({"images": np.zeros((1, 32, 32, 3), np.uint8)}, "Expected normalized images"),
        ({"labels": 3}, r"Expected labels to be whole numbers of shape \(B,\), got int64 of shape \(\)"),
        ({"labels": ["cat"]}, r"Expected labels to be whole numbers of shape \(B,\), got list"),
        ({"clusters_per_image": 0}, "Expected clusters_per_image to be a whole number from 1 to 100, got 0"),
        ({"clusters_per_image": -1}, "Expected clusters_per_image to be a whole number from 1 to 100, got -1"),
        ({"clusters_per_image": 10**9}, "Expected clusters_per_image to be a whole number from 1 to 100, got 1000000000"),
        ({"block": 3}, r"Expected block to be a \w+ or None, got 3"),
    ],
)
def test_wrong_arguments_of_a_cluster_sheet_are_rejected(change, message):
    model, variables = nano()
    given = {"model": model, "variables": variables, "pictures": smooth(1), "images": normalized(smooth(1))}
    with pytest.raises(UserError, match=message):
        explain.cluster_sheet(**{**given, "class_names": NAMES, **change})


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_model_that_diverged_has_a_sheet_without_heat_maps(drawn_texts):
    model, variables = nano()
    images = np.full((1, 32, 32, 3), np.nan, np.float32)
    assert explain.cluster_sheet(model, variables, smooth(1), images, NAMES, order="sharpness").mode == "RGB"
    assert "No cluster singles out a part of this image." in drawn_texts
    with pytest.raises(UserError, match="finite outputs of the model"):
        explain.cluster_sheet(model, variables, smooth(1), images, NAMES)


@pytest.mark.parametrize("name", ["x\nerror: forged", "a\tb\0c", "x\udcff"])
def test_names_are_drawn_on_one_line(name, drawn_texts):
    objects = explain.Marked(np.array([[1, 1, 300, 200]]), np.array([0]))
    large, (model, variables) = Image.new("RGB", (320, 240)), nano(num_classes=2)
    explain.segment_overlay(large, np.zeros((240, 320), int), [name, "bee"])
    explain.detection_overlay(large, objects, [name, "bee"])
    explain.cluster_sheet(model, variables, smooth(1), normalized(smooth(1)), [name, name], labels=[0])
    assert sum(repr(name)[1:-1].startswith(text.rstrip("…")) for text in drawn_texts if text) >= 4
    assert all(text.isprintable() for text in drawn_texts)
