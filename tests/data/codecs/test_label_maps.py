import io

import numpy as np
import pytest
from PIL import Image

from paca_jax.data import IGNORED, ImageError, MaskError, decode_mask
from paca_jax.data.codecs.label_maps import to_labels
from tests.data.tiny import encode

VALUES = np.arange(12, dtype=np.uint8).reshape(3, 4)


def saved(image, file_format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def palette(values):
    image = Image.fromarray(values, "L").convert("P")
    image.putdata(values.ravel().tolist())
    image.putpalette([(37 * i) % 256 for i in range(768)])
    return image


def test_gray_masks_are_their_values():
    decoded = decode_mask(encode(VALUES))
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, VALUES)


@pytest.mark.parametrize("options", [{}, {"transparency": 3}, {"bits": 4}])
def test_palettes_count_by_index(options):
    decoded = decode_mask(saved(palette(VALUES), **options))
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, VALUES)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_sixteen_bits_keep_large_values(file_format):
    values = VALUES.astype(np.uint16) * 5000
    decoded = decode_mask(saved(Image.fromarray(values), file_format))
    assert decoded.dtype == np.int32
    np.testing.assert_array_equal(decoded, values)


def test_bits_are_zero_and_one():
    decoded = decode_mask(saved(Image.fromarray(VALUES % 2 == 1)))
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, VALUES % 2)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colors_and_transparency_are_refused(mode):
    with pytest.raises(MaskError, match=f"to be an index map, .* got an image of Pillow's mode '{mode}'. Give class numbers"):
        decode_mask(saved(Image.new(mode, (4, 3))))


def test_damaged_masks_are_image_errors():
    with pytest.raises(ImageError):
        decode_mask(encode(VALUES)[:40])


def test_labels_as_they_are():
    labels = to_labels(np.array([[0, 1], [2, 255]], np.uint8), 3)
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[0, 1], [2, IGNORED]]


def test_labels_that_count_from_one():
    labels = to_labels(np.array([[0, 1], [150, 255]], np.uint8), 150, ignore_zero=True)
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[IGNORED, 0], [149, IGNORED]]
    assert to_labels(np.arange(256).reshape(2, 128), 254, ignore_zero=True).ravel().tolist() == [IGNORED, *range(254), IGNORED]


@pytest.mark.parametrize(
    ("values", "num_classes", "ignore_zero", "message"),
    [
        (
            [0, 3],
            2,
            False,
            "Expected the values of 2 classes in the mask (0 to 1, 255 for no class), got 3. Correct the mask or",
        ),
        ([0, 1, 2], 2, False, "got 2. If 0 stands for no class and classes are numbered from 1, set ignore_zero=True."),
        ([1, 2], 2, False, "got 2. If 0 stands for no class and classes are numbered from 1, set ignore_zero=True."),
        (
            [151],
            150,
            True,
            "Expected the values of 150 classes in the mask (1 to 150, 0 and 255 for no class), got 151. Correct",
        ),
        ([300, -4, 256, 0], 150, True, "got -4, 256, 300. Correct the mask or the number of classes."),
        (range(20), 4, False, "got 4, 5, 6, 7, 8 and others. Correct the mask"),
    ],
)
def test_values_of_no_class_are_named(values, num_classes, ignore_zero, message):
    with pytest.raises(MaskError) as caught:
        to_labels(np.array([list(values)]), num_classes, ignore_zero)
    assert message in str(caught.value)
