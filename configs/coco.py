"""Mask R-CNN on COCO 2017 from ImageNet weights: detection and instance segmentation.

Command:   python main.py --config=configs/coco.py:small --workdir=DIR --config.dataset.data_dir=COCO
           COCO holds annotations/instances_{train,val}2017.json, train2017/ and val2017/; :BACKBONE is tiny, small, base,
           convmixer_small, small_p2cmlp_100_0, ... : a model's name without its prefix.
           --config.init_from=FILE for ImageNet weights that are there already.
Published: box and mask AP, 1x schedule: 43.3/39.6 tiny, 46.4/41.8 small, 48.0/42.9 base: the official PyTorch runs, not
           measured with this library yet.
Hardware:  made for 16 images of up to 800 by 1344 pixels over the devices, two for each of eight.
"""

from ml_collections import ConfigDict

from paca_jax.train.config import default_config

VARIANTS = ("tiny", "small", "base")


def get_config(variant: str = "small") -> ConfigDict:
    config = default_config()
    config.task = "detection"
    config.model.name = f"mask_rcnn_{variant}"
    config.init_from = "official"
    config.init_allow_new = ("head",)
    config.dataset.name = "coco"
    config.dataset.num_workers = 8
    config.short_side = 800
    config.long_side = 1333
    config.dtype = "bfloat16"

    config.batch_size = 16
    config.num_epochs = 12.0
    config.schedule = "steps"
    config.decay_epochs = (8.0, 11.0)
    config.learning_rate = 1e-4
    config.warmup_steps = 500
    config.warmup_learning_rate = 1e-7
    config.weight_decay = 0.05
    config.no_decay = r"^backbone/(?!teacher/).*norm"  # the LayerNorms; biases and BatchNorms decay

    config.log_every_steps = 50
    config.eval_every_steps = 7330  # an epoch
    config.checkpoint_every_steps = 1000
    return config
