"""Detection and instance segmentation of COCO 2017 from ImageNet weights, with Mask R-CNN.

Command:   python main.py --config=configs/coco.py:small --workdir=DIR --config.dataset.data_dir=COCO
           COCO holds annotations/instances_{train,val}2017.json, train2017/ and val2017/.
Variants:  :BACKBONE is tiny, small, base, convmixer_small, small_p2cmlp_100_0 or any other model's name without its prefix.
Published: box and mask AP with the 1x schedule: 43.3/39.6 tiny, 46.4/41.8 small, 48.0/42.9 base. These are the official PyTorch
           runs; this library has not measured them yet.
Hardware:  meant for eight devices with two images of up to 800 x 1344 pixels each. Not measured yet.

--config.init_from=FILE takes ImageNet weights that are already on disk.
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
    config.no_decay = r"^backbone/(?!teacher/).*norm"  # LayerNorms do not decay; biases and BatchNorms do

    config.log_every_steps = 50
    config.eval_every_steps = 7330  # an epoch
    config.checkpoint_every_steps = 1000
    return config
