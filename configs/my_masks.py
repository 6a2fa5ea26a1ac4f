"""Semantic segmentation of a folder of your own images and masks, with the PaCa head on official ImageNet weights.

Command:   python main.py --config=configs/my_masks.py --config.dataset.data_dir=DIR --workdir=runs/my_masks
           DIR holds images/train, images/val, masks/train, masks/val and classes.txt, with the name of a class on each line. A
           mask is a PNG file of class numbers from 0, named as its image; 255 marks pixels that do not count.
Reaches:   depends on the images. The checkpoints record the names of the classes.
Hardware:  meant for one GPU of 16 GB; on a laptop add --config.image_size=128 --config.short_side=128 --config.batch_size=4.
           Not measured yet.

--config.init_from=FILE takes weights that are already on disk, --config.model.name=pacahead_small another model, and
--config.dataset.ignore_zero=True masks with class numbers from 1.
"""

from ml_collections import ConfigDict

from paca_jax.train.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.task = "segmentation"
    config.model.name = "pacahead_tiny"
    config.init_from = "official"
    config.init_allow_new = ("head", "clustering")
    config.dataset.name = "folder"
    config.dataset.num_workers = 4
    config.image_size = 512
    config.short_side = 512
    config.long_side = 2048

    config.batch_size = 8
    config.num_epochs = 50.0
    config.schedule = "linear"
    config.learning_rate = 6e-5
    config.warmup_epochs = 2.0
    config.weight_decay = 0.01
    config.rate_scales = ((r"^head/|conv_clustering/project", 10.0),)  # new layers learn faster
    config.clip_norm = 1.0

    config.log_every_steps = 10
    config.eval_every_steps = 200
    config.checkpoint_every_steps = 200
    return config
