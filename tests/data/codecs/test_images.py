import io
import struct

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from paca_jax.data import ImageError, ImageKindError, convert_image, decode_image, decode_mask, image_sizes
from paca_jax.data.codecs.images import MAX_PIXELS, image_size
from paca_jax.errors import UserError
from tests.data.tiny import Pictures, encode, png, tiff

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


def test_12_bit_gray_keeps_its_high_byte():
    packed = bytes([0x00, 0x0F, 0xFF, 0x80, 0x01, 0x00])  # 0x000, 0xfff, 0x800, 0x100
    assert decoded(tiff(4, 12, 1, packed), 1).tolist() == [[0, 255, 128, 16]]


@pytest.mark.parametrize("bits", [8, 16])
def test_gray_whose_zero_is_white(bits):
    values = np.array([0, 2**bits - 1, 2 ** (bits - 1)], f"<u{bits // 8}")
    assert decoded(tiff(3, bits, 0, values.tobytes()), 1).tolist() == [[255, 0, 127]]


def test_transparency_of_16_bit_gray():
    values = np.array([[256, 257, 65535]], np.uint16)
    assert decoded(saved(Image.fromarray(values), transparency=257), 1).tolist() == [[1, 255, 255]]


def test_a_transparent_color_of_16_bits_is_refused():
    row = struct.pack(">6H", 1000, 2000, 3000, 65535, 0, 0)
    with pytest.raises(ImageKindError, match=r"Expected a transparent color of 8 bits, got \(1000, 2000, 3000\)"):
        decode_image(png(16, 2, 2, row, key=row[:6]), 3)
    assert decoded(png(8, 2, 2, bytes([1, 2, 3, 4, 5, 6]), key=bytes([0, 1, 0, 2, 0, 3]))).tolist() == [[[255] * 3, [4, 5, 6]]]


@pytest.mark.parametrize("mode", ["CMYK", "HSV", "LAB", "RGBX", "RGBa", "YCbCr"])
@pytest.mark.parametrize("channels", [1, 3])
def test_color_spaces_keep_the_picture(mode, channels):
    image = Image.new("RGB", (2, 1), (200, 100, 80))
    image.putpixel((1, 0), (20, 60, 90))
    converted = (image.convert("RGBA") if mode == "RGBa" else image).convert(mode)
    found = np.asarray(convert_image(converted, channels)).astype(int)
    assert np.abs(found - np.asarray(convert_image(image, channels))).max() <= 3


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(np.full((2, 2), 0.5, np.float32)),
        Image.fromarray(np.full((2, 2), 200.0, np.float32)),
        Image.fromarray(np.full((2, 2), 200, np.int32)),
        Image.fromarray(np.full((2, 2), 70000, np.int32)),
    ],
)
def test_numbers_without_a_range_are_refused(image, channels):
    message = rf"of 8 or 16 bits, got one of Pillow's mode '{image.mode}', .* Scale them to 0 to 255 and save them as uint8"
    for refuse in (lambda: convert_image(image, channels), lambda: decode_image(saved(image, "TIFF"), channels)):
        with pytest.raises(ImageKindError, match=message):
            refuse()


def test_16_bits_in_wide_pixels_are_not_refused():
    values = np.array([[0, 256, 65535]], np.uint16)
    assert decoded(saved(Image.fromarray(values), "PPM"), 1).tolist() == [[0, 1, 255]]


@pytest.mark.parametrize("channels", [1, 3])
def test_damaged_pictures_that_are_not_decoded_yet_are_image_errors(channels):
    data = encode(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8))
    with pytest.raises(ImageError, match=r"Pillow cannot decode this image \(.*truncated"):
        convert_image(Image.open(io.BytesIO(data[:2000])), channels)
    intact = Image.open(io.BytesIO(data))
    np.testing.assert_array_equal(convert_image(intact, 3), convert_image(decode_image(data, 3), 3))


@pytest.mark.parametrize("data", [None, 7, "a.png", np.zeros((5, 7, 3), np.uint8)])
def test_what_is_no_bytes_is_refused(data):
    for decode in (lambda: decode_image(data, 3), lambda: decode_mask(data)):
        with pytest.raises(UserError, match=f"Expected the bytes of an image file, got a value of type {type(data).__name__}"):
            decode()


def test_premultiplied_gray_is_refused():
    with pytest.raises(ImageKindError, match=r"got one of Pillow's mode 'La'\. Convert the file to 8 bits"):
        convert_image(Image.new("LA", (2, 2)).convert("La"), 3)


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


@pytest.mark.parametrize("data", [b"no image at all", b"\0\0\0\x18ftypheic" + bytes(99)])
def test_messages_do_not_name_objects_in_memory(data):
    with pytest.raises(ImageError) as caught:
        decode_image(data, 3)
    assert "cannot identify image file" in str(caught.value)
    assert " at 0x" not in str(caught.value)


@pytest.mark.parametrize("add", ["add_text", "add_itxt"])
@pytest.mark.parametrize("zipped", [False, True])
def test_long_comments_do_not_matter(add, zipped):
    comments = PngImagePlugin.PngInfo()
    for number in range(18):  # more than Pillow takes, one by one if zipped and in all
        getattr(comments, add)(f"comment{number}", "x" * (1 << 22), zip=zipped)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(Image.fromarray(GRAY), pnginfo=comments, exif=exif)
    np.testing.assert_array_equal(decoded(data, 1), np.rot90(GRAY, -1))
    assert image_size(data) == GRAY.shape[::-1]


@pytest.mark.parametrize("read", [image_size, lambda data: decode_image(data, 3), lambda data: decode_image(data, 1)])
@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "TIFF"])
def test_large_pictures_are_refused_unless_allowed(monkeypatch, read, file_format):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # Pillow refuses more than twice as many
    data = encode(COLOR, file_format)
    with pytest.raises(ImageKindError, match=rf"35 pixels.*set the environment variable {MAX_PIXELS} to at least") as caught:
        read(data)
    assert "damaged" not in str(caught.value)
    monkeypatch.setenv(MAX_PIXELS, "35")
    read(data)


@pytest.mark.parametrize("limit", ["many", "0", "-3", "1e9", ""])
def test_a_limit_that_is_no_number_is_refused(monkeypatch, limit):
    monkeypatch.setenv(MAX_PIXELS, limit)
    with pytest.raises(UserError, match=f"Expected {MAX_PIXELS} to be a whole number of pixels, got '{limit}'"):
        decode_image(encode(COLOR), 3)


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


def test_a_large_picture_of_a_data_set_is_named(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ImageKindError, match="index 1: Expected an image within Pillow's limit"):
        image_sizes(Pictures([(2, 2), (9, 9)]))
