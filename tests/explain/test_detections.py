import numpy as np
import pytest
from PIL import Image

from paca_jax import explain
from paca_jax.errors import UserError

NAMES = ["apple", "bicycle", "cat", "a class with a name that is far too long for any label or legend", "dog"]
SIZE = (320, 240)  # is drawn without resizing


def picture(size=SIZE, color=(90, 90, 90)):
    return Image.new("RGB", size, color)


def marked(boxes, labels, scores=None, size=SIZE):
    """Objects that fill their boxes."""
    masks = np.zeros((len(boxes), size[1], size[0]), bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    return explain.Marked(np.array(boxes, float).reshape(-1, 4), np.array(labels, int), scores and np.array(scores), masks)


def cells(sheet, columns, size=SIZE):
    """The pictures of a sheet's first row, without captions and margins."""
    left, top = 36, 62
    pixels = np.asarray(sheet).astype(int)
    return [pixels[top : top + size[1], x : x + size[0]] for x in (left + k * (size[0] + 14) for k in range(columns))]


def test_masks_have_the_colors_of_their_classes_and_white_outlines_between_them():
    masks = marked([(40, 60, 100, 200), (100, 60, 160, 200), (200, 60, 280, 200)], [1, 1, 4], [0.9, 0.8, 0.7])
    objects = masks._replace(boxes=masks.boxes + np.array([-9, -9, 9, 9]))
    before, after = cells(explain.detection_overlay(picture(), objects, NAMES), 2)
    assert (before == 90).all()
    first, second, other = (after[130, x] for x in (70, 130, 240))
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - other).max() > 40
    assert np.ptp(first) > 20
    between = after[130, 85:116]
    assert (between.min(-1) > 230).sum() in (1, 2)
    assert (between[[0, -1]] == first).all()
    assert (after[230:] == 90).all()


def test_small_objects_lie_over_large_ones_whatever_their_order():
    boxes, labels = [(40, 40, 300, 220), (100, 90, 200, 180)], [0, 2]
    large_first, small_first = (
        cells(explain.detection_overlay(picture(), marked(boxes[::step], labels[::step]), NAMES), 2)[1] for step in (1, -1)
    )
    np.testing.assert_array_equal(large_first[100:170, 110:190], small_first[100:170, 110:190])
    alone = cells(explain.detection_overlay(picture(), marked(boxes[1:], labels[1:]), NAMES), 2)[1]
    np.testing.assert_array_equal(large_first[140, 150], alone[140, 150])


def test_boxes_are_drawn_without_masks_too():
    objects = marked([(40, 60, 200, 200)], [2], [0.9])._replace(masks=None)
    after = cells(explain.detection_overlay(picture(), objects, NAMES), 2)[1]
    assert (after[100:160, 80:160] == 90).all()
    changed = np.argwhere((after != 90).any(-1))
    assert changed[:, 1].min() == pytest.approx(40, abs=1)
    assert changed[:, 0].max() == pytest.approx(199, abs=1)


@pytest.mark.parametrize(
    "box", [(0, 0, 320, 240), (0, 0, 4, 4), (316, 236, 320, 240), (-50, -9, 500, 300), (150, 239, 151, 240)]
)
def test_labels_stay_inside_the_picture(box, drawn_texts):
    objects = explain.Marked(np.array([box], float), np.array([3]), np.array([0.873]))
    sheet = explain.detection_overlay(picture(), objects, NAMES)
    (label,) = (words for words in drawn_texts if words.endswith("87%"))
    assert label.startswith("a class with a name")
    pixels = np.asarray(sheet)[:, : 36 + 320 + 14 + 320 + 14]
    outside = np.ones(pixels.shape[:2], bool)
    for x in (36, 36 + 320 + 14):
        outside[62 : 62 + 240, x : x + 320] = False
    outside[:62] = False  # titles
    assert (pixels[outside] == 255).all()


def test_labels_do_not_overlap_and_the_highest_scores_come_first(drawn_texts):
    objects = marked([(100, 100, 130, 120)] * 40, [0] * 40, np.linspace(0.5, 0.99, 40).tolist())
    explain.detection_overlay(picture(), objects, NAMES)
    labels = [words for words in drawn_texts if words.endswith("%")]
    assert labels[0] == "apple 99%"
    assert 1 < len(labels) <= 8


def test_the_truth_is_drawn_next_to_the_objects_that_were_found(drawn_texts):
    truth = marked([(10, 20, 60, 80), (100, 20, 160, 80), (200, 20, 280, 200)], [0, 1, 1])
    objects = marked(
        [(12, 20, 60, 80), (10, 20, 60, 80), (100, 20, 160, 80), (200, 20, 230, 60), (205, 20, 280, 200)],
        [0, 0, 2, 1, 1],
        [0.6, 0.9, 0.8, 0.95, 0.7],
    )
    sheet = explain.detection_overlay(picture(), objects, NAMES, truth)
    assert "2 of 3 objects found, 3 wrong" in drawn_texts
    assert drawn_texts.count("bicycle") == 3  # two labels of true objects, one line of the legend
    assert {"objects, found / true", "2 / 1", "2 / 2", "1 / 0"} <= set(drawn_texts)
    *_, right = cells(sheet, 3)
    assert (right[100, 240] != 90).any()
    drawn_texts.clear()
    explain.detection_overlay(picture(), truth, NAMES, truth)
    assert "3 of 3 objects found" in drawn_texts
    nothing = marked([], [])
    explain.detection_overlay(picture(), nothing, NAMES, truth)
    assert "0 of 3 objects found" in drawn_texts
    explain.detection_overlay(picture(), truth, NAMES, nothing)
    assert "0 of 0 objects found, 3 wrong" in drawn_texts


def test_the_legend_counts_the_objects_of_each_class(drawn_texts):
    objects = marked([(10, 20, 60, 80)] * 6, [4, 1, 1, 0, 1, 4])
    explain.detection_sheet([explain.Found(picture(), objects)] * 2, NAMES)
    legend = drawn_texts[drawn_texts.index("objects", drawn_texts.index("objects") + 1) + 1 :]
    assert legend[:6] == ["bicycle", "6", "dog", "4", "apple", "2"]
    drawn_texts.clear()
    many = [f"class {k}" for k in range(600)]
    explain.detection_overlay(picture(), marked([(10, 20, 60, 80)] * 600, range(600)), many)
    assert "and 588 more" in drawn_texts


@pytest.mark.parametrize(("size", "longer"), [((20, 10), 320), ((400, 300), 400), ((300, 2000), 640)])
def test_objects_are_drawn_in_the_size_of_their_picture(size, longer):
    width, height = size
    objects = marked([(0, 0, width // 2, height)], [0], size=size)
    sheet = explain.detection_overlay(picture(size), objects, NAMES)
    shown = (round(longer * width / max(size)), round(longer * height / max(size)))
    before, after = cells(sheet, 2, shown)
    assert (before == 90).all()
    colored = (after != 90).any(-1)[shown[1] // 2]
    assert colored.sum() == pytest.approx(shown[0] / 2, abs=2)
    assert colored[: shown[0] // 2 - 2].all()


def test_a_sheet_has_a_row_for_each_picture():
    objects = marked([(10, 20, 60, 80)], [2])
    row, gray = explain.Found(picture(), objects, objects), explain.Found(picture().convert("L"), objects)
    one, three = explain.detection_sheet([row], NAMES), explain.detection_sheet([row, gray, row], NAMES)
    assert three.size == (one.width, one.height + 2 * (240 + 26 + 18))
    with pytest.raises(UserError, match="at least one picture"):
        explain.detection_sheet([], NAMES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.array([5])}, "labels from 0 to 4, got 5"),
        ({"labels": np.array([-1])}, "got -1"),
        ({"labels": np.array([1.0])}, r"labels to be whole numbers of shape \(n,\), got float64"),
        ({"labels": None}, r"labels to be whole numbers of shape \(n,\), got NoneType"),
        ({"boxes": np.zeros((2, 4))}, r"boxes to be real numbers of shape \(1, 4\), got float64 of shape \(2, 4\)"),
        ({"boxes": [["a", "b", "c", "d"]]}, r"boxes to be real numbers of shape \(1, 4\), got list"),
        ({"boxes": [[1, 2, 3]]}, r"boxes to be real numbers of shape \(1, 4\), got int64 of shape \(1, 3\)"),
        ({"boxes": np.array([[60, 20, 10, 80]])}, "not finite or out of order"),
        ({"boxes": np.array([[10, 20, np.nan, 80]])}, "not finite or out of order"),
        ({"scores": np.ones(2)}, r"scores to be real numbers of shape \(1,\), got float64 of shape \(2,\)"),
        ({"scores": np.array([1.5])}, r"scores from 0 to 1, got 1\.5 to 1\.5"),
        ({"scores": np.array([np.nan])}, "scores from 0 to 1, got nan to nan"),
        (
            {"masks": np.ones((1, 320, 240), bool)},
            r"booleans of shape \(1, 240, 320\), got bool of shape \(1, 320, 240\)",
        ),
        ({"masks": np.ones((1, 240, 320))}, "got float64"),
    ],
)
def test_objects_that_do_not_fit_are_rejected(change, message):
    right = marked([(10, 20, 60, 80)], [2])
    for objects, truth in ((right._replace(**change), None), (right, right._replace(**change))):
        with pytest.raises(UserError, match=message):
            explain.detection_overlay(picture(), objects, NAMES, truth)
