import colorsys

import numpy as np
import pytest

from paca_jax.data.transforms.photometric import brighten, photometric_distortion, rotate_hue, saturate, scale_contrast

PIXELS = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
PIXELS[0] = np.arange(16)[:, None]  # grays, black among them
PIXELS[1] = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]] * 4


def in_hsv(change):
    """PIXELS after a change of (hue 0 to 1, saturation, value)."""
    colors = [colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*(pixel / 255)))) for pixel in PIXELS.reshape(-1, 3)]
    return 255 * np.array(colors).reshape(PIXELS.shape)


def test_brightness_and_contrast():
    for pixels in (PIXELS, PIXELS[:, :, :1]):
        for amount in (-31.7, 0, 20.2):
            assert np.abs(brighten(pixels, amount) - np.clip(pixels + amount, 0, 255)).max() <= 0.5
        for factor in (0.5, 1.0, 1.49):
            assert np.abs(scale_contrast(pixels, factor) - np.clip(pixels * factor, 0, 255)).max() <= 0.5


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.2, 1.5])
def test_saturation(factor):
    expected = in_hsv(lambda hue, saturation, value: (hue, min(1, saturation * factor), value))
    assert np.abs(saturate(PIXELS, factor) - expected).max() <= 0.51


@pytest.mark.parametrize("degrees", [-36, -10, 0, 4, 34, 120])
def test_hue(degrees):
    expected = in_hsv(lambda hue, saturation, value: ((hue + degrees / 360) % 1, saturation, value))
    assert np.abs(rotate_hue(PIXELS, degrees) - expected).max() <= 0.51


def test_a_picture_is_left_alone_as_often_as_the_coins_say():
    """Each of four changes is left out half of the time, so all of them once in sixteen; a few change too little to show."""
    rng = np.random.default_rng(0)
    results = [photometric_distortion(PIXELS, rng) for _ in range(400)]
    assert all(result.dtype == np.uint8 and result.shape == PIXELS.shape for result in results)
    assert 12 <= sum(np.array_equal(result, PIXELS) for result in results) <= 50
    assert len({result.tobytes() for result in results}) > 300


def test_changes_stay_in_their_ranges():
    gray, red = np.full((1, 1, 3), 100, np.uint8), np.array([[[100, 0, 0]]], np.uint8)
    rng = np.random.default_rng(1)
    grays = np.array([photometric_distortion(gray, rng)[0, 0] for _ in range(600)])
    assert (grays == grays[:, :1]).all()  # neither saturation nor hue colors gray
    assert 34 <= grays.min() <= 40
    assert 180 <= grays.max() <= 198
    reds = np.array([photometric_distortion(red, rng)[0, 0] / 255 for _ in range(600)])
    hues = np.array([colorsys.rgb_to_hsv(*pixel)[0] * 360 for pixel in reds])
    hues = np.where(hues > 180, hues - 360, hues)
    assert -40 <= hues.min() < -30
    assert 30 < hues.max() < 40


def test_one_channel_stays_one():
    rng = np.random.default_rng(2)
    results = [photometric_distortion(PIXELS[:, :, :1], rng) for _ in range(40)]
    assert all(result.shape == (16, 16, 1) for result in results)
    assert len({result.tobytes() for result in results}) > 20
