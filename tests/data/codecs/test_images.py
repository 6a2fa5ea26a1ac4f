import io

import numpy as np
import pytest
from PIL import Image

from paca_jax.data import convert_image, decode_image, image_sizes
from paca_jax.data.codecs.images import image_size
from paca_jax.errors import UserError
from tests.data.tiny import Pictures, encode

RNG = np.random.default_rng(0)
COLOR = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
GRAY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)


def saved(image, file_format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def decoded(data, channels=3):
    image = decode_image(data, channels)
    assert image.mode == {3: "RGB", 1: "L"}[channels]
    return np.asarray(image)


def test_color_and_gray_files():
    np.testing.assert_array_equal(decoded(encode(COLOR)), COLOR)
    np.testing.assert_array_equal(decoded(encode(GRAY), 1), GRAY)
    np.testing.assert_array_equal(decoded(encode(GRAY)), np.repeat(GRAY[:, :, None], 3, 2))
    luma = COLOR @ np.array([0.299, 0.587, 0.114])
    assert np.abs(decoded(encode(COLOR), 1) - luma).max() <= 1
    np.testing.assert_array_equal(decoded(encode(COLOR, "BMP")), COLOR)
    np.testing.assert_array_equal(decoded(encode(COLOR, "WEBP", lossless=True)), COLOR)


def test_palette():
    image = Image.fromarray(COLOR).quantize(8)
    np.testing.assert_array_equal(decoded(saved(image)), np.asarray(image.convert("RGB")))
    np.testing.assert_array_equal(decoded(saved(image, "GIF")), np.asarray(image.convert("RGB")))


def test_transparency_is_laid_over_white():
    alpha = np.array([[0, 255], [128, 51]], np.uint8)
    ink = np.zeros((2, 2, 3), np.uint8)
    expected = 255 - alpha.astype(int)
    for channels in (1, 3):
        rgba = decoded(encode(np.dstack([ink, alpha])), channels).reshape(2, 2, channels)
        assert np.abs(rgba.astype(int) - expected[:, :, None]).max() <= 1
        la = Image.merge("LA", [Image.fromarray(ink[:, :, 0]), Image.fromarray(alpha)])
        assert np.abs(decoded(saved(la), channels).reshape(2, 2, channels).astype(int) - expected[:, :, None]).max() <= 1


def test_transparent_palette_entry_and_color_key():
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    assert decoded(saved(palette, transparency=0)).tolist() == [[[255, 255, 255], [40, 50, 60]]]
    keyed = Image.fromarray(np.array([[7, 9]], np.uint8))
    assert decoded(saved(keyed, transparency=7), 1).tolist() == [[255, 9]]


def test_cmyk_jpeg():
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # red
    pixels = decoded(saved(cmyk, "JPEG", quality=95)).astype(int)
    assert np.abs(pixels - [255, 0, 0]).max() < 12


def test_16_bit_gray_keeps_the_high_byte():
    values = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    assert decoded(saved(Image.fromarray(values)), 1).tolist() == [[0, 0, 1, 128, 255]]
    assert decoded(saved(Image.fromarray(values), "TIFF"), 3)[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_one_bit():
    image = Image.fromarray(np.array([[0, 255, 255]], np.uint8)).convert("1")
    assert decoded(saved(image), 1).tolist() == [[0, 255, 255]]


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda a: a),
        (2, np.fliplr),
        (3, lambda a: np.rot90(a, 2)),
        (4, np.flipud),
        (5, np.transpose),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(a, 2).T),
        (8, np.rot90),
    ],
)
def test_exif_orientation(file_format, orientation, upright):
    pixels = np.kron(np.array([[0, 90, 180], [255, 130, 40]], np.uint8), np.ones((8, 8), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if file_format == "WEBP" else {"quality": 100} if file_format == "JPEG" else {}
    stored = decoded(encode(pixels, file_format, **options), 1)
    result = decoded(encode(pixels, file_format, exif=exif.tobytes(), **options), 1)
    np.testing.assert_array_equal(result, upright(stored))


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_what_is_upright_is_not_turned_again(file_format):
    image = decode_image(oriented(file_format, 6), 3)
    assert image.size == COLOR.shape[:2]
    np.testing.assert_array_equal(np.asarray(convert_image(image, 3)), np.asarray(image))
    assert convert_image(image, 1).size == image.size


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_counts_as_upright():
    data = encode(GRAY, exif=b"Exif\0\0II*\0garbage")
    np.testing.assert_array_equal(decoded(data, 1), GRAY)


BIG = encode(RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8))
BIG_JPEG = encode(RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8), "JPEG")


@pytest.mark.parametrize(
    "data",
    [b"", b"no image at all", BIG[:30], BIG[: len(BIG) // 2], BIG_JPEG[: len(BIG_JPEG) // 2], BIG[:60] + b"x" + BIG[61:]],
)
def test_damaged_files_are_refused(data):
    with pytest.raises(
        UserError, match=rf"Expected an image file, Pillow cannot decode these {len(data)} bytes \(.*\)\. Replace"
    ):
        decode_image(data, 3)


def test_unknown_channels_are_refused():
    with pytest.raises(UserError, match=r"Expected 1 .* or 3 .* image channels, got 4"):
        decode_image(encode(GRAY), 4)


def oriented(file_format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(COLOR).save(buffer, file_format, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_the_size_is_that_of_the_upright_image(file_format, orientation):
    data = oriented(file_format, orientation)
    assert image_size(data) == decode_image(data, 3).size[::-1]
    assert image_size(data) == (COLOR.shape[:2][::-1] if orientation in (5, 6, 7, 8) else COLOR.shape[:2])


def test_the_size_is_right_where_the_orientation_stands_behind_the_pixels():
    data = oriented("PNG", 6)
    start = data.index(b"eXIf") - 4
    chunk = data[start : start + 12 + int.from_bytes(data[start : start + 4])]
    end = data.index(b"IEND") - 4
    data = data[:start] + data[start + len(chunk) : end] + chunk + data[end:]
    assert image_size(data) == decode_image(data, 3).size[::-1] == COLOR.shape[:2][::-1]


def test_sizes_of_a_data_set_come_from_the_headers():
    sizes = [(3, 5), (8, 2), (40, 30), (6, 6)]
    whole = Pictures(sizes)
    damaged = {2: {"image": whole[2]["image"][:100]}, 3: {"image": b"no image"}}
    assert image_sizes(whole) == sizes
    assert image_sizes(Pictures(sizes, damaged)) == [*sizes[:3], None]
