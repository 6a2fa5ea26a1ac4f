"""The configs for a user's own masks and objects: a folder as documented, and one flag for it, train."""

import jax
import numpy as np
import pytest

import paca_jax
from configs import my_masks, my_objects
from paca_jax.train.config import check_config
from paca_jax.train.train_loop import train
from tests.data.coco_folder import CATEGORIES, content, square, write_folder
from tests.data.tiny import encode
from tests.runs import overridden, scalars

NANO = {
    "model.embed_dims": (16, 16, 32, 32),
    "model.depths": (1, 1, 1, 1),
    "model.num_heads": (1, 1, 2, 2),
    "model.head_channels": 16,
    "short_side": 32,
    "long_side": 64,
    "dataset.num_workers": 0,
    "batch_size": 2,
    "num_steps": 2,
    "warmup_steps": 0,
    "init_from": None,
}
DETECTOR = {
    "model.box_channels": 16,
    "model.train_candidates": 40,
    "model.candidates": 20,
    "model.proposals": 20,
    "model.detections": 5,
    "model.box_samples": 8,
    "model.mask_samples": 4,
    "augment.short_sides": (32,),
    "augment.bucket_sides": (32,),
}


@pytest.fixture
def masks(tmp_path):
    """The folder of images and masks in docs/own_data.md."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 2)):
        for kind, shape in (("images", (40, 36, 3)), ("masks", (40, 36))):
            (tmp_path / kind / split).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 256 if kind == "images" else 2, shape, dtype=np.uint8)
                (tmp_path / kind / split / f"{index}.png").write_bytes(encode(pixels))
    (tmp_path / "classes.txt").write_text("ground\nroad\n")
    return tmp_path


@pytest.fixture
def objects(tmp_path):
    """The folder of images and annotations in docs/own_data.md."""
    for split, images in (("train", (1, 2, 3)), ("val", (4, 5))):
        annotations = [square(10 * image + k, image, 4 + 8 * k, 6, 20, category=3 + 4 * k) for image in images for k in (0, 1)]
        write_folder(tmp_path, content(dict.fromkeys(images, (40, 56)), annotations), f"annotations/{split}.json", split)
    return tmp_path


@pytest.mark.parametrize("module", [my_masks, my_objects])
def test_the_config_as_it_is_fits_one_device(module):
    config = module.get_config()
    check_config(config, batch_shards=1)
    assert config.init_from == "official"
    paca_jax.create_model(config.model.name)


def test_masks_train(masks, tmp_path):
    config = overridden(my_masks.get_config(), NANO, {"dataset.data_dir": str(masks)})
    config.model.name, config.image_size = "pacahead_nano", 32
    found = train(config, tmp_path / "run", devices=jax.devices()[:1])
    assert 0 <= found["eval/miou"] <= 1
    assert [line["step"] for line in scalars(tmp_path / "run")] == [2]
    assert paca_jax.load(tmp_path / "run")[0].config.num_classes == 2


def test_objects_train(objects, tmp_path):
    config = overridden(my_objects.get_config(), NANO | DETECTOR, {"dataset.data_dir": str(objects)})
    config.model.name = "mask_rcnn_nano"
    found = train(config, tmp_path / "run", devices=jax.devices()[:1])
    assert 0 <= found["eval/box_ap"] <= 1
    assert 0 <= found["eval/mask_ap"] <= 1
    assert paca_jax.load(tmp_path / "run")[0].config.num_classes == len(CATEGORIES)
