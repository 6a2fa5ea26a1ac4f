import numpy as np
import pytest

from paca_jax.data.transforms.resampling import bilinear, nearest

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (23, 37, 3), dtype=np.uint8)
VALUES = RNG.integers(0, 200, (23, 37), dtype=np.uint8)
# Larger, smaller, larger along one axis only, the same along one axis, a single pixel.
SIZES = [(61, 80), (9, 14), (40, 20), (23, 74), (1, 1)]


def whole(size):
    return (0, 0, *size)


def plain(pixels, size):
    """Bilinear interpolation, pixel by pixel, in float64."""
    (height, width), result = pixels.shape[:2], np.zeros((*size, pixels.shape[2]))
    for row in range(size[0]):
        for column in range(size[1]):
            y = min(max((row + 0.5) * height / size[0] - 0.5, 0), height - 1)
            x = min(max((column + 0.5) * width / size[1] - 0.5, 0), width - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            above = pixels[top, left] * (1 - x + left) + pixels[top, right] * (x - left)
            below = pixels[bottom, left] * (1 - x + left) + pixels[bottom, right] * (x - left)
            result[row, column] = above * (1 - y + top) + below * (y - top)
    return result


@pytest.mark.parametrize("size", SIZES)
def test_bilinear_is_the_plain_statement(size):
    resized = bilinear(PIXELS, size, whole(size))
    assert resized.dtype == np.uint8
    assert np.abs(resized - plain(PIXELS, size)).max() <= 0.501


@pytest.mark.parametrize("size", SIZES)
def test_a_box_is_cut_out_of_the_resized_picture(size):
    for _ in range(5):
        top, left = (int(RNG.integers(length)) for length in size)
        height, width = int(RNG.integers(1, size[0] - top + 1)), int(RNG.integers(1, size[1] - left + 1))
        for resize, picture in ((bilinear, PIXELS), (nearest, VALUES)):
            part = resize(picture, size, (top, left, height, width))
            expected = resize(picture, size, whole(size))[top : top + height, left : left + width]
            np.testing.assert_array_equal(part, expected)


def test_the_own_size_changes_nothing():
    np.testing.assert_array_equal(bilinear(PIXELS, (23, 37), whole((23, 37))), PIXELS)
    np.testing.assert_array_equal(nearest(VALUES, (23, 37), whole((23, 37))), VALUES)


def test_nearest_takes_the_pixel_in_which_the_center_falls():
    line = np.arange(6, dtype=np.uint8)[None]
    assert nearest(line, (1, 3), whole((1, 3))).tolist() == [[1, 3, 5]]
    assert nearest(line, (1, 4), whole((1, 4))).tolist() == [[0, 2, 3, 5]]
    assert nearest(line, (2, 12), whole((2, 12))).tolist() == [[0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]] * 2


def test_image_and_mask_stay_aligned():
    edge = np.zeros((8, 40), np.uint8)
    edge[:, 17:] = 1
    for size in ((8, 90), (8, 23), (20, 64)):
        image = bilinear(255 * edge[:, :, None], size, whole(size))[:, :, 0]
        mask = nearest(edge, size, whole(size))
        clear = (image < 100) | (image > 155)
        np.testing.assert_array_equal(mask[clear], (image > 127)[clear])
