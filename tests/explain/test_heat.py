import io

import numpy as np
import pytest
from PIL import Image

from paca_jax import explain
from paca_jax.explain.heat import COLORS, color_map


def test_the_largest_weight_has_the_brightest_color():
    heat = np.zeros((4, 8), np.float32)
    heat[3, 6] = 1
    drawn = explain.overlay(Image.new("RGB", (160, 80), (90, 200, 30)), heat)
    assert (drawn.mode, drawn.size) == ("RGB", (160, 80))
    red = np.asarray(drawn, np.float32)[..., 0]
    row, column = np.unravel_index(red.argmax(), red.shape)
    assert 60 <= row < 80
    assert 120 <= column < 140
    assert red[70, 130] > 200 > 2 * red[:40, :80].max()


def test_weights_are_scaled_to_their_own_range():
    picture = Image.new("L", (32, 32), 100)
    heat = np.random.default_rng(0).random((4, 4))
    drawn, rescaled = (np.asarray(explain.overlay(picture, h), int) for h in (heat, 0.01 * heat + 0.5))
    np.testing.assert_allclose(rescaled, drawn, atol=1)


def test_a_uniform_map_shows_the_dim_picture_alone():
    picture = Image.fromarray(np.linspace(0, 255, 256, dtype=np.uint8).reshape(16, 16))
    drawn = np.asarray(explain.overlay(picture, np.full((4, 4), 1 / 16)), np.float32)
    assert np.all(np.diff(drawn.reshape(256, 3).mean(axis=1)) >= 0)
    assert drawn[-1, -1].mean() > drawn[0, 0].mean() + 80


def test_no_picture_is_as_dark_as_black_or_as_bright_as_the_most_weight():
    heat = np.zeros((4, 4))
    heat[0, 0] = 1
    for level in (0, 255):
        drawn = np.asarray(explain.overlay(Image.new("L", (40, 40), level), heat), float) @ [0.2126, 0.7152, 0.0722]
        assert 40 < drawn[-1, -1] < 140
        assert drawn[0, 0] > 200


@pytest.mark.parametrize("level", [0, 128, 255])
def test_more_weight_is_lighter_over_any_picture(level):
    drawn = explain.overlay(Image.new("L", (101, 4), level), np.linspace(0, 1, 101)[None])
    lightness = np.asarray(drawn, float)[0] @ [0.2126, 0.7152, 0.0722]
    assert np.all(np.diff(lightness[35::5]) > 0)
    assert lightness[0] - lightness.min() < 15
    assert lightness[-1] > lightness[0] + 90


def test_the_colors_become_lighter():
    lightness = COLORS @ [0.2126, 0.7152, 0.0722]
    assert np.all(np.diff(lightness) > 0)
    np.testing.assert_allclose(color_map(np.array([0.0, 1.0])), COLORS[[0, -1]])


def test_png():
    picture = Image.new("RGB", (5, 3), (1, 2, 3))
    read = Image.open(io.BytesIO(explain.to_png(picture)))
    assert read.format == "PNG"
    np.testing.assert_array_equal(read, picture)
