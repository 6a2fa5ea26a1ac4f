"""Detection and instance segmentation of your own objects, annotated in COCO's format, from official ImageNet weights.

Command:   python main.py --config=configs/my_objects.py --config.dataset.data_dir=DIR --workdir=runs/my_objects
           DIR holds annotations/train.json, annotations/val.json, and the images in train and val.
Reaches:   depends on the images. The checkpoints record the names of the categories.
Hardware:  meant for one GPU of 24 GB; with less add --config.batch_size=4, and on a laptop --config.batch_size=2
           --config.short_side=256 --config.long_side=416 --config.augment.short_sides="(256,)"
           --config.augment.bucket_sides="(256,)". Not measured yet.

--config.dataset.boxes_only=True trains on boxes without masks, --config.init_from=FILE takes weights that are already on disk,
and --config.model.name=mask_rcnn_small another model.
"""

from ml_collections import ConfigDict

from paca_jax.train.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.task = "detection"
    config.model.name = "mask_rcnn_tiny"
    config.init_from = "official"
    config.init_allow_new = ("head",)
    config.dataset.name = "coco"
    config.dataset.num_workers = 4
    config.short_side = 640
    config.long_side = 1066
    config.augment.short_sides = (480, 512, 544, 576, 608, 640)
    config.augment.bucket_sides = (640,)
    config.augment.detr_crop = False

    config.batch_size = 8
    config.num_epochs = 24.0
    config.schedule = "linear"
    config.learning_rate = 1e-4
    config.warmup_epochs = 1.0
    config.weight_decay = 0.05
    config.clip_norm = 1.0

    config.log_every_steps = 10
    config.eval_every_steps = 200
    config.checkpoint_every_steps = 200
    return config
