import re

import jax
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from paca_jax.data import (
    DetectionEvalTransform,
    DetectionShapes,
    DetectionTrainTransform,
    RandomCrop,
    Shape,
    decode_image,
    encode_bitmap,
    eval_batches,
    object_rows,
    open_dataset,
    train_batches,
    unpack_masks,
)
from paca_jax.errors import UserError
from paca_jax.ops import MEAN
from tests.data.coco_folder import content, crowd, square, write_folder
from tests.data.tiny import encode

PAD = [round(255 * value) for value in MEAN]
SIZE = (60, 90)
CROP = RandomCrop(short_sides=(50, 60, 75), long_side=525, least=48, most=75)
SMALL = {"short_sides": (60, 64, 80, 100), "long_side": 166, "bucket_sides": (80, 100), "crop": CROP}
# Nothing random: the picture as it is.
PLAIN = {"short_sides": (60,), "long_side": 100, "bucket_sides": (60,), "crop": None, "flip": False}
# Left, top, right and bottom of bright objects on a black picture.
BRIGHT = [(5, 8, 30, 35), (50, 20, 88, 52), (33, 2, 47, 58)]


def polygon(left, top, right, bottom):
    return [np.array([left, top, right, top, right, bottom, left, bottom], np.float64)]


def run_lengths(left, top, right, bottom):
    bitmap = np.zeros(SIZE, bool)
    bitmap[top:bottom, left:right] = True
    return encode_bitmap(bitmap)


def example(boxes=BRIGHT, segments=None, size=SIZE, **changes):
    """A picture whose objects shine in red, green and blue."""
    pixels = np.zeros((*size, 3), np.uint8)
    for number, (left, top, right, bottom) in enumerate(boxes):
        pixels[max(top, 0) : bottom, max(left, 0) : right, number % 3] = 255
    objects = {
        "boxes": np.array(boxes, np.float32).reshape(-1, 4),
        "labels": np.arange(len(boxes), dtype=np.int32) + 1,
        "crowd": np.zeros(len(boxes), bool),
        "segments": segments or [polygon(*box) for box in boxes],
        "image_id": 4,
        "area": np.full(len(boxes), 50.0),
        "size": size,
    }
    return {"image": encode(pixels), "objects": objects | changes, "index": 0}


def train(given=None, seed=0, shape=None, **options):
    return DetectionTrainTransform(**{**SMALL, **options})(given or example(), np.random.default_rng(seed), shape)


def seen(result):
    """The valid rows, with masks cut to the picture."""
    height, width = result["size"]
    count = int(result["object_valid"].sum())
    masks = unpack_masks(result["masks"])[:count, :height, :width]
    return result["image"][:height, :width], result["boxes"][:count], result["labels"][:count], masks


def iou(left, right):
    return (left & right).sum() / max((left | right).sum(), 1)


@pytest.mark.parametrize("make", [polygon, run_lengths])
def test_picture_boxes_and_masks_go_the_same_way(make):
    given = example(segments=[make(*box) for box in BRIGHT])
    flipped = cropped = 0
    for seed in range(60):
        result = train(given, seed)
        image, boxes, labels, masks = seen(result)
        height, width = result["size"]
        assert (result["image"][height:] == PAD).all()
        assert (result["image"][:, width:] == PAD).all()
        for box, label, mask in zip(boxes, labels, masks, strict=True):
            shines = image[:, :, label - 1] > 127
            if shines.sum() > 200:  # less is decided by the rounding of its edges
                assert iou(shines, mask.astype(bool)) > 0.85
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            if len(rows) and mask.sum() > 100:
                np.testing.assert_allclose(box, [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], atol=2.2)
            assert (box[2:] > box[:2]).all()
            assert box.min() >= 0
            assert (box[2:] <= (width, height)).all()
        missing = set(range(1, 4)) - set(labels.tolist())
        assert all((image[:, :, label - 1] > 127).mean() < 0.02 for label in missing)
        middles = {label: (box[0] + box[2]) / 2 for label, box in zip(labels.tolist(), boxes, strict=True)}
        flipped += middles.get(1, 0) > middles.get(2, width)
        cropped += (height / width) != pytest.approx(60 / 90, abs=0.03)
    assert 15 < flipped < 45
    assert 15 < cropped < 45


def test_types_and_shapes():
    result = train(seed=3)
    height, width = result["image"].shape[:2]
    assert (height, width) in DetectionTrainTransform(**SMALL).padded_shapes
    assert {key: (value.shape, value.dtype.name) for key, value in result.items()} == {
        "image": ((height, width, 3), "uint8"),
        "size": ((2,), "int32"),
        "boxes": ((32, 4), "float32"),
        "labels": ((32,), "int32"),
        "object_valid": ((32,), "bool"),
        "masks": ((32, height, width // 8), "uint8"),
    }
    count = result["object_valid"].sum()
    assert all(not result[key][count:].any() for key in ("boxes", "labels", "object_valid", "masks"))
    gray = train(seed=3, channels=1)
    assert gray["image"].shape == (height, width, 1)


def test_masks_of_an_unchanged_picture_are_those_of_coco():
    rng = np.random.default_rng(0)
    segments = [[rng.uniform(-5, 65, 2 * n) for n in counts] for counts in ((3,), (4, 8), (12, 3, 5))]
    image, boxes, labels, masks = seen(train(example(segments=segments), **PLAIN))
    np.testing.assert_array_equal(image, np.asarray(decode_image(example()["image"], 3)))
    np.testing.assert_array_equal(boxes, BRIGHT)
    assert labels.tolist() == [1, 2, 3]
    for mask, polygons in zip(masks, segments, strict=True):
        expected = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([part.tolist() for part in polygons], *SIZE)))
        np.testing.assert_array_equal(mask, expected)
        assert mask.any()


def test_bits_are_the_same_on_the_device():
    packed = train(seed=5)["masks"][:3]
    unpacked = unpack_masks(packed)
    assert unpacked.shape == (3, packed.shape[1], 8 * packed.shape[2])
    np.testing.assert_array_equal(unpacked, np.unpackbits(packed, axis=-1))
    np.testing.assert_array_equal(jax.jit(unpack_masks)(packed), unpacked)


def test_sizes_are_drawn_from_the_short_sides():
    options = {**SMALL, "crop": None}
    sizes = [tuple(train(seed=seed, **options)["size"].tolist()) for seed in range(80)]
    assert set(sizes) == {(60, 90), (64, 96), (80, 120), (100, 150)}
    wide = example([(1, 1, 30, 30)], size=(40, 100))
    sizes = {tuple(train(wide, seed, **options)["size"].tolist()) for seed in range(40)}
    assert sizes == {(60, 150), (64, 160), (66, 166)}


def test_the_default_recipe():
    transform = DetectionTrainTransform()
    assert transform.padded_shapes == ((640, 1088), (1088, 640), (800, 1344), (1344, 800))
    shapes = [transform.shape_of((480, 640), 5, np.random.default_rng(seed)) for seed in range(200)]
    assert {shape[:2] for shape in shapes} == set(transform.padded_shapes)
    assert {shape.objects for shape in shapes} == {32}
    drawn = [transform.shape_of((480, 640), 5, np.random.default_rng(seed)).width > 1000 for seed in range(200)]
    assert 0.6 < np.mean(drawn) < 0.95  # portraits come from crops


def test_objects_without_effect_are_left_out():
    boxes = [*BRIGHT, (10, 10, 40, 40), (20, 5, 20.5, 50), (3, 3, 3, 9), (95, 3, 120, 30), (-9, 4, 0, 30), (5, 5, 20, 20)]
    pixels = example()["image"]
    area = np.array([50.0] * 8 + [0.0])
    given = example() | {"image": pixels}
    given["objects"] |= {
        "boxes": np.array(boxes, np.float32),
        "labels": np.arange(9, dtype=np.int32),
        "crowd": np.arange(9) == 3,
        "segments": [polygon(*box) for box in boxes],
        "area": area,
    }
    given["objects"]["segments"][1] = []
    _, kept, labels, masks = seen(train(given, **PLAIN))
    assert labels.tolist() == [0, 2]
    assert kept.tolist() == [list(BRIGHT[0]), list(BRIGHT[2])]
    assert masks.any((1, 2)).all()


def test_what_a_crop_leaves_nothing_of_is_dropped():
    crop = RandomCrop(short_sides=(60,), long_side=100, least=20, most=20)
    counts = [seen(train(seed=seed, crop=crop))[2].tolist() for seed in range(60)]
    assert [] in counts or any(len(labels) == 1 for labels in counts)
    assert any(len(labels) == 3 for labels in counts)
    for seed in range(60):
        image, _, labels, _ = seen(train(seed=seed, crop=crop))
        for label in {1, 2, 3} - set(labels.tolist()):
            assert (image[:, :, label - 1] > 127).mean() < 0.02


def test_pictures_without_objects_are_trained_on():
    result = train(example([]), seed=1)
    assert not result["object_valid"].any()
    assert not result["masks"].any()
    assert result["boxes"].shape == (32, 4)


def test_many_objects_get_more_rows():
    boxes = [(x, y, x + 4, y + 4) for x in range(0, 80, 4) for y in range(0, 60, 4)]
    result = train(example(boxes), **PLAIN)
    assert len(boxes) == 300
    assert result["object_valid"].sum() == 300
    assert result["masks"].shape == (512, 64, 104 // 8 + 3)
    assert (unpack_masks(result["masks"]).sum((1, 2))[:300] == 16).all()
    assert [object_rows(n) for n in (0, 1, 32, 33, 128, 129, 512, 513)] == [32, 32, 32, 128, 128, 512, 512, 2048]


def test_the_shape_is_known_before_the_picture_is_read():
    transform = DetectionTrainTransform(**SMALL)
    given = example([(1, 1, 30, 30)] * 40)
    for seed in range(40):
        shape = transform.shape_of(SIZE, 40, np.random.default_rng(seed))
        assert isinstance(shape, Shape)
        result = transform(given, np.random.default_rng(seed))
        assert (*result["image"].shape[:2], len(result["object_valid"])) == shape


def test_a_picture_that_does_not_fit_is_made_smaller():
    for seed in range(30):
        free, bound = train(seed=seed), train(seed=seed, shape=Shape(48, 48, 128))
        image, boxes, labels, masks = seen(bound)
        assert bound["image"].shape == (48, 48, 3)
        assert bound["masks"].shape == (128, 48, 6)
        assert max(bound["size"]) == 48
        ratio = bound["size"] / free["size"]
        assert ratio[0] == pytest.approx(ratio[1], abs=0.02)
        assert labels.tolist() == seen(free)[2].tolist()
        np.testing.assert_allclose(boxes, seen(free)[1] * np.tile(ratio[::-1], 2), atol=1e-3)
        for label, mask in zip(labels, masks, strict=True):
            shines = image[:, :, label - 1] > 127
            assert shines.sum() < 150 or iou(shines, mask.astype(bool)) > 0.8


def test_evaluation_shows_the_whole_picture():
    transform = DetectionEvalTransform(short_side=80, long_side=133)
    assert transform.padded_shapes == ((96, 128), (128, 96), (96, 160), (160, 96))
    for size, result, shape in (
        ((60, 90), (80, 120), (96, 128)),
        ((90, 60), (120, 80), (128, 96)),
        ((50, 50), (80, 80), (96, 128)),
        ((40, 100), (53, 133), (96, 160)),
        ((300, 20), (133, 9), (160, 96)),
    ):
        given = example([(0, 0, 4, 3)], size=size) | {"index": 7}
        view = transform(given)
        assert {key: (value.shape, value.dtype.name) for key, value in view.items()} == {
            "image": ((*shape, 3), "uint8"),
            "size": ((2,), "int32"),
            "original_size": ((2,), "int32"),
            "image_index": ((), "int32"),
        }
        assert (tuple(view["size"]), tuple(view["original_size"]), view["image_index"]) == (result, size, 7)
        assert transform.group(size) == shape
        assert (view["image"][result[0] :] == PAD).all()
        np.testing.assert_array_equal(transform.view(decode_image(given["image"], 3))["image"], view["image"])
    assert DetectionEvalTransform().padded_shapes == ((800, 1088), (1088, 800), (800, 1344), (1344, 800))


def test_a_picture_of_another_size_is_reported():
    given = example(size=(60, 80)) | {"objects": example()["objects"]}
    told = "Expected an image of 90x60 (width x height) as its annotations say, got one of 80x60 once it is upright. Make"
    for transform in (DetectionTrainTransform(**SMALL), DetectionEvalTransform(80, 133)):
        with pytest.raises(UserError, match=re.escape(told)):
            transform(given, np.random.default_rng(0))


@pytest.fixture
def folder(tmp_path):
    """COCO's layout, with a picture of nothing but a crowd, one of 40 objects, and broken objects."""
    sizes = {1: (40, 60), 2: (60, 40), 3: (48, 48), 4: (40, 64), 5: (64, 40), 6: (40, 50), 7: (45, 60)}
    objects = [
        square(1, 1, 5, 5, 20),
        crowd(2, 2, sizes[2]),
        *(square(100 + k, 3, 3 + k % 8, 4 + k % 5, 10) for k in range(40)),
        square(3, 4, 5, 5, 0),
        square(4, 5, 2, 2, 9, segmentation=[[1, 2, 3]]),
        square(5, 6, 70, 3, 9),
        square(6, 7, 5, 5, 20, segmentation=[[-500, 5, 900, 6, 30, 25, 7, 25]]),
    ]
    holds = content(sizes, objects)
    write_folder(tmp_path, holds, "annotations/instances_train2017.json", "train2017")
    return write_folder(tmp_path, holds, "annotations/instances_val2017.json", "val2017")


def batches_of(folder, **options):
    dataset = open_dataset("coco", "train", str(folder), ("image", "objects"))
    transform = DetectionTrainTransform(**SMALL)
    options = {"batch_size": 2, "seed": 3, "start_step": 0, "num_steps": 14, **options}
    return list(train_batches(dataset, transform, shape_of=DetectionShapes.of(transform, dataset), **options))


def test_bad_objects_neither_stop_training_nor_take_part(folder):
    batches = batches_of(folder)
    assert {batch["image"].shape[1:3] for batch in batches} <= set(DetectionTrainTransform(**SMALL).padded_shapes)
    assert {batch["object_valid"].shape[1] for batch in batches} == {32, 128}
    counts = np.concatenate([batch["object_valid"].sum(1) for batch in batches])
    assert len(counts) == 28  # four epochs of seven
    assert np.count_nonzero(counts > 32) <= 4
    assert np.count_nonzero(counts == 0) >= 16  # a crowd, no width, no mask, outside
    for batch, again in zip(batches, batches_of(folder, num_workers=1), strict=True):
        for key in batch:
            np.testing.assert_array_equal(batch[key], again[key])


def test_an_image_that_does_not_fit_is_named(folder):
    path = folder / "train2017" / "0004.png"
    path.write_bytes(encode(np.zeros((64, 40, 3), np.uint8)))
    told = f"image 4 ({path}) of data set 'coco', split 'train': Expected an image of 64x40 (width x height)"
    with pytest.raises(UserError, match=re.escape(told)):
        batches_of(folder)
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match=re.escape(f"got a corrupt one at image 4 ({path}). Replace it")):
        batches_of(folder)
    masks = np.concatenate([batch["valid"] for batch in batches_of(folder, skip_corrupt=True)])
    assert masks.sum() == 24


def test_evaluation_in_groups_of_one_shape(folder):
    dataset = open_dataset("coco", "validation", str(folder), ("image", "objects"))
    transform = DetectionEvalTransform(short_side=64, long_side=107)
    groups = [transform.group(tuple(size)) for size in dataset.sizes.tolist()]
    batches = list(eval_batches(dataset, transform, batch_size=2, groups=groups))
    indices = [index for batch in batches for index in batch["image_index"][batch["valid"] > 0].tolist()]
    assert sorted(indices) == list(range(7))
    for batch in batches:
        assert batch["image"].shape[1:3] in transform.padded_shapes
        for index, size, counts in zip(batch["image_index"], batch["original_size"], batch["valid"], strict=True):
            assert not counts or size.tolist() == dataset.sizes[index].tolist()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DetectionTrainTransform(short_sides=()), r"Expected short sides .* got \(\)"),
        (lambda: DetectionTrainTransform(short_sides=(480, 2000)), "whole numbers from 1 to the long side, 1333"),
        (lambda: DetectionTrainTransform(bucket_sides=(640,)), r"largest of bucket_sides to be 800 or more"),
        (lambda: DetectionTrainTransform(channels=2), "Expected 1 .* or 3 .* image channels, got 2"),
        (lambda: RandomCrop(least=700), "Expected most of a crop to be 700 or more, its least, got 600"),
        (lambda: RandomCrop(least=0), "Expected least to be a whole number above 0, got 0"),
        (lambda: DetectionEvalTransform(short_side=900, long_side=800), "Expected short_side to be at most long_side"),
    ],
)
def test_values_out_of_range_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()
