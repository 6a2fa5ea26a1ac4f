import pickle

import numpy as np
import pytest
from PIL import Image

from paca_jax.data import (
    IGNORED,
    ImageError,
    MaskError,
    SegmentationEvalTransform,
    SegmentationTrainTransform,
    decode_image,
    eval_batches,
    train_batches,
)
from paca_jax.errors import UserError
from paca_jax.ops import MEAN, normalize
from tests.data.tiny import Pictures, encode

RNG = np.random.default_rng(7)
SMOOTH = np.asarray(Image.fromarray(RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((80, 60), Image.Resampling.BICUBIC))
LABELS = np.asarray(Image.fromarray(RNG.integers(0, 3, (6, 8), dtype=np.uint8)).resize((80, 60), Image.Resampling.NEAREST))
EXAMPLE = {"image": encode(SMOOTH), "mask": encode(LABELS)}
PAD = [round(255 * value) for value in MEAN]
# Nothing random but the place of the crop: the box is as large as the picture.
PLAIN = {"short_side": 60, "long_side": 240, "resize_range": (1.0, 1.0), "flip": False, "photometric": False}


def train(crop_size, example=EXAMPLE, seed=0, num_classes=3, **options):
    transform = SegmentationTrainTransform(crop_size, num_classes, **options)
    return transform(example, np.random.default_rng(seed))


def where_labeled(image, label):
    """Checks that what is not labeled is padding, and returns the part that is not padded."""
    height, width = (np.flatnonzero((label != IGNORED).any(axis)).max() + 1 for axis in (1, 0))
    assert (label[height:] == IGNORED).all()
    assert (label[:, width:] == IGNORED).all()
    assert (image[height:] == PAD).all()
    assert (image[:, width:] == PAD).all()
    return image[:height, :width], label[:height, :width]


def test_a_crop_shows_picture_and_mask_at_the_same_place():
    seen = set()
    for seed in range(20):
        result = train(32, seed=seed, **PLAIN)
        assert {key: (value.shape, value.dtype.name) for key, value in result.items()} == {
            "image": ((32, 32, 3), "uint8"),
            "label": ((32, 32), "uint8"),
        }
        places = [
            (top, left)
            for top in range(29)
            for left in range(49)
            if np.array_equal(SMOOTH[top : top + 32, left : left + 32], result["image"])
        ]
        assert len(places) == 1
        (top, left), *_ = places
        np.testing.assert_array_equal(result["label"], LABELS[top : top + 32, left : left + 32])
        seen.add(places[0])
    assert len(seen) > 15


def test_padding_is_almost_zero_and_ignored():
    result = train(100, **PLAIN)
    np.testing.assert_array_equal(result["image"][:60, :80], SMOOTH)
    np.testing.assert_array_equal(result["label"][:60, :80], LABELS)
    assert (result["image"][60:] == PAD).all()
    assert (result["image"][:, 80:] == PAD).all()
    assert (np.delete(result["label"].ravel(), np.arange(100 * 100).reshape(100, 100)[:60, :80].ravel()) == IGNORED).all()
    assert np.abs(normalize(result["image"][60:])).max() < 0.01
    gray = train(100, channels=1, **PLAIN)["image"]
    assert gray.shape == (100, 100, 1)
    assert np.abs(normalize(gray[60:])).max() < 0.01


def test_sizes_follow_the_box():
    """The sides at the ends of the range are those of the box of int(r * long) by int(r * short)."""
    options = {**PLAIN, "short_side": 32, "long_side": 40}  # 80 x 60 -> 40 x 30 at 1
    for factor, size in ((1.0, (30, 40)), (0.5, (15, 20)), (1.49, (44, 59)), (2.0, (60, 80))):
        _, label = where_labeled(*train(90, **{**options, "resize_range": (factor, factor)}).values())
        assert label.shape == size
    shapes = np.array(
        [where_labeled(*train(90, seed=s, **{**options, "resize_range": (0.5, 2.0)}).values())[1].shape for s in range(60)]
    )
    assert np.abs(shapes[:, 0] / shapes[:, 1] - 0.75).max() < 0.03
    assert shapes[:, 1].min() < 26
    assert shapes[:, 1].max() > 74
    assert 42 < shapes[:, 1].mean() < 58


def test_half_of_the_crops_are_flipped():
    options = {**PLAIN, "flip": True}
    flips = []
    for seed in range(100):
        result = train(80, seed=seed, **options)
        image, label = result["image"][:60], result["label"][:60]
        flipped = np.array_equal(image, SMOOTH[:, ::-1])
        assert flipped or np.array_equal(image, SMOOTH)
        np.testing.assert_array_equal(label, LABELS[:, ::-1] if flipped else LABELS)
        flips.append(flipped)
    assert 30 < sum(flips) < 70


def test_colors_are_distorted_in_the_picture_only():
    results = [train(80, seed=seed, **{**PLAIN, "photometric": True}) for seed in range(10)]
    for result in results:
        np.testing.assert_array_equal(result["label"][:60], LABELS)
        assert (result["image"][60:] == PAD).all()
    assert len({result["image"].tobytes() for result in results}) > 6


def test_crops_of_one_class_are_drawn_again():
    """Class 1 is a twelfth of the picture: most crops without a limit are of class 0 alone."""
    mask = np.zeros((60, 80), np.uint8)
    mask[:10, :40] = 1
    mask[:, 79] = IGNORED
    example = {**EXAMPLE, "mask": encode(mask)}

    def mixed(limit):
        crops = [train(16, example, seed, **PLAIN, category_limit=limit)["label"] for seed in range(200)]
        counts = [np.bincount(crop[crop != IGNORED], minlength=2) for crop in crops]
        return np.mean([(count > 0).all() and count.max() < 0.75 * count.sum() for count in counts])

    assert mixed(1.0) < 0.15
    assert mixed(0.75) > 0.5


def test_a_picture_of_one_class_or_none_still_gives_a_crop():
    for value in (2, IGNORED):
        label = train(16, {**EXAMPLE, "mask": encode(np.full((60, 80), value, np.uint8))})["label"]
        assert (label == value).all()


def test_ade20k_masks_count_from_one():
    mask = np.where(LABELS == 2, 0, LABELS + 150 - 1).astype(np.uint8)
    result = train(
        80,
        {"image": EXAMPLE["image"], "annotation": encode(mask)},
        num_classes=150,
        **PLAIN,
        ignore_zero=True,
        mask_feature="annotation",
    )
    np.testing.assert_array_equal(result["label"][:60], np.where(LABELS == 2, IGNORED, LABELS + 148))


def test_a_draw_is_decided_by_the_seed():
    first, again, other = (train(24, seed=seed, short_side=50) for seed in (3, 3, 4))
    for key in ("image", "label"):
        np.testing.assert_array_equal(first[key], again[key])
    assert not np.array_equal(first["image"], other["image"])


def test_batches_are_the_same_with_workers_and_from_pickles():
    dataset = Pictures([(30 + i, 40 - i) for i in range(9)])
    transform = SegmentationTrainTransform(24, 3, short_side=32, long_side=64)
    assert pickle.loads(pickle.dumps(transform)) == transform
    options = {"batch_size": 4, "seed": 5, "start_step": 0, "num_steps": 5}
    here, there = (list(train_batches(dataset, transform, **options, num_workers=workers)) for workers in (0, 2))
    for a, b in zip(here, there, strict=True):
        for key in ("image", "label", "valid"):
            np.testing.assert_array_equal(a[key], b[key])
    tail = list(train_batches(dataset, transform, **{**options, "start_step": 3}))
    np.testing.assert_array_equal(tail[0]["image"], here[3]["image"])


EVAL = SegmentationEvalTransform(3, short_side=32, long_side=80, scales=(1.0, 0.5, 1.75), size_multiple=16)


def test_evaluation_shows_the_whole_picture_at_every_scale():
    result = EVAL(EXAMPLE)  # 60 x 80 pixels
    assert {key: (value.shape, value.dtype.name) for key, value in result.items()} == {
        "image_0": ((32, 48, 3), "uint8"),
        "size_0": ((2,), "int32"),
        "image_1": ((16, 32, 3), "uint8"),
        "size_1": ((2,), "int32"),
        "image_2": ((64, 96, 3), "uint8"),
        "size_2": ((2,), "int32"),
        "label": ((64, 96), "uint8"),
        "label_size": ((2,), "int32"),
    }
    assert [result[f"size_{i}"].tolist() for i in range(3)] == [[32, 43], [16, 21], [56, 75]]
    assert result["label_size"].tolist() == [60, 80]
    np.testing.assert_array_equal(result["label"][:60, :80], LABELS)
    assert (result["label"][60:] == IGNORED).all()
    assert (result["label"][:, 80:] == IGNORED).all()
    for index in range(3):
        height, width = result[f"size_{index}"]
        padded = result[f"image_{index}"]
        assert (padded[height:] == PAD).all()
        assert (padded[:, width:] == PAD).all()
        smooth = np.asarray(Image.fromarray(SMOOTH).resize((width, height), Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(padded[:height, :width] - smooth).mean() < 5


def test_a_view_of_a_picture_is_that_of_the_evaluation():
    views, result = EVAL.view(Image.fromarray(SMOOTH)), EVAL(EXAMPLE)
    assert views.keys() == {key for key in result if not key.startswith("label")}
    for key, value in views.items():
        np.testing.assert_array_equal(value, result[key])
    gray = SegmentationEvalTransform(3, channels=1, short_side=32, size_multiple=32).view(decode_image(EXAMPLE["image"], 1))
    assert gray["image_0"].shape == (32, 64, 1)


def test_the_box_of_ade20k():
    transform = SegmentationEvalTransform(150)
    assert transform.resized_size((512, 683), 1.0) == (512, 683)
    assert transform.resized_size((683, 512), 1.75) == (1195, 896)
    assert transform.resized_size((100, 1000), 1.0) == (205, 2048)
    assert transform.group((512, 683)) == transform.group((512, 700)) == (512, 704, 1)
    assert transform.group((2000, 3000)) == (512, 768, 4)


@pytest.mark.parametrize("boxes", [(512, 2048, 32), (32, 80, 16), (50, 70, 1)])
def test_padded_shapes_cover_every_picture_and_follow_from_the_group(boxes):
    short, long, multiple = boxes
    scales = (0.5, 0.7, 0.75, 1.0, 1.1, 1.25, 1.5, 1.75, 2.0)
    transform = SegmentationEvalTransform(3, short_side=short, long_side=long, scales=scales, size_multiple=multiple)
    rng = np.random.default_rng(0)
    sizes = np.exp(rng.uniform(0, np.log(4 * short), (4000, 2))).astype(int) + 1
    near = np.stack([np.full(1000, short), rng.integers(short // 2, 2 * short, 1000)], 1)
    for height, width in [*sizes.tolist(), *near.tolist()]:
        group = transform.group((height, width))
        base, label = transform.padded_shape(group, 1.0), transform.label_shape(group)
        assert base == (group.height, group.width)
        assert label == (group.factor * base[0], group.factor * base[1])
        assert label[0] >= height
        assert label[1] >= width
        assert group.factor == 1 or group.factor // 2 * base[0] < height or group.factor // 2 * base[1] < width
        for scale in scales:
            resized, padded = transform.resized_size((height, width), scale), transform.padded_shape(group, scale)
            assert resized[0] <= padded[0], (height, width, scale)
            assert resized[1] <= padded[1], (height, width, scale)
            assert not padded[0] % multiple
            assert not padded[1] % multiple


def test_resized_sizes_keep_proportions_within_half_a_pixel():
    transform = SegmentationEvalTransform(3)
    for size in map(tuple, np.random.default_rng(1).integers(1, 3000, (2000, 2)).tolist()):
        for scale in (0.5, 1.0, 1.75):
            factor = min(int(2048 * scale) / max(size), int(512 * scale) / min(size))
            for length, resized in zip(size, transform.resized_size(size, scale), strict=True):
                assert resized == 1 or abs(length * factor - resized) < 0.5001


TURNED = Image.Exif()
TURNED[0x0112] = 6
BAD = {
    "size": (
        {"mask": encode(LABELS[:, :70])},
        "Expected a mask as large as its upright image, 80x60 (width x height), got one of 70x60. Make them alike.",
    ),
    "turned": (
        {"image": encode(SMOOTH, "JPEG", exif=TURNED)},
        "Expected a mask as large as its upright image, 60x80 (width x height), got one of 80x60. Make them alike.",
    ),
    "label": (
        {"mask": encode(LABELS + np.uint8(2))},
        "Expected the values of 3 classes in the mask (0 to 2, 255 for no class), got 3, 4. Correct the mask or the number of "
        "classes.",
    ),
    "colors": (
        {"mask": encode(SMOOTH)},
        "Expected the mask to be an index map, one channel whose values are class numbers, got an image of Pillow's mode "
        "'RGB'. Give class numbers rather than colors or instances (of ADE20K those of ADEChallengeData2016).",
    ),
}


@pytest.mark.parametrize("transform", [SegmentationTrainTransform(32, 3), EVAL])
@pytest.mark.parametrize("bad", BAD)
def test_masks_that_do_not_fit_are_reported(bad, transform):
    change, message = BAD[bad]
    with pytest.raises(MaskError) as caught:
        transform({**EXAMPLE, **change}, np.random.default_rng(0))
    assert str(caught.value) == message


@pytest.mark.parametrize("value", [3, LABELS, "mask.png"])
@pytest.mark.parametrize("transform", [SegmentationTrainTransform(32, 3), EVAL])
def test_a_feature_that_holds_no_mask_is_named(transform, value):
    with pytest.raises(
        MaskError, match=rf"the feature 'mask' to hold the files of masks, got .* {type(value).__name__}\. Corr"
    ):
        transform({**EXAMPLE, "mask": value}, np.random.default_rng(0))


def test_a_mask_of_a_turned_photo_is_upright():
    example = {"image": BAD["turned"][0]["image"], "mask": encode(np.ascontiguousarray(np.rot90(LABELS, -1)))}
    result = EVAL(example)
    assert result["label_size"].tolist() == [80, 60]
    np.testing.assert_array_equal(result["label"][:80, :60], np.rot90(LABELS, -1))


@pytest.mark.parametrize("feature", ["image", "mask"])
def test_damaged_files_are_image_errors(feature):
    example = {**EXAMPLE, feature: EXAMPLE[feature][:-40]}
    for transform in (SegmentationTrainTransform(32, 3), EVAL):
        with pytest.raises(ImageError):
            transform(example, np.random.default_rng(0))
    batches = eval_batches(Pictures([(20, 30)] * 3, {1: example}), EVAL, batch_size=3, skip_corrupt=True)
    assert next(batches)["valid"].tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_size": 0}, "Expected crop_size to be a whole number above 0, got 0"),
        ({"num_classes": 256}, "Expected num_classes to be at most 255, got 256"),
        ({"num_classes": 0}, "Expected num_classes to be a whole number above 0, got 0"),
        ({"channels": 2}, "Expected 1 .* or 3 .* image channels, got 2"),
        ({"short_side": 600, "long_side": 500}, "Expected short_side to be at most long_side, got 600 and 500"),
        ({"resize_range": (2.0, 0.5)}, "Expected resize_range to be two numbers"),
        ({"category_limit": 0}, "Expected category_limit to be above 0 and at most 1, got 0"),
    ],
)
def test_training_values_out_of_range_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        SegmentationTrainTransform(**{"crop_size": 32, "num_classes": 3, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": ()}, "Expected scales to be one or more numbers above 0"),
        ({"scales": (1.0, -1.0)}, "Expected scales to be one or more numbers above 0"),
        ({"size_multiple": 0}, "Expected size_multiple to be a whole number above 0, got 0"),
        ({"num_classes": 300}, "Expected num_classes to be at most 255, got 300"),
    ],
)
def test_evaluation_values_out_of_range_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        SegmentationEvalTransform(**{"num_classes": 3, **options})
