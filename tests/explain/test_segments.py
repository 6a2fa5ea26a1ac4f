import io

import numpy as np
import pytest
from PIL import Image

from paca_jax import explain
from paca_jax.errors import UserError

NAMES = ["background", "apple", "bicycle", "a class with a name that is far too long for the legend", "dog"]


def picture(width=120, height=100, mode="RGB"):
    coarse = np.random.default_rng(0).integers(0, 255, (5, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def blocks(width=120, height=100):
    """Left half background, right half apple above dog."""
    labels = np.zeros((height, width), np.int32)
    labels[: height // 2, width // 2 :] = 1
    labels[height // 2 :, width // 2 :] = 4
    return labels


def has(image, color, tolerance=0):
    return (np.abs(np.asarray(image).reshape(-1, 3).astype(int) - color).max(-1) <= tolerance).sum()


def to_lab(colors):
    """Another perceptual color space than the palette's own."""
    from skimage.color import rgb2lab

    return rgb2lab(colors[None])[0]


@pytest.mark.parametrize(("count", "least"), [(11, 25), (21, 15), (150, 4), (255, 2)])
def test_colors_are_distinguishable(count, least):
    colors = explain.palette(count)
    assert colors.shape == (count, 3)
    assert colors.dtype == np.uint8
    lab = to_lab(colors)
    distances = np.linalg.norm(lab[:, None] - lab, axis=-1)[np.triu_indices(count, 1)]
    assert distances.min() > least


def test_the_first_colors_do_not_depend_on_the_number_of_classes():
    np.testing.assert_array_equal(explain.palette(255)[:7], explain.palette(7))
    assert explain.palette(1).max() < 100  # the background is not bright
    explain.palette(3)[:] = 0
    assert explain.palette(3).any()


@pytest.mark.parametrize("count", [0, 256])
def test_other_numbers_of_classes_are_rejected(count):
    with pytest.raises(UserError, match=f"Expected num_classes to be a whole number from 1 to 255, got {count}"):
        explain.palette(count)


@pytest.mark.parametrize("count", [5, 255])
def test_a_mask_file_keeps_the_labels(count):
    labels = blocks()
    labels[:5] = 255
    labels[5, 0] = count - 1
    image = Image.open(io.BytesIO(explain.mask_png(labels, count)))
    assert (image.format, image.mode) == ("PNG", "P")
    np.testing.assert_array_equal(np.asarray(image), labels)
    colors = np.asarray(image.convert("RGBA"))
    assert (colors[labels == 255] == (0, 0, 0, 0)).all()
    for label in (0, 1, count - 1):
        assert (colors[labels == label] == (*explain.palette(count)[label], 255)).all()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.full((2, 2), 5), "labels from 0 to 4, or 255 for none, got 5"),
        (np.full((2, 2), -1), "got -1"),
        (np.full((2, 2), 256 + 3), "got 259"),
        (np.zeros((2, 2, 1), int), r"labels to be whole numbers of shape \(H, W\), got int64 of shape \(2, 2, 1\)"),
        (np.zeros((2, 2)), "labels to be whole numbers of shape .* got float64"),
    ],
)
def test_wrong_labels_are_rejected(labels, message):
    with pytest.raises(UserError, match=message):
        explain.mask_png(labels, 5)
    with pytest.raises(UserError, match=message):
        explain.segment_overlay(Image.new("RGB", (2, 2)), labels, NAMES)
    with pytest.raises(UserError, match=message):
        explain.segment_overlay(Image.new("RGB", (2, 2)), np.zeros((2, 2), int), NAMES, labels)


def test_classes_are_colored_over_the_gray_picture():
    white = Image.new("RGB", (120, 100), (255, 0, 0))
    labels = blocks()
    drawn = explain.segment_overlay(white, labels, NAMES)
    assert drawn.mode == "RGB"
    gray = np.asarray(white.convert("L"))[0, 0]
    colors = explain.palette(len(NAMES)).astype(float)
    areas = {label: has(drawn, 0.38 * gray + 0.62 * colors[label], 1) for label in (0, 1, 2, 4)}
    assert areas[2] == 0
    assert areas[0] == pytest.approx(2 * areas[1], rel=0.05)
    assert areas[1] == pytest.approx(areas[4], rel=0.05)
    nothing = explain.segment_overlay(white, np.full((100, 120), 255), NAMES)
    assert has(nothing, gray) > 50_000


def test_the_truth_is_drawn_next_to_the_labels():
    alone, beside = (
        explain.segment_overlay(picture(), blocks(), NAMES),
        explain.segment_overlay(picture(), blocks(), NAMES, blocks()),
    )
    assert beside.width > alone.width + 300
    other = np.roll(blocks(), 20, 1)
    assert explain.segment_overlay(picture(), blocks(), NAMES, other) != beside
    explain.segment_overlay(picture(), blocks(), NAMES, np.full((100, 120), 255))  # nothing to count


def test_the_legend_lists_classes_by_area(drawn_texts):
    labels, truth = blocks(), blocks()
    labels[:20, :60] = 3
    truth[:, :10] = 2
    truth[:, 60:] = 255
    explain.segment_overlay(picture(), labels, NAMES, truth)
    legend = [words for words in drawn_texts if words in NAMES or "…" in words or words.endswith("%")]
    assert legend[0::2] == ["background", "apple", "dog", legend[6], "bicycle"]
    assert legend[6].startswith("a class with")
    assert legend[1::2] == ["40.0%", "25.0%", "25.0%", "10.0%", "0.0%"]
    assert "66.7% of the pixels right" in drawn_texts

    drawn_texts.clear()
    many = np.arange(120 * 100).reshape(100, 120) % 20
    explain.segment_overlay(picture(), many, [f"class {i}" for i in range(20)])
    assert sum(words.startswith("class") for words in drawn_texts) == 12
    assert "and 8 more" in drawn_texts


@pytest.mark.parametrize(("size", "longer"), [((20, 10), 320), ((400, 300), 400), ((300, 2000), 640)])
def test_small_pictures_are_enlarged_and_large_ones_reduced(size, longer):
    red = Image.new("RGB", size, (255, 0, 0))
    drawn = explain.segment_overlay(red, np.zeros(size[::-1], int), NAMES)
    where = np.argwhere((np.asarray(drawn) == (255, 0, 0)).all(-1))
    shape = np.ptp(where, axis=0) + 1
    assert max(shape) == longer
    np.testing.assert_allclose(shape / longer, np.array(size[::-1]) / max(size), atol=0.01)


def test_a_sheet_has_a_row_for_each_picture_and_one_legend():
    row = explain.Segments(picture(), blocks(), blocks())
    one = explain.segment_sheet([row], NAMES)
    three = explain.segment_sheet([row, explain.Segments(picture(60, 100), blocks(60, 100)), row], NAMES)
    assert three.width == one.width
    assert three.height > one.height + 2 * 260
    assert explain.segment_sheet([explain.Segments(picture(mode="L"), blocks())], NAMES).mode == "RGB"
    with pytest.raises(UserError, match="at least one picture"):
        explain.segment_sheet([], NAMES)


def test_labels_of_another_size_are_rejected():
    with pytest.raises(UserError, match="the picture's 100 x 120 pixels, got 120 x 100"):
        explain.segment_overlay(picture(), blocks().T, NAMES)
