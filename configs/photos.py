"""Fine-tuning of official weights on a folder of your own photos, with one sub-folder per class.

Command:   python main.py --config=configs/photos.py --config.dataset.data_dir=photos --workdir=runs/photos
           `photos` holds one sub-folder per class, of which about a tenth is held out for evaluation, or `train` and `val` with
           one sub-folder per class each.
Reaches:   depends on the photos. The checkpoints record the names of the classes.
Hardware:  meant for one GPU of 16 GB; on a laptop add --config.image_size=128 --config.batch_size=16. Not measured yet.

--config.init_from=FILE takes weights that are already on disk, --config.model.name=pacavit_small_p2cconv_100_0 another model.
--config.freeze_backbone=True trains only the classifier.
"""

from ml_collections import ConfigDict

from paca_jax.train.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.model.name = "pacavit_tiny_p2cconv_100_0"
    config.model.drop_path_rate = 0.1
    config.init_from = "official"
    config.init_allow_new = ("head",)
    config.dataset.name = "folder"
    config.dataset.num_workers = 4
    config.image_size = 224
    config.eval_crop = 0.9
    config.augment.crop_scale = (0.25, 1.0)
    config.augment.rand_operations = 2

    config.batch_size = 64
    config.num_epochs = 20.0
    config.learning_rate = 5e-4
    config.warmup_epochs = 2.0
    config.layer_decay = 0.75
    config.weight_decay = 0.05
    config.label_smoothing = 0.1
    config.clip_norm = 1.0

    config.log_every_steps = 10
    config.eval_every_steps = 200
    config.checkpoint_every_steps = 200
    return config
