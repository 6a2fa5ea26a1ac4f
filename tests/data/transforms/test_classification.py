import jax
import numpy as np
import pytest
from PIL import Image

from paca_jax.data import EvalTransform, TrainTransform
from paca_jax.data.transforms.randaugment import rand_augment
from paca_jax.errors import UserError
from paca_jax.ops import MEAN, STD, normalize
from tests.data.tiny import encode

RNG = np.random.default_rng(1)


def ramp(height, width):
    """A picture whose red and green are the column and the row (both below 256), and whose blue is zero."""
    rows, columns = np.mgrid[:height, :width]
    return np.dstack([columns, rows, 0 * rows]).astype(np.uint8)


def pixels(result):
    return result["image"].astype(np.float64)


def views(transform, image, count, seed=0):
    example = {"image": encode(image), "label": 4}
    return [transform(example, np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, i]))) for i in range(count)]


def spans(results, size):
    """The width and height of each crop of a ramp, from the slopes of red and green, and its left and top edges."""
    found = []
    for result in results:
        image = pixels(result)
        inner = slice(size // 4, -size // 4)
        middle = image[inner, inner]
        width, height = (abs(np.diff(middle[:, :, c], axis=1 - c).mean()) * size for c in (0, 1))
        center = middle.mean((0, 1))[:2] + 0.5
        found.append((width, height, center[0] - width / 2, center[1] - height / 2))
    return np.array(found)


@pytest.mark.parametrize("channels", [1, 3])
def test_train_result(channels):
    result = views(TrainTransform(24, channels), ramp(50, 60), 1)[0]
    assert result["image"].shape == (24, 24, channels)
    assert result["image"].dtype == np.uint8
    assert result["label"] == 4
    assert result["label"].dtype == np.int32


def test_crops_cover_the_ranges_of_area_and_ratio():
    widths, heights, lefts, tops = spans(views(TrainTransform(64, crop_scale=(0.2, 0.8)), ramp(200, 200), 400), 64).T
    areas, ratios = widths * heights / 200**2, widths / heights
    slack = 0.02  # crops are whole pixels, and the slopes are of bytes
    assert 0.2 - slack < areas.min() < 0.24
    assert 0.76 < areas.max() < 0.8 + slack
    assert 3 / 4 - slack < ratios.min() < 0.78
    assert 1.28 < ratios.max() < 4 / 3 + slack
    assert abs(np.log(ratios).mean()) < 0.03  # log-uniform: as often wide as high
    assert abs(areas.mean() - 0.49) < 0.03
    for edges, lengths in ((lefts, widths), (tops, heights)):
        places = edges / (200 - lengths)
        assert -0.1 < places.min() < 0.1
        assert 0.9 < places.max() < 1.1
        assert abs(places.mean() - 0.5) < 0.06


def test_fallback_is_the_largest_centered_crop_of_a_legal_ratio():
    # Nothing of ratio 3/4 to 4/3 with the whole area fits into 200 x 20, so all draws fail.
    transform = TrainTransform(20, crop_scale=(1.0, 1.0), flip=False)
    width, height, left, _ = spans(views(transform, ramp(20, 200), 1), 20)[0]
    assert (round(width), round(height)) == (27, 20)
    assert abs(left - (200 - 27) // 2) < 1
    width, height, _, top = spans(views(transform, ramp(200, 20), 1), 20)[0]
    assert (round(width), round(height)) == (20, 27)
    assert abs(top - (200 - 27) // 2) < 1


def test_half_of_the_views_are_flipped():
    transform = TrainTransform(16, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0))
    image = ramp(16, 16)
    results = [pixels(result) for result in views(transform, image, 400)]
    flipped = [np.allclose(result, image[:, ::-1], atol=1e-3) for result in results]
    assert all(flip or np.allclose(result, image, atol=1e-3) for flip, result in zip(flipped, results, strict=True))
    assert 150 < sum(flipped) < 250
    kept = views(TrainTransform(16, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=False), image, 50)
    assert all(np.allclose(pixels(result), image, atol=1e-3) for result in kept)


def test_the_same_stream_gives_the_same_view():
    first, again, other = (views(TrainTransform(16), ramp(40, 40), 3, seed) for seed in (0, 0, 1))
    assert all(np.array_equal(a["image"], b["image"]) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a["image"], b["image"]) for a, b in zip(first, other, strict=True))


PLAIN = {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0), "flip": False}
TEXTURE = RNG.integers(90, 160, (32, 32, 3), dtype=np.uint8)


def test_jitter_changes_brightness_contrast_and_saturation_within_its_range():
    assert all(np.array_equal(pixels(view), TEXTURE) for view in views(TrainTransform(32, **PLAIN), TEXTURE, 3))

    def measures(image):
        luma = image @ [0.299, 0.587, 0.114]
        return luma.mean(), luma.std() / luma.mean(), (image - luma[:, :, None]).std() / luma.std()

    results = [pixels(view) for view in views(TrainTransform(32, **PLAIN, color_jitter=0.3), TEXTURE, 400)]
    ratios = np.array([measures(result) for result in results]) / measures(TEXTURE)
    assert np.abs(ratios.min(0) - 0.7).max() < 0.02
    assert np.abs(ratios.max(0) - 1.3).max() < 0.02
    assert np.abs(ratios.mean(0) - 1).max() < 0.03


def test_jitter_of_more_than_1_goes_down_to_black_and_not_below():
    means = [pixels(view).mean() for view in views(TrainTransform(32, **PLAIN, color_jitter=2.0), TEXTURE, 200)]
    assert min(means) < 5
    assert max(means) > 200


def test_jitter_leaves_the_hue_of_gray_images_alone():
    gray = TEXTURE[:, :, 0]
    colored = [pixels(view) for view in views(TrainTransform(32, **PLAIN, color_jitter=0.4), np.dstack([gray] * 3), 20)]
    plain = [pixels(view) for view in views(TrainTransform(32, 1, **PLAIN, color_jitter=0.4), gray, 20)]
    assert all(np.abs(one - three).max() <= 1 for one, three in zip(plain, colored, strict=True))


def test_rand_augment_comes_last_and_with_its_settings():
    settings = {"rand_operations": 2, "rand_magnitude": 7.0, "rand_magnitude_std": 0.25}
    transform = TrainTransform(32, **PLAIN, color_jitter=0.3, **settings)
    jitter = TrainTransform(32, **PLAIN, color_jitter=0.3)
    changed = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        example = {"image": encode(TEXTURE), "label": 0}
        first = jitter(example, rng)["image"]
        expected = np.asarray(rand_augment(Image.fromarray(first), rng, 2, 7.0, 0.25))
        np.testing.assert_array_equal(transform(example, np.random.default_rng(seed))["image"], expected)
        changed += not np.array_equal(first, expected)
    assert changed > 10


@pytest.mark.parametrize("channels", [1, 3])
def test_the_whole_recipe_keeps_shape_and_type(channels):
    transform = TrainTransform(24, channels, rand_operations=15)
    results = views(transform, ramp(50, 60), 30)
    assert all(result["image"].shape == (24, 24, channels) and result["image"].dtype == np.uint8 for result in results)


def eval_reference(image, size, crop):
    """The evaluation view restated in Pillow and NumPy."""
    short = int(size / crop)
    width, height = image.size
    factor = short / min(width, height)
    resized = image.resize((int(width * factor + 1e-9), int(height * factor + 1e-9)), Image.Resampling.BICUBIC)
    array = np.asarray(resized, np.float64) / 255
    top, left = round((array.shape[0] - size) / 2), round((array.shape[1] - size) / 2)
    return (array[top : top + size, left : left + size] - MEAN) / STD


@pytest.mark.parametrize(("height", "width"), [(50, 80), (80, 50), (31, 33), (64, 64), (7, 9)])
@pytest.mark.parametrize(("size", "crop"), [(32, 0.9), (32, 1.0), (45, 0.875)])
def test_eval_view(height, width, size, crop):
    image = RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)
    result = EvalTransform(size, crop=crop)({"image": encode(image), "label": 9}, np.random.default_rng(0))
    assert result["image"].dtype == np.uint8
    np.testing.assert_allclose(normalize(result["image"]), eval_reference(Image.fromarray(image), size, crop), atol=2e-6)
    assert result["label"] == 9


def test_one_channel_is_normalized_with_the_means():
    image = RNG.integers(0, 256, (8, 8), dtype=np.uint8)
    result = EvalTransform(8, channels=1, crop=1.0)({"image": encode(image), "label": 0})["image"]
    np.testing.assert_array_equal(result[:, :, 0], image)
    np.testing.assert_allclose(normalize(result)[:, :, 0], (image / 255 - np.mean(MEAN)) / np.mean(STD), atol=2e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_normalize_is_the_same_on_the_device(channels):
    images = RNG.integers(0, 256, (2, 8, 8, channels), dtype=np.uint8)
    here, there = normalize(images), jax.jit(normalize)(images)
    assert here.dtype == there.dtype == np.float32
    np.testing.assert_allclose(here, there, atol=5e-7)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrainTransform(0), "Expected image_size"),
        (lambda: TrainTransform(32, 2), "Expected 1 .* or 3 .* image channels, got 2"),
        (lambda: TrainTransform(32, crop_scale=(0.0, 1.0)), "Expected crop_scale"),
        (lambda: TrainTransform(32, crop_scale=(0.5, 1.5)), "Expected crop_scale"),
        (lambda: TrainTransform(32, crop_ratio=(2.0, 1.0)), "Expected crop_ratio"),
        (lambda: TrainTransform(32, rand_operations=-1), "Expected rand_operations to be from 0 to 100, got -1"),
        (lambda: TrainTransform(32, rand_operations=1.5), "Expected rand_operations"),
        (lambda: TrainTransform(32, rand_magnitude=11.0), "Expected rand_magnitude to be 0 to 10, got 11"),
        (lambda: TrainTransform(32, rand_magnitude=-1.0), "Expected rand_magnitude"),
        (lambda: TrainTransform(32, rand_magnitude_std=-0.5), "Expected rand_magnitude_std to be 0 or more, got -0.5"),
        (lambda: TrainTransform(32, color_jitter=-0.1), "Expected color_jitter to be 0 or more, got -0.1"),
        (lambda: EvalTransform(32, crop=0.0), "Expected crop to be above 0"),
        (lambda: EvalTransform(32, crop=1.5), "Expected crop to be above 0"),
    ],
)
def test_values_out_of_range_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()
