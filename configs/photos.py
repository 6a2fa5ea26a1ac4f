"""Fine-tuning official weights on a folder of one's own photos, one sub-folder a class.

Command:   python main.py --config=configs/photos.py --config.dataset.data_dir=photos --workdir=runs/photos
           `photos` holds a sub-folder a class (a tenth is held out to evaluate), or `train` and `val` with one a class each.
           --config.init_from=FILE for weights that are there already, --config.model.name=pacavit_small_p2cconv_100_0 for
           another model, --config.freeze_backbone=True to train the classifier alone.
Reaches:   depends on the photos; the classes' names are kept in the checkpoints.
Hardware:  one GPU of 16 GB; on a laptop set --config.image_size=128 --config.batch_size=16.
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
