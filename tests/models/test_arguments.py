"""Wrong arguments of models are answered with one sentence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from paca_jax.errors import UserError
from paca_jax.models import create_model
from tests import golden
from tests.shapes import unchecked

NANO = "pacavit_nano"
IMAGES = np.zeros((1, 32, 32, 3), np.float32)


@pytest.fixture(scope="module")
def model():
    return create_model(NANO, num_classes=3)


@pytest.fixture(scope="module")
def variables(model):
    return golden.random_variables(model)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES.astype(np.uint8), r"normalized images .*, got uint8\. Pass paca_jax\.preprocess\(picture, model\)\[None\]"),
        (jnp.zeros(IMAGES.shape, jnp.int32), "floating-point type, got int32"),
        (IMAGES > 0, "floating-point type, got bool"),
        (IMAGES[:0], r"of shape \(batch, height, width, 3\), got \(0, 32, 32, 3\)"),
        (IMAGES[:, :, :0], r"got \(1, 32, 0, 3\)"),
        (IMAGES.transpose(0, 3, 1, 2), r"got \(1, 3, 32, 32\).* put channels last"),
        ([IMAGES], "an array of shape .*, got list"),
        (Image.new("RGB", (32, 32)), "got Image"),
        ("photo.jpg", "got str"),
        (None, "got NoneType"),
    ],
)
def test_images_are_a_batch_of_normalized_ones(model, variables, images, message):
    with unchecked(), pytest.raises(UserError, match=message):
        model.apply(variables, images)


def test_images_of_whole_numbers_are_refused_in_every_task_and_under_jit():
    for name in ("pacahead_nano", "mask_rcnn_nano"):
        network = create_model(name)
        expected = golden.shapes(name)
        with unchecked(), pytest.raises(UserError, match="floating-point type, got uint8"):
            jax.eval_shape(jax.jit(network.apply), expected, jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.uint8))


@pytest.mark.parametrize("sizes", [(2, 2), (1, 3), (2,)])
def test_image_sizes_are_two_for_each_image(sizes):
    network = create_model("mask_rcnn_nano")
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    with unchecked(), pytest.raises(UserError, match=r"image_sizes of shape \(1, 2\)"):
        jax.eval_shape(network.apply, golden.shapes("mask_rcnn_nano"), images, jax.ShapeDtypeStruct(sizes, jnp.int32))


def test_variables_hold_the_collection_of_parameters(model, variables):
    with pytest.raises(UserError, match=r"collection 'params', .* got .*'stem', .* Pass {'params': parameters}"):
        model.apply(variables["params"], IMAGES)
    with pytest.raises(UserError, match=r"collection 'params', .* got ndarray"):
        model.apply(IMAGES, variables)


@pytest.mark.parametrize(("method", "near"), [("cluster", "clusters"), ("feature", "features"), ("output", "outputs")])
def test_methods_are_known(model, variables, method, near):
    with pytest.raises(UserError, match=rf"a method of PaCaViT, got '{method}'; .*{near}"):
        model.apply(variables, IMAGES, method=method)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"clusters": 16}, "clusters to be a tuple of 1 to 8 values, each a whole number from 0 to 65536, got 16"),
        ({"clusters": (1.5, 2, 2, 2)}, "each a whole number from 0 to 65536, got"),
        ({"clusters": (True, 2, 2, 2)}, "each a whole number from 0 to 65536, got"),
        ({"mlp_ratios": "4444"}, "mlp_ratios to be a tuple of 1 to 8 values, each a number above 0 and at most 64, got '4444'"),
        ({"depths": (1, 0, 1, 1)}, "depths to be a tuple of 1 to 8 values, each a whole number from 1 to 1000"),
        ({"num_heads": (0, 1, 1, 1)}, "num_heads to be a tuple of 1 to 8 values, each a whole number from 1"),
        (
            {"clustering_kernel_sizes": (-1, 3, 3, 3)},
            "clustering_kernel_sizes to be a tuple of 1 to 8 values, each a whole number from 1",
        ),
        ({"embed_dims": ()}, r"embed_dims to be a tuple of 1 to 8 values, .*, got \(\)"),
        ({"num_classes": "10"}, "num_classes to be a whole number from 0 to 1000000, got '10'"),
        ({"num_classes": 2.0}, "num_classes to be a whole number from 0 to 1000000, got 2.0"),
        ({"drop_path_rate": "0.1"}, "drop_path_rate to be a number at least 0 and below 1, got '0.1'"),
        ({"drop_path_rate": float("nan")}, "drop_path_rate to be a number at least 0 and below 1, got nan"),
        ({"cluster_norm": 1}, "cluster_norm to be True or False, got 1"),
        ({"teacher": True}, "teacher to be a TeacherConfig or None, got True"),
        ({"layer_scale": "1"}, "layer_scale to be a number from 0 to 1000 or None, got '1'"),
        ({"image_size": 0}, "image_size to be a whole number from 1 to 16384, got 0"),
        ({"crop": 90}, "crop to be a number above 0 and at most 1, got 90"),
        ({"dtype": "bf16"}, "floating-point dtype, got 'bf16'.* 'bfloat16'"),
        ({"dtype": jnp.int32}, "floating-point dtype, got .*int32"),
        ({"dtype": None}, "floating-point dtype, got None"),
        ({"remat": "yes"}, "remat to be True or False, got 'yes'"),
        ({"implementation": 0}, "implementation to be a string or None, got 0"),
        ({"clustering": "dense"}, "clustering to be one of conv, mlp, linear, got 'dense'"),
        ({"teacher": None, "mlp_ratios": (0.001, 2, 2, 2)}, "mlp_ratios that give each MLP a hidden channel"),
        # as in a recorded recipe that is damaged
        ({"num_heads": None}, "num_heads to be a tuple of 1 to 8 values, .*, got None"),
        ({"num_heads": [1, None, 4, 5]}, "num_heads to be"),
        ({"depths": [1, float("nan"), 1, 1]}, "depths to be"),
        ({"mlp_ratios": [2, 2, 2, float("inf")]}, "mlp_ratios to be"),
        ({"layer_scale": float("nan")}, "layer_scale to be"),
        ({"clustering": ["conv"]}, "clustering to be"),
        # sizes that would exhaust any machine
        ({"num_classes": 10**12}, "num_classes to be a whole number from 0 to 1000000, got 1000000000000"),
        ({"num_classes": 10**5000}, "num_classes to be .*, got a huge int"),
        ({"clusters": (10**9, 100, 100, 0)}, "clusters to be"),
        ({"embed_dims": (32, 64, 128, 10**7)}, "embed_dims to be"),
        ({"embed_dims": (32,) * 10**6}, r"embed_dims to be a tuple of 1 to 8 values, .*, got \(32, .*\.\.\."),
        ({"depths": (1, 2, 2, 10**6)}, "depths to be"),
        ({"clustering_kernel_sizes": (7, 7, 7, 10**6 + 1)}, "clustering_kernel_sizes to be"),
        ({"image_size": 10**6}, "image_size to be"),
        ({"image_channels": 10**6}, "image_channels to be"),
    ],
)
def test_options_have_their_types(overrides, message):
    with unchecked(), pytest.raises(UserError, match=message):
        create_model(NANO, **overrides)


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("pacahead_nano", {"head_channels": 8.5}),
        ("mask_rcnn_nano", {"detections": "100"}),
        ("upernet_nano", {"clusters": 9}),
        ("pacahead_nano", {"num_classes": 256}),
        ("upernet_nano", {"long_side": 10**9}),
        ("pacahead_nano", {"head_dropout_rate": float("nan")}),
        ("mask_rcnn_nano", {"proposals": 10**9}),
        ("mask_rcnn_nano", {"num_classes": 0}),
        ("mask_rcnn_nano", {"score_threshold": 1}),
    ],
)
def test_options_of_downstream_models_have_their_types(name, overrides):
    with unchecked(), pytest.raises(UserError, match=f"Expected {next(iter(overrides))} to be "):
        create_model(name, **overrides)


def test_numbers_of_numpy_are_numbers():
    with unchecked():
        model = create_model(NANO, num_classes=np.int64(3), clusters=[np.int32(4), 2, 0, 0], drop_path_rate=np.float32(0.5))
    assert model.config.clusters == (4, 2, 0, 0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pacavit_tiny", "no model named 'pacavit_tiny'; the nearest are .*pacavit_tiny_p2cconv_100_0"),
        ("PaCaViT_Nano", "the nearest (is|are) pacavit_nano"),
        ("xyzzy", r"known are [0-9]+, such as pacavit_.*; paca_jax\.list_models\(\) lists all"),
    ],
)
def test_an_unknown_model_names_the_nearest_few(name, message):
    with pytest.raises(UserError, match=message) as raised:
        create_model(name)
    assert len(str(raised.value)) < 300
