"""Whole pictures, windows, mirrored and scaled views, against plain loops over single pictures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paca_jax import ops
from paca_jax.data import IGNORED
from paca_jax.errors import UserError
from paca_jax.tasks.segmentation.views import Viewing, predict_labels

CLASSES = 5
WEIGHTS = np.random.default_rng(9).standard_normal((3, CLASSES)).astype(np.float32)


def logits(images):
    """A stand-in for a model: depends on each cell of 4 x 4 pixels and slightly on the whole picture and the position."""
    batch, height, width, _ = images.shape
    cells = images.reshape(batch, height // 4, 4, width // 4, 4, 3).mean((2, 4))
    slope = jnp.linspace(0, 0.3, width // 4)[:, None]
    return jnp.tanh(cells @ WEIGHTS) + 0.2 * jnp.mean(images, (1, 2, 3), keepdims=True) + slope * jnp.arange(CLASSES)


def resize(x, shape):
    return ops.resize_bilinear(x[None], shape)[0]


def plain_scores(image, window, stride):
    """Returns logits at the size of the picture: of the whole picture, or averaged over windows."""
    height, width = image.shape[:2]
    if not window:
        return resize(logits(image[None])[0], (height, width))
    total, seen = np.zeros((height, width, CLASSES)), np.zeros((height, width, 1))
    for i in range(max(height - window + stride - 1, 0) // stride + 1):
        for j in range(max(width - window + stride - 1, 0) // stride + 1):
            top, left = min(i * stride, height - window), min(j * stride, width - window)
            part = image[top : top + window, left : left + window]
            total[top : top + window, left : left + window] += resize(logits(part[None])[0], (window, window))
            seen[top : top + window, left : left + window] += 1
    return jnp.asarray(total / seen, jnp.float32)


def plain_labels(images, original, viewing):
    """Returns the labels of one picture that is given at several scales."""
    scores = []
    for image in images:
        for mirrored in (False, True)[: 1 + viewing.flip]:
            view = image[:, ::-1] if mirrored else image
            score = plain_scores(view, viewing.window, viewing.window_stride)
            scores.append(resize(score[:, ::-1] if mirrored else score, original))
    if len(scores) > 1:
        scores = [jax.nn.softmax(score, axis=-1) for score in scores]
    return np.argmax(sum(scores), axis=-1)


def pictures(sizes, seed=0):
    rng = np.random.default_rng(seed)
    return [np.repeat(np.repeat(rng.standard_normal((-(-h // 8), -(-w // 8), 3)), 8, 0), 8, 1)[:h, :w] for h, w in sizes]


def padded(images, shape):
    batch = np.zeros((len(images), *shape, 3), np.float32)
    for row, image in zip(batch, images, strict=True):
        row[: image.shape[0], : image.shape[1]] = image
    return batch


def compare(images_by_scale, originals, canvas, viewing, shapes):
    sizes = [np.array([image.shape[:2] for image in images], np.int32) for images in images_by_scale]
    batches = [padded(images, shape) for images, shape in zip(images_by_scale, shapes, strict=True)]
    found = jax.jit(lambda images, sizes, originals: predict_labels(logits, images, sizes, originals, canvas, viewing))(
        batches, sizes, np.array(originals, np.int32)
    )
    assert found.shape == (len(originals), *canvas)
    for index, (height, width) in enumerate(originals):
        expected = plain_labels([images[index] for images in images_by_scale], (height, width), viewing)
        assert len(np.unique(expected)) > 2
        assert np.mean(np.asarray(found)[index, :height, :width] == expected) > 0.999, index


@pytest.mark.parametrize("flip", [False, True])
def test_whole_pictures_at_another_size_than_their_own(flip):
    compare([pictures([(48, 64), (48, 64)])], [(72, 100), (36, 47)], (80, 112), Viewing(flip=flip), [(48, 64)])


@pytest.mark.parametrize("flip", [False, True])
def test_windows_that_overlap_over_pictures_of_several_sizes(flip):
    sizes = [(72, 96), (40, 84), (72, 32), (32, 32)]
    viewing = Viewing(flip=flip, window=32, window_stride=20)
    compare([pictures(sizes)], [(72, 96), (50, 90), (72, 32), (20, 20)], (96, 128), viewing, [(72, 96)])


def test_probabilities_of_several_scales_are_averaged():
    scales = [pictures([(32, 48), (32, 48)], seed) for seed in (0, 1)] + [pictures([(64, 96), (64, 96)], 2)]
    compare(scales, [(60, 90), (33, 51)], (64, 96), Viewing(flip=True), [(32, 48), (32, 48), (64, 96)])


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"window": -1}, r"test\.window to be 0 \(whole pictures\)"),
        ({"window": 32, "window_stride": 33}, r"1 to test\.window=32, got 33"),
        ({"window_stride": 0}, "got 0"),
    ],
)
def test_windows_without_size_or_with_gaps_are_refused(values, told):
    with pytest.raises(UserError, match=told):
        Viewing(**values)


@pytest.mark.parametrize("viewing", [Viewing(), Viewing(flip=True, window=16, window_stride=12)], ids=["whole", "windows"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_picture_without_numbers_has_no_class_and_spoils_no_other(viewing, value):
    images = padded(pictures([(24, 28), (32, 32)]), (32, 32))
    sizes = np.array([[24, 28], [32, 32]], np.int32)
    usual = np.asarray(predict_labels(logits, [images], [sizes], sizes, (32, 32), viewing))

    def broken(batch):
        found = logits(batch)
        where = jnp.zeros(found.shape, bool).at[0, 0, 0, 1].set(True)
        return jnp.where(where, value, found)

    found = np.asarray(predict_labels(broken, [images], [sizes], sizes, (32, 32), viewing))
    assert usual.max() < CLASSES
    assert (found[0] == IGNORED).all()
    np.testing.assert_array_equal(found[1], usual[1])


@pytest.mark.parametrize(("window", "shape"), [(32, (48, 64)), (64, (32, 32))])
def test_a_picture_smaller_than_the_window_is_shown_whole(window, shape):
    (image,) = pictures([(24, 28)])
    cells = logits(padded([image], (32, 32)))[0, :6, :7]  # without the padding
    expected = np.argmax(resize(resize(cells, (24, 28)), (30, 35)), -1)
    size, original = np.array([[24, 28]], np.int32), np.array([[30, 35]], np.int32)
    viewing = Viewing(window=window, window_stride=16)
    found = predict_labels(logits, [padded([image], shape)], [size], original, (32, 40), viewing)
    assert len(np.unique(expected)) > 2
    assert np.mean(np.asarray(found)[0, :30, :35] == expected) > 0.999
