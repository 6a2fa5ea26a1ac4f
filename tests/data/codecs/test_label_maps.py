import io
import struct

import numpy as np
import pytest
from PIL import Image, features

from paca_jax.data import IGNORED, ImageError, MaskError, decode_mask
from paca_jax.data.codecs.label_maps import to_labels
from tests.data.tiny import encode, png, tiff

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


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("file_format", "options", "named"),
    [
        ("JPEG", {"quality": 100}, "JPEG"),
        ("JPEG2000", {}, "JPEG2000"),
        pytest.param("AVIF", {}, "AVIF", marks=pytest.mark.skipif(not features.check("avif"), reason="Pillow has no AVIF")),
        ("WEBP", {}, "WEBP"),
        ("WEBP", {"lossless": True}, "WEBP"),
        ("GIF", {}, "GIF"),
        ("TIFF", {"compression": "jpeg"}, "TIFF with compression 'jpeg'"),
    ],
)
def test_formats_that_change_numbers_are_refused(file_format, options, named, channels):
    pixels = np.repeat(VALUES[:, :, None], channels, 2).squeeze()
    with pytest.raises(MaskError, match=f"in a format that keeps class numbers as they are, got {named}. Write masks as PNG"):
        decode_mask(encode(pixels, file_format, **options))


@pytest.mark.parametrize(
    ("file_format", "options"),
    [("BMP", {}), ("PPM", {}), *(("TIFF", {"compression": kind}) for kind in ("tiff_lzw", "packbits", "tiff_adobe_deflate"))],
)
@pytest.mark.parametrize("image", [Image.fromarray(VALUES), Image.fromarray(VALUES * 20)])
def test_formats_without_loss(image, file_format, options):
    np.testing.assert_array_equal(decode_mask(saved(image, file_format, **options)), np.asarray(image))


@pytest.mark.parametrize(
    "data",
    [
        png(2, 0, 4, b"\x1b"),
        png(4, 0, 4, b"\x01\x23"),
        b"P5\n4 1\n4\n\0\1\2\3",
        b"P2\n4 1\n3\n0 1 2 3\n",
        b"P5\n2 1\n1000\n\0\1\0\2",
        b"P1\n4 1\n0 1 0 1\n",
        tiff(4, 8, 0, b"\0\1\2\3"),
        tiff(2, 16, 0, b"\1\0\2\0"),
        tiff(8, 1, 0, b"\x55"),
    ],
)
def test_numbers_that_are_scaled_or_negated_are_refused(data):
    with pytest.raises(MaskError, match="programs scale or negate as they read them"):
        decode_mask(data)


@pytest.mark.parametrize(
    ("data", "values"),
    [
        (png(1, 0, 4, b"\x50"), [0, 1, 0, 1]),
        (png(8, 0, 4, b"\0\1\2\xff"), [0, 1, 2, 255]),
        (b"P2\n4 1\n255\n0 1 2 3\n", [0, 1, 2, 3]),
        (b"P5\n2 1\n65535\n\0\1\1\2", [1, 258]),
        (tiff(4, 8, 1, b"\0\1\2\3"), [0, 1, 2, 3]),
        (tiff(8, 1, 1, b"\x55"), [0, 1] * 4),
        (tiff(2, 12, 1, b"\x00\x10\x02"), [1, 2]),
    ],
)
def test_numbers_that_are_read_as_they_are(data, values):
    assert decode_mask(data).tolist() == [values]


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_several_pictures_in_one_file_are_refused(file_format):
    first, second = Image.fromarray(VALUES), Image.fromarray(VALUES[::-1].copy())
    with pytest.raises(MaskError, match="Expected the mask to be one picture, got 2 in one file"):
        decode_mask(saved(first, file_format, save_all=True, append_images=[second]))


def test_damaged_masks_are_image_errors():
    with pytest.raises(ImageError):
        decode_mask(encode(VALUES)[:40])


def test_a_second_picture_without_a_size_is_damage():
    first = tiff(4, 8, 1, b"\0\1\2\3")
    second = struct.pack("<HHHIII", 1, 258, 4, 1, 8, 0)  # the number of bits alone
    with pytest.raises(ImageError, match=r"Pillow cannot decode these \d+ bytes \(Missing dimensions\)"):
        decode_mask(first[:-4] + struct.pack("<I", len(first)) + second)


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
