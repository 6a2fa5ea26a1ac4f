import inspect

import numpy as np
import pytest
from PIL import Image

from paca_jax.data import (
    DetectionEvalTransform,
    EvalTransform,
    SegmentationEvalTransform,
    SegmentationTrainTransform,
    TrainTransform,
    decode_image,
    encode_bitmap,
    eval_transform,
    object_rows,
    open_dataset,
    preprocess,
    readable_names,
)
from paca_jax.data.codecs.rle import encode_polygons
from paca_jax.data.transforms import classification
from paca_jax.errors import UserError
from paca_jax.models import create_model
from tests.data.coco_folder import content, square, write_folder
from tests.data.tiny import encode


def test_a_center_crop_of_an_elongated_picture_resizes_only_what_it_keeps():
    picture = Image.new("RGB", (65_500, 1), (10, 20, 30))
    view = EvalTransform(224).view(picture)
    assert view.shape == (224, 224, 3)
    assert (view == (10, 20, 30)).all()


@pytest.mark.parametrize("size", [(40, 90), (90, 40), (33, 33)])
def test_both_ways_to_crop_give_the_same_view(monkeypatch, size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    whole = EvalTransform(32).view(Image.fromarray(pixels))
    monkeypatch.setattr(classification, "_MOST_RESIZED", 0)
    part = EvalTransform(32).view(Image.fromarray(pixels))
    # The long side is rounded to whole pixels before the crop, so positions agree, and values to the last rounding.
    assert np.abs(whole.astype(int) - part).max() <= 1


@pytest.mark.parametrize(
    ("transform", "example"),
    [
        (EvalTransform(100_000), (20, 30)),
        (TrainTransform(100_000), (20, 30)),
        (SegmentationTrainTransform(100_000, 3), (20, 30)),
        (SegmentationEvalTransform(3, scales=(1000.0,)), (20, 30)),
        (SegmentationEvalTransform(3), (1, 1_000_000)),
    ],
    ids=lambda value: f"{type(value).__name__}",
)
def test_views_that_no_memory_holds_are_refused(transform, example):
    data = encode(np.zeros(example, np.uint8))
    with pytest.raises(UserError, match=r"Expected pictures that take at most 1 GiB once they are resized, got one of "):
        transform({"image": data, "mask": data, "label": 0}, np.random.default_rng(0))


def test_a_view_for_detection_that_no_memory_holds_is_refused():
    with pytest.raises(UserError, match=r"got one of 30x20 \(width x height\) that becomes an array of "):
        DetectionEvalTransform(50_000, 100_000).view(Image.new("RGB", (30, 20)))


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1)])
@pytest.mark.parametrize("name", ["pacavit_tiny_p2cconv_100_0", "pacahead_tiny", "mask_rcnn_tiny"])
def test_pictures_of_one_pixel_across_have_views(name, size):
    assert preprocess(Image.new("RGB", size), create_model(name)).size > 0


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
@pytest.mark.parametrize("name", ["pacavit_tiny_p2cconv_100_0", "pacahead_tiny", "mask_rcnn_tiny"])
def test_pictures_without_pixels_are_refused(name, size):
    with pytest.raises(UserError, match=rf"Expected an image with pixels, got one of {size[0]}x{size[1]} "):
        preprocess(Image.new("RGB", size), create_model(name))


@pytest.mark.parametrize(
    "make",
    [
        lambda: EvalTransform(True),
        lambda: EvalTransform(224, crop=None),
        lambda: TrainTransform(224, crop_scale="xx"),
        lambda: TrainTransform(224, flip="no"),
        lambda: TrainTransform(224, rand_operations=10**9),
        lambda: TrainTransform(224, crop_ratio=(1.0, float("inf"))),
        lambda: SegmentationEvalTransform(3, scales=5),
        lambda: SegmentationEvalTransform(3, ignore_zero="no"),
        lambda: SegmentationTrainTransform(64, 3, category_limit=None),
        lambda: DetectionEvalTransform(long_side=512.5),
        lambda: eval_transform(None),
        lambda: decode_image("path", 3),
        lambda: decode_image(encode(np.zeros((2, 2), np.uint8)), [3]),
        lambda: encode_bitmap(np.zeros(3)),
        lambda: inspect.unwrap(object_rows)("3"),
        lambda: readable_names("ant"),
    ],
)
def test_arguments_of_other_types_are_refused(make):
    with pytest.raises(UserError, match=r"^Expected .*, got .*\. "):
        make()


@pytest.mark.parametrize("points", [200_000, 1_000_000])
def test_polygons_that_no_memory_holds_are_refused(tmp_path, points):
    polygon = (np.random.default_rng(0).random(2 * points) * 40).round(2)
    with pytest.raises(UserError, match="Expected polygons whose outlines are at most 2000000 pixels long"):
        encode_polygons([polygon], (40, 60))
    holds = content({1: (40, 60)}, [square(1, 1, 1, 1, 9, segmentation=[polygon.tolist()])])
    write_folder(tmp_path, holds, "annotations/instances_train2017.json", "train2017")
    with pytest.raises(UserError, match=r"long of annotation 1 of image 1 in the COCO file .*, got a longer one\. Simplify it"):
        open_dataset("coco", "train", str(tmp_path), ("image", "objects"))
