"""Every key of a config, with its default and its type.

A file in `configs/` starts from `default_config()` and changes values; unknown keys and values of another type are refused.
"""

import dataclasses
import types
import typing
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from paca_jax.errors import UserError
from paca_jax.models import PaCaConfig

_SET_ELSEWHERE = ("num_classes", "image_size", "crop", "teacher")


def default_config() -> ConfigDict:
    """Returns a locked config with every key that exists."""
    config = ConfigDict()
    config.task = "classification"
    config.seed = 0

    config.model = ConfigDict({"name": "pacavit_tiny_p2cconv_100_0", **_model_overrides()})

    config.dataset = ConfigDict()
    config.dataset.name = "imagenet2012"
    config.dataset.data_dir = placeholder(str)  # None: where TFDS keeps its data sets
    config.dataset.train_split = "train"
    config.dataset.eval_split = "validation"
    config.dataset.skip_corrupt = False  # leave out images that cannot be read, and count them
    config.dataset.num_workers = 0  # processes that read and augment; 0: threads

    config.image_size = 224
    config.eval_crop = 0.9
    config.augment = ConfigDict()
    config.augment.crop_scale = (0.08, 1.0)
    config.augment.crop_ratio = (3 / 4, 4 / 3)
    config.augment.flip = True

    config.batch_size = 1024  # over all devices
    config.accumulate_steps = 1  # parts into which a batch is split, one after the other
    config.num_steps = placeholder(int)  # wins over num_epochs when set
    config.num_epochs = 300.0
    config.dtype = "float32"  # to compute in; parameters are float32

    config.learning_rate = 1e-3
    config.warmup_steps = placeholder(int)  # wins over warmup_epochs when set
    config.warmup_epochs = 5.0
    config.warmup_learning_rate = 0.0  # at step 0
    config.min_learning_rate = 0.0  # at the end
    config.weight_decay = 0.05  # on tensors of two or more axes
    config.beta1 = 0.9
    config.beta2 = 0.999
    config.label_smoothing = 0.1
    config.clip_norm = 0.0  # 0: off
    config.ema_decay = 0.0  # 0: off; else evaluation uses the averaged weights

    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "model": 1})

    config.log_every_steps = 100
    config.eval_every_steps = 5000
    config.checkpoint_every_steps = 1000
    config.checkpoint_keep = 3
    config.init_from = placeholder(str)  # a workdir, .safetensors, .pth or an official model's name
    config.init_allow_new = ()  # layers that may start fresh: "head", "clustering"
    return config.lock()


def _model_overrides() -> dict[str, Any]:
    """Returns an unset, typed key for each option of a model."""
    hints = typing.get_type_hints(PaCaConfig)
    names = [field.name for field in dataclasses.fields(PaCaConfig) if field.name not in _SET_ELSEWHERE]
    return {name: placeholder(_plain_type(hints[name])) for name in names}


def _plain_type(hint: Any) -> type:
    if isinstance(hint, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not types.NoneType)
    return typing.get_origin(hint) or hint


def model_overrides(config: ConfigDict) -> dict[str, Any]:
    """Returns the model's options that the config sets, its name left out."""
    return {key: value for key, value in config.model.items() if key != "name" and value is not None}


@dataclasses.dataclass(frozen=True)
class Steps:
    """How long a run lasts.

    Attributes:
        total: optimizer steps of the whole run.
        warmup: steps of the linear warm-up; may exceed `total`.
        per_epoch: steps that see every training example once.
    """

    total: int
    warmup: int
    per_epoch: float


def count_steps(config: ConfigDict, num_examples: int) -> Steps:
    """Turns epochs into steps, for a training set of `num_examples`.

    Raises:
        UserError: if the run has no step.
    """
    per_epoch = num_examples / config.batch_size
    total = round(config.num_epochs * per_epoch) if config.num_steps is None else config.num_steps
    warmup = round(config.warmup_epochs * per_epoch) if config.warmup_steps is None else config.warmup_steps
    if total < 1:
        raise UserError(
            f"A run needs at least one step, but num_steps={config.num_steps} and num_epochs={config.num_epochs} with "
            f"{num_examples} examples in batches of {config.batch_size} give {total}."
        )
    return Steps(total, max(warmup, 0), per_epoch)


def check_config(config: ConfigDict, batch_shards: int) -> None:
    """Checks what the types of the keys do not tell.

    Args:
        config: the run's config.
        batch_shards: parts into which the mesh splits a batch.

    Raises:
        UserError: naming the key, its value and what it should be.
    """
    parts = batch_shards * config.accumulate_steps
    if config.accumulate_steps < 1 or config.batch_size < 1 or config.batch_size % parts:
        raise UserError(
            f"batch_size={config.batch_size} must be a multiple of {parts}: {batch_shards} (the product of mesh.data and "
            f"mesh.fsdp) times accumulate_steps={config.accumulate_steps}."
        )
    for key in ("image_size", "log_every_steps", "eval_every_steps", "checkpoint_every_steps", "checkpoint_keep"):
        if config[key] < 1:
            raise UserError(f"{key} is at least 1, but got {config[key]}.")
    if not 0 <= config.ema_decay < 1:
        raise UserError(f"ema_decay lies in [0, 1), but got {config.ema_decay}.")
    if config.dtype not in ("float32", "bfloat16"):
        raise UserError(f"dtype is float32 or bfloat16, but got {config.dtype!r}.")
