from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paca_jax.data.transforms.randaugment import OPERATIONS, draw_operations, rand_augment

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "augmentation" / "randaugment_m9.npz")
IMAGE = Image.fromarray(GOLDEN["image"])
OUTPUTS = sorted(key for key in GOLDEN.files if key != "image" and not key.endswith("argument"))

# The published arguments at magnitudes 0, 5 and 10; those of operations with a direction change their sign with it, factors
# their distance from 1.
ARGUMENTS = {
    "AutoContrast": (None, None, None),
    "Equalize": (None, None, None),
    "Invert": (None, None, None),
    "Rotate": (0.0, 15.0, 30.0),
    "PosterizeIncreasing": (4, 2, 0),
    "SolarizeIncreasing": (256, 128, 0),
    "SolarizeAdd": (0, 55, 110),
    "ColorIncreasing": (1.0, 1.45, 1.9),
    "ContrastIncreasing": (1.0, 1.45, 1.9),
    "BrightnessIncreasing": (1.0, 1.45, 1.9),
    "SharpnessIncreasing": (1.0, 1.45, 1.9),
    "ShearX": (0.0, 0.15, 0.3),
    "ShearY": (0.0, 0.15, 0.3),
    "TranslateXRel": (0.0, 0.225, 0.45),
    "TranslateYRel": (0.0, 0.225, 0.45),
}
FACTORS = {"ColorIncreasing", "ContrastIncreasing", "BrightnessIncreasing", "SharpnessIncreasing"}
GEOMETRIC = {"Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel"}


def test_the_operations_are_the_published_ones():
    assert set(OPERATIONS) == set(ARGUMENTS) == {key.split("/")[0] for key in OUTPUTS}
    assert {name for name in OPERATIONS if OPERATIONS[name].directed} == FACTORS | GEOMETRIC
    assert {key.split("/")[0] for key in OUTPUTS if key.endswith("negative")} == FACTORS | GEOMETRIC


@pytest.mark.parametrize("key", OUTPUTS)
def test_operation_equals_the_recorded_output_at_magnitude_9(key):
    name, sign = key.split("/")
    operation = OPERATIONS[name]
    argument = operation.argument(0.9 if sign == "positive" else -0.9)
    assert ([] if argument is None else [argument]) == pytest.approx(GOLDEN[f"{key}/argument"])
    result = operation.apply(IMAGE, argument)
    assert result.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(result), GOLDEN[key])


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_span_the_published_ranges(name):
    operation = OPERATIONS[name]
    for strength, expected in zip((0.0, 0.5, 1.0), ARGUMENTS[name], strict=True):
        assert operation.argument(strength) == (expected if expected is None else pytest.approx(expected))
        if name in GEOMETRIC:
            assert operation.argument(-strength) == pytest.approx(-expected)
        elif name in FACTORS:
            assert operation.argument(-strength) == pytest.approx(2 - expected)


@pytest.mark.parametrize("name", sorted(set(ARGUMENTS) - {"AutoContrast", "Equalize", "Invert", "PosterizeIncreasing"}))
def test_magnitude_0_changes_nothing(name):
    result = OPERATIONS[name].apply(IMAGE, OPERATIONS[name].argument(0.0))
    np.testing.assert_array_equal(np.asarray(result), GOLDEN["image"])


def test_the_largest_magnitude_posterizes_to_black():
    assert not np.asarray(OPERATIONS["PosterizeIncreasing"].apply(IMAGE, 0)).any()


@pytest.mark.parametrize("strength", [-0.7, 0.0, 0.7, 1.0])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_gray_is_treated_like_color_without_color(name, strength):
    if strength < 0 and not OPERATIONS[name].directed:
        strength = -strength
    gray = IMAGE.convert("L")
    argument = OPERATIONS[name].argument(strength)
    result = OPERATIONS[name].apply(gray, argument)
    assert result.mode == "L"
    result = np.asarray(result)
    colored = np.asarray(OPERATIONS[name].apply(gray.convert("RGB"), argument))
    outside = (colored == (124, 116, 104)).all(-1)
    assert outside.any() == (name in GEOMETRIC and strength != 0)
    np.testing.assert_array_equal(result[~outside], colored[~outside][:, 0])
    assert (result[outside] == 117).all()


def drawn(count, operations=2, magnitude=9.0, magnitude_std=0.5, seed=0):
    rng = np.random.default_rng(seed)
    return [draw_operations(rng, operations, magnitude, magnitude_std) for _ in range(count)]


def test_each_operation_is_as_frequent_and_half_are_applied():
    draws = drawn(15000)
    assert [len(draw) for draw in draws].count(1) == pytest.approx(7500, abs=250)  # 4 standard deviations
    assert [len(draw) for draw in draws].count(2) == pytest.approx(3750, abs=215)
    counts = Counter(name for draw in draws for name, _ in draw)
    assert set(counts) == set(OPERATIONS)
    assert all(count == pytest.approx(1000, abs=125) for count in counts.values())
    # Drawn with replacement: the same one twice in one of fifteen pairs.
    pairs = [draw for draw in draws if len(draw) == 2]
    assert sum(first == second for (first, _), (second, _) in pairs) == pytest.approx(len(pairs) / 15, abs=65)


def test_magnitudes_are_normal_and_clipped():
    sizes = np.array([abs(strength) for draw in drawn(15000) for _, strength in draw]) * 10
    inside = sizes[sizes < 10]
    assert sizes.max() == 10
    assert np.mean(sizes == 10) == pytest.approx(0.0228, abs=0.005)  # two standard deviations above the mean
    assert np.mean(sizes < 9) == pytest.approx(0.5, abs=0.017)
    assert np.mean(sizes < 8.5) == pytest.approx(0.1587, abs=0.012)
    assert inside.std() == pytest.approx(0.47, abs=0.02)  # of a normal distribution cut there
    low = np.array([strength for draw in drawn(2000, magnitude=0.0) for _, strength in draw])
    assert 0.4 < np.mean(low == 0) < 0.6
    assert {abs(strength) for draw in drawn(100, magnitude_std=0.0) for _, strength in draw} == {0.9}


def test_directions_are_balanced_where_there_are_any():
    signs = {name: [] for name in OPERATIONS}
    for draw in drawn(15000):
        for name, strength in draw:
            signs[name].append(strength > 0)
    for name, positive in signs.items():
        expected = 0.5 if OPERATIONS[name].directed else 1.0
        assert np.mean(positive) == pytest.approx(expected, abs=0.065 if expected == 0.5 else 0), name


def test_what_is_drawn_is_applied_in_order():
    for seed in range(20):
        expected = IMAGE
        for name, strength in drawn(1, operations=3, seed=seed)[0]:
            expected = OPERATIONS[name].apply(expected, OPERATIONS[name].argument(strength))
        result = rand_augment(IMAGE, np.random.default_rng(seed), 3, 9.0, 0.5)
        np.testing.assert_array_equal(np.asarray(result), np.asarray(expected))


def test_no_operation_is_no_change():
    assert rand_augment(IMAGE, np.random.default_rng(0), 0, 9.0, 0.5) is IMAGE
