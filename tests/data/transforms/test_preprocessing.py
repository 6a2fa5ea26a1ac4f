from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from paca_jax.data import DetectionEvalTransform, EvalTransform, SegmentationEvalTransform, eval_transform, preprocess
from paca_jax.errors import UserError
from paca_jax.models import DetectorConfig, PaCaConfig, SegmentorConfig
from paca_jax.ops import normalize
from tests.data.tiny import encode
from tests.shapes import unchecked

RNG = np.random.default_rng(1)
IMAGE = RNG.integers(0, 256, (50, 80, 3), dtype=np.uint8)


def model(channels=3):
    return SimpleNamespace(config=PaCaConfig(image_size=32, crop=0.9, image_channels=channels))


def test_preprocess_takes_paths_bytes_images_and_arrays(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(encode(IMAGE))
    expected = normalize(EvalTransform(32).view(Image.fromarray(IMAGE)))
    for given in (path, str(path), path.read_bytes(), Image.fromarray(IMAGE), IMAGE):
        result = preprocess(given, model())
        assert result.shape == (32, 32, 3)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, expected, atol=2e-6)
    gray = preprocess(IMAGE[:, :, :1], model(channels=1))
    assert gray.shape == (32, 32, 1)
    opaque = np.dstack([IMAGE, np.full((50, 80), 255, np.uint8)])
    np.testing.assert_allclose(preprocess(opaque, model()), expected, atol=2e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), r"Expected a uint8 array of shape \(H, W, C\).* got float32 of shape \(4, 4, 3\)"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"got uint8 of shape \(1, 4, 4, 3\)"),
        (np.zeros((4, 4, 2), np.uint8), r"got uint8 of shape \(4, 4, 2\)"),
        (np.zeros((0, 4, 3), np.uint8), r"got uint8 of shape \(0, 4, 3\)"),
        (b"nothing", "Expected an image file, Pillow cannot decode these 7 bytes"),
        (3, "Expected a path, bytes, a Pillow image or a uint8 NumPy array .* got int"),
        ("no/such.png", "Expected a file at no/such.png, got: No such file or directory. Check the path"),
        (".", "Expected a file at ., got a folder"),
    ],
)
def test_preprocess_refuses(given, message):
    with unchecked(), pytest.raises(UserError, match=message):
        preprocess(given, model())


def test_preprocess_names_the_damaged_file(tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(encode(IMAGE)[:50])
    with pytest.raises(UserError, match=r"broken\.png: Expected an image file"):
        preprocess(path, model())


def segmentor(channels=3, short_side=40, long_side=80):
    backbone = PaCaConfig(num_classes=0, image_channels=channels)
    return SimpleNamespace(config=SegmentorConfig(backbone, short_side=short_side, long_side=long_side))


@pytest.mark.parametrize(("size", "shape"), [((40, 56), (40, 56)), ((50, 80), (40, 64)), ((100, 30), (80, 24))])
def test_a_segmentor_sees_the_whole_picture(size, shape):
    image = RNG.integers(0, 256, (*size, 3), dtype=np.uint8)
    result = preprocess(image, segmentor())
    assert result.shape == (*shape, 3)
    assert result.dtype == np.float32
    views = SegmentationEvalTransform(3, short_side=40, long_side=80).view(Image.fromarray(image))
    np.testing.assert_array_equal(result, normalize(views["image_0"])[: shape[0], : shape[1]])
    assert preprocess(encode(image[:, :, 0]), segmentor(channels=1)).shape == (*shape, 1)


def test_a_detector_sees_the_whole_picture():
    backbone = PaCaConfig(num_classes=0)
    config = DetectorConfig(backbone, short_side=40, long_side=80)
    result = preprocess(IMAGE, SimpleNamespace(config=config))
    view = DetectionEvalTransform(40, 80).view(Image.fromarray(IMAGE))
    assert view["size"].tolist() == [40, 64]
    np.testing.assert_array_equal(result, normalize(view["image"][:40, :64]))


def test_the_evaluation_transform_follows_from_the_config():
    backbone = PaCaConfig(num_classes=0, image_channels=1)
    assert eval_transform(PaCaConfig(image_size=64, crop=1.0)) == EvalTransform(64, 3, 1.0)
    assert eval_transform(DetectorConfig(backbone, short_side=40, long_side=80)) == DetectionEvalTransform(40, 80, 1)
    config = SegmentorConfig(backbone, num_classes=7, short_side=40, long_side=80)
    assert eval_transform(config) == SegmentationEvalTransform(7, 1, 40, 80)
    options = {"scales": (0.5, 1.0), "size_multiple": 32, "ignore_zero": True, "mask_feature": "segments"}
    assert eval_transform(config, **options) == SegmentationEvalTransform(7, 1, 40, 80, **options)
