"""The recipe that the ImageNet configs share: section 4.1 of the paper and the settings of the official code."""

from ml_collections import ConfigDict

from paca_jax.errors import UserError
from paca_jax.train.config import default_config


def imagenet_config(variants: dict[str, str], variant: str) -> ConfigDict:
    """Returns the config of the model that `variants` names for `variant`.

    Args:
        variants: the model's name for each variant; "" is the default variant.
        variant: the part after the colon in `--config=FILE:VARIANT`.
    """
    if variant not in variants:
        known = ", ".join(sorted(filter(None, variants)))
        raise UserError(f"There is no variant {variant!r}; known are {known}. Choose one of them, or leave it out.")
    config = default_config()
    config.model.name = variants[variant]
    config.dataset.name = "imagenet2012"
    config.dataset.num_workers = 16
    config.image_size = 224
    config.eval_crop = 0.9
    config.dtype = "bfloat16"

    config.batch_size = 1024
    config.num_epochs = 300.0
    config.learning_rate = 5e-4
    config.warmup_epochs = 5.0
    config.warmup_learning_rate = 5e-7
    config.min_learning_rate = 5e-6
    config.learning_rate_batch_size = 512
    config.schedule_by_epoch = True
    config.weight_decay = 0.05
    config.label_smoothing = 0.1

    config.augment.rand_operations = 2
    config.augment.erase_probability = 0.25
    config.augment.mixup_alpha = 0.8
    config.augment.cutmix_alpha = 1.0
    config.augment.mix_group = 128  # the official code mixes within each of its eight processes

    config.log_every_steps = 100
    config.eval_every_steps = 6255  # five epochs
    config.checkpoint_every_steps = 1251
    return config
