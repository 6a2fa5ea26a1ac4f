"""From the output of a detector to drawings; detection itself is tested with `paca_jax.cli.pictures.predict`."""

import numpy as np
from PIL import Image

from paca_jax import create_model, data, explain
from paca_jax.tasks.detection.metrics import Detections
from paca_jax.tasks.detection.prediction import example_to_draw, to_detections, to_draw


def bitmap(width, height, box):
    mask = np.zeros((height, width), bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


def test_high_scores_and_true_objects_are_drawn_in_the_size_of_the_sheet():
    width, height = 1000, 500
    boxes = np.array([[100, 50, 300, 250], [400, 0, 1000, 500], [0, 0, 20, 20]], np.float32)
    masks = [data.encode_bitmap(bitmap(width, height, box)) for box in boxes.astype(int)]
    found = Detections(boxes, np.array([0.9, 0.51, 0.5]), np.array([2, 0, 1]), masks)
    polygon = [np.array([100.0, 50, 300, 50, 300, 250, 100, 250])]
    truth = data.Objects(
        boxes=boxes,
        labels=np.array([2, 1, 1], np.int32),
        crowd=np.array([False, True, False]),
        segments=[polygon, masks[1], []],
        image_id=1,
        area=np.ones(3),
        size=(height, width),
    )
    picture = Image.new("RGB", (width, height))
    row = to_draw(picture, found, truth)
    assert row.picture.size == (640, 320)
    assert picture.size == (width, height)
    np.testing.assert_allclose(row.objects.boxes, boxes[:2] * 0.64, rtol=1e-6)
    np.testing.assert_array_equal(row.objects.scores, [0.9, 0.51])
    np.testing.assert_array_equal(row.objects.masks[0], bitmap(640, 320, (64, 32, 192, 160)))
    np.testing.assert_array_equal(row.truth.labels, [2, 1])
    assert np.mean(row.truth.masks[0] == bitmap(640, 320, (64, 32, 192, 160))) > 0.99
    assert not row.truth.masks[1].any()  # has no mask
    assert to_draw(picture, found).truth is None
    explain.detection_sheet([row], ["ant", "bee", "cat"])


def test_a_picture_has_its_valid_objects_with_masks_of_its_size():
    masks = np.zeros((3, 28, 28), np.float32)
    masks[:, :14] = 1
    found = {
        "boxes": np.array([[10, 20, 50, 60], [0, 0, 9, 9], [0, 0, 60, 40]], np.float32),
        "scores": np.array([0.9, 0.8, 0.7]),
        "labels": np.array([4, 5, 6]),
        "masks": masks,
        "valid": np.array([True, False, True]),
        "size": np.array([70, 60]),
    }
    seen = to_detections(found)
    np.testing.assert_array_equal(seen.labels, [4, 6])
    assert seen.masks == [data.encode_bitmap(bitmap(60, 70, box)) for box in ((10, 20, 50, 40), (0, 0, 60, 20))]


def test_a_picture_that_cannot_be_decoded_is_not_drawn():
    transform = data.DetectionEvalTransform(32, 64)
    assert example_to_draw(create_model("mask_rcnn_nano"), {}, {"image": b"no image"}, transform) is None
