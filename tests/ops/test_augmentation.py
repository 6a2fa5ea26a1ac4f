"""Erasing, mixup and cutmix against closed forms and their published distributions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from paca_jax import ops

BATCH, SIDE, CLASSES = 256, 32, 4


@pytest.fixture(scope="module")
def erased():
    """Images of a constant that noise never hits, each erased with probability one half, and their erased pixels."""
    images = jnp.full((2000, SIDE, 48, 3), 100.0)
    result = np.asarray(jax.jit(ops.random_erasing, static_argnums=2)(jax.random.key(0), images, 0.5))
    return result, (result != 100).any(-1)


def draw_rectangle(rng):
    """The published procedure, one image at a time: (height, width, top, left)."""
    while True:
        area = rng.uniform(0.02, 1 / 3) * SIDE * 48
        ratio = np.exp(rng.uniform(np.log(0.3), np.log(1 / 0.3)))
        height, width = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if height < SIDE and width < 48:
            return height, width, rng.integers(SIDE - height + 1), rng.integers(48 - width + 1)


def boxes(masks):
    """The (height, width) of each mask's rectangle, having checked that it is one."""
    found = []
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert mask.sum() == len(rows) * len(columns)
        found.append((len(rows), len(columns)))
    return np.array(found, float)


def test_erasing_hits_its_fraction_of_images_with_one_rectangle(erased):
    _, masks = erased
    hit = masks.any((1, 2))
    assert stats.binomtest(int(hit.sum()), len(hit), 0.5).pvalue > 1e-3
    found = boxes(masks[hit])
    expected = np.array([draw_rectangle(np.random.default_rng(seed)) for seed in range(4000)])[:, :2]
    for values, known in (
        (found.prod(1), expected.prod(1)),
        (np.log(found[:, 0] / found[:, 1]), np.log(expected[:, 0] / expected[:, 1])),
    ):
        assert stats.ks_2samp(values, known).pvalue > 1e-3
        assert (values.min(), values.max()) == pytest.approx((known.min(), known.max()), rel=0.1)


def test_erased_pixels_are_standard_normal_and_the_rest_is_left_alone(erased):
    result, masks = erased
    noise = result[masks].ravel()
    assert stats.kstest(noise[:20000], "norm").pvalue > 1e-3
    assert (result[~masks] == 100).all()


def test_rectangles_lie_everywhere(erased):
    _, masks = erased
    covered = np.zeros((SIDE, 48))
    for seed in range(4000):
        height, width, top, left = draw_rectangle(np.random.default_rng(seed))
        covered[top : top + height, left : left + width] += 1 / 4000
    np.testing.assert_allclose(masks.mean(0) / masks.any((1, 2)).mean(), covered, atol=0.06)


def test_nothing_is_erased_at_probability_zero():
    images = jnp.ones((8, 4, 4, 1))
    assert (ops.random_erasing(jax.random.key(0), images, 0.0) == images).all()


def batch(size=8, side=SIDE):
    """Row r has the value r everywhere, and the class r."""
    images = jnp.broadcast_to(jnp.arange(1.0, size + 1)[:, None, None, None], (size, side, side, 1))
    return images, jnp.eye(size), jnp.ones(size)


def mixed(seed, size=8, valid=None, **options):
    images, targets, ones = batch(size)
    found = ops.mix(jax.random.key(seed), images, targets, ones if valid is None else valid, **options)
    return tuple(np.asarray(x) for x in found)


def test_mixup_blends_image_and_target_with_the_batch_reversed():
    images, targets = mixed(0, mixup_alpha=0.8, cutmix_alpha=0.0)
    lam = targets[0, 0]
    assert 0 < lam < 1
    np.testing.assert_allclose(targets, lam * np.eye(8) + (1 - lam) * np.eye(8)[::-1], atol=1e-6)
    values = np.arange(1.0, 9)
    np.testing.assert_allclose(images[:, 5, 7, 0], lam * values + (1 - lam) * values[::-1], rtol=1e-6)
    assert (images == images[:, :1, :1]).all()


def test_cutmix_weighs_the_targets_by_what_the_rectangle_covers():
    for seed in range(20):
        images, targets = mixed(seed, mixup_alpha=0.0, cutmix_alpha=1.0)
        pasted = images[0, :, :, 0] == 8
        assert (pasted | (images[0, :, :, 0] == 1)).all()
        assert (pasted == (images[7, :, :, 0] == 1)).all()
        if pasted.any():
            boxes(pasted[None])
        np.testing.assert_allclose(targets[0, 7], pasted.mean(), atol=1e-6)
        np.testing.assert_allclose(targets.sum(1), 1, atol=1e-6)


def mixing_weights(**options):
    """Each of 3,000 groups' lam, by the target's weight, and whether it was cut rather than blended."""
    images, targets, mask = (jnp.tile(x, (3000, *(1,) * (x.ndim - 1))) for x in batch(2, 16))
    images, targets = jax.jit(lambda key: ops.mix(key, images, targets, mask, group=2, **options))(jax.random.key(3))
    cut = np.isin(np.asarray(images[::2, :, :, 0]), (1, 2)).all((1, 2))
    return np.asarray(targets[::2, 0]), cut


def test_mixup_weights_follow_their_beta_distribution():
    lam, _ = mixing_weights(mixup_alpha=0.8, cutmix_alpha=0.0)
    assert stats.kstest(lam, stats.beta(0.8, 0.8).cdf).pvalue > 1e-3


def test_cutmix_covers_as_an_independent_simulation_does():
    lam, cut = mixing_weights(mixup_alpha=0.0, cutmix_alpha=1.0)
    assert cut.all()
    rng = np.random.default_rng(0)
    expected = []
    for _ in range(20000):
        length = int(16 * np.sqrt(1 - rng.random()))
        center = rng.integers(16, size=2)
        low, high = np.clip(center - length // 2, 0, 16), np.clip(center + length // 2, 0, 16)
        expected.append(1 - np.prod(high - low) / 256)
    for quantile in (0.1, 0.25, 0.5, 0.75, 0.9):
        assert np.quantile(lam, quantile) == pytest.approx(np.quantile(expected, quantile), abs=0.04)


@pytest.mark.parametrize("probability", [0.5, 0.2])
def test_groups_switch_between_the_two_ways(probability):
    lam, cut = mixing_weights(mixup_alpha=0.8, cutmix_alpha=1.0, switch_probability=probability)
    decided = (lam > 1e-6) & (lam < 1 - 1e-6)  # where nothing or everything is pasted the way cannot be seen
    assert stats.binomtest(int(cut[decided].sum()), int(decided.sum()), probability).pvalue > 1e-4


def test_groups_mix_among_themselves():
    _, targets = mixed(1, mixup_alpha=1.0, cutmix_alpha=0.0, group=4)
    partners = [np.flatnonzero(row).tolist() for row in targets]
    assert partners == [[0, 3], [1, 2], [1, 2], [0, 3], [4, 7], [5, 6], [5, 6], [4, 7]]
    assert targets[0, 0] != targets[4, 4]


def test_a_row_that_does_not_count_is_nobodys_partner():
    mask = np.array([1, 1, 1, 1, 1, 1, 0, 1], np.float32)
    for options in ({"mixup_alpha": 1.0, "cutmix_alpha": 0.0}, {"mixup_alpha": 0.0, "cutmix_alpha": 1.0}):
        images, targets = mixed(2, valid=jnp.asarray(mask), **options)
        np.testing.assert_array_equal(targets[1], np.eye(8)[1])
        assert (images[1] == 2).all()
        assert targets[0, 0] < 1
