"""Every key of a config, with its default and its type.

A file in `configs/` starts from `default_config()` and changes values; unknown keys and values of another type are refused.
"""

import dataclasses
import math
import re
import types
import typing
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from paca_jax.errors import UserError
from paca_jax.models import DetectorConfig, PaCaConfig, SegmentorConfig

_SET_ELSEWHERE = ("num_classes", "image_size", "crop", "teacher", "backbone", "head", "short_side", "long_side")
_CHOICES = {"dtype": ("float32", "bfloat16"), "on_nonfinite": ("stop", "skip"), "schedule": ("cosine", "linear", "steps")}


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
    config.dataset.mask_feature = "mask"  # segmentation: the feature that holds the index maps
    config.dataset.ignore_zero = placeholder(bool)  # index 0 means unlabeled, class k is k + 1; None: as in ADE20K or not
    config.dataset.skip_corrupt = False  # leave out images that cannot be read, and count them
    config.dataset.num_workers = 0  # processes that read and augment; 0: threads

    config.image_size = 224  # side of a training image
    config.eval_crop = 0.9
    config.short_side = 512  # segmentation: to which an image is resized, before `augment.resize_range` in training, ...
    config.long_side = 2048  # ... unless its long side would exceed this
    config.augment = ConfigDict()
    config.augment.crop_scale = (0.08, 1.0)
    config.augment.crop_ratio = (3 / 4, 4 / 3)
    config.augment.short_sides = tuple(range(480, 801, 32))  # detection: one of them is drawn for an image
    config.augment.bucket_sides = (640, 800)  # detection: short sides of the shapes that images are padded to
    config.augment.detr_crop = True  # detection: half of the images are cropped first
    config.augment.resize_range = (0.5, 2.0)  # segmentation: of the size before the crop
    config.augment.category_limit = 0.75  # segmentation: the largest share of a crop that one class should have
    config.augment.photometric = True  # segmentation: changes of brightness, contrast, saturation and hue
    config.augment.flip = True
    config.augment.color_jitter = 0.0  # strength; RandAugment's recipes do without
    config.augment.rand_operations = 0  # RandAugment's operations an image; 0: off
    config.augment.rand_magnitude = 9.0
    config.augment.rand_magnitude_std = 0.5
    config.augment.erase_probability = 0.0
    config.augment.mixup_alpha = 0.0  # 0: off
    config.augment.cutmix_alpha = 0.0  # 0: off
    config.augment.cutmix_probability = 0.5  # where mixup and cutmix are both on
    config.augment.mix_group = placeholder(int)  # images that mix among themselves, with one share; None: the batch

    config.test = ConfigDict()  # how a segmentor is shown the pictures that it is evaluated on
    config.test.scales = (1.0,)  # of the resized picture; probabilities of several are averaged
    config.test.flip = False  # also mirrored
    config.test.window = 0  # side of the windows in pixels; 0: whole pictures
    config.test.window_stride = 341
    config.test.size_multiple = 64  # sides are padded to multiples of this: one compile a shape

    config.batch_size = 1024  # over all devices
    config.accumulate_steps = 1  # parts into which a batch is split, one after the other
    config.num_steps = placeholder(int)  # wins over num_epochs when set
    config.num_epochs = 300.0
    config.dtype = "float32"  # to compute in; parameters are float32
    config.remat = False  # compute each block anew in the gradient: slower, and less memory

    config.learning_rate = 1e-3
    config.warmup_steps = placeholder(int)  # wins over warmup_epochs when set
    config.warmup_epochs = 5.0
    config.warmup_learning_rate = 0.0  # at step 0
    config.min_learning_rate = 0.0  # at the end
    config.learning_rate_batch_size = placeholder(int)  # the batch the three rates are for: they scale with batch_size
    config.schedule = "cosine"  # after the warm-up: "cosine", "linear" or "steps"; see `make_schedule`
    config.decay_epochs = ()  # of "steps": at each of them the rate falls to a tenth
    config.schedule_by_epoch = False  # the rate changes once an epoch rather than every step
    config.layer_decay = 1.0  # each layer further from the head learns at this share of the next one's rate
    config.freeze_backbone = False  # only the head learns
    config.rate_scales = ()  # (regular expression, factor): how much faster parameters learn whose paths hold it
    config.weight_decay = 0.05
    config.no_decay = placeholder(str)  # regular expression of parameters that do not decay; None: all of one axis
    config.beta1 = 0.9
    config.beta2 = 0.999
    config.label_smoothing = 0.1
    config.clip_norm = 0.0  # 0: off
    config.ema_decay = 0.0  # 0: off; else evaluation uses the averaged weights
    config.on_nonfinite = "stop"  # what a step of infinite or undefined loss or gradient does: "stop" or "skip"

    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "model": 1})
    config.mesh.split_rows = False  # between blocks, split the images' rows over `model`

    config.log_every_steps = 100
    config.eval_every_steps = 5000
    config.checkpoint_every_steps = 1000
    config.checkpoint_keep = 3  # the newest ones, and the best one besides
    config.profile_steps = ()  # (first, last): trace these steps into WORKDIR/plugins/profile
    config.init_from = placeholder(str)  # a workdir, a file, an official model's name, or "official": the backbone's weights
    config.init_allow_new = ()  # layers that may start fresh: "head", "clustering"
    return config.lock()


def _model_overrides() -> dict[str, Any]:
    """Returns an unset, typed key for each option of a model."""
    hints = {
        name: hint
        for kind in (DetectorConfig, SegmentorConfig, PaCaConfig)
        for name, hint in typing.get_type_hints(kind).items()
    }
    return {name: placeholder(_plain_type(hint)) for name, hint in hints.items() if name not in _SET_ELSEWHERE}


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
    for key, known in _CHOICES.items():
        if config[key] not in known:
            raise UserError(f"{key} is {' or '.join(known)}, but got {config[key]!r}.")
    if not 0 < config.layer_decay <= 1:
        raise UserError(f"layer_decay lies in (0, 1], but got {config.layer_decay}.")
    if config.learning_rate_batch_size is not None and config.learning_rate_batch_size < 1:
        raise UserError(f"learning_rate_batch_size is at least 1, but got {config.learning_rate_batch_size}.")
    profile = config.profile_steps
    if len(profile) not in (0, 2) or any(type(step) is not int for step in profile) or list(profile) != sorted(profile):
        raise UserError(f"profile_steps is () or (first, last), two steps in their order, but got {tuple(profile)}.")
    _check_rates(config)
    _check_augment(config)


def _check_rates(config: ConfigDict) -> None:
    pairs = config.rate_scales
    if any(len(pair) != 2 or not isinstance(pair[0], str) or not 0 <= pair[1] < math.inf for pair in pairs):
        raise UserError(f"rate_scales are pairs of a regular expression and a factor of 0 or more, but got {pairs}.")
    for key, pattern in [("no_decay", config.no_decay or ""), *(("rate_scales", pattern) for pattern, _ in pairs)]:
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"{key} holds no regular expression: {pattern!r} ({error}).") from error


def _check_augment(config: ConfigDict) -> None:
    augment = config.augment
    for key in ("erase_probability", "cutmix_probability"):
        if not 0 <= augment[key] <= 1:
            raise UserError(f"augment.{key} lies in [0, 1], but got {augment[key]}.")
    for key in ("mixup_alpha", "cutmix_alpha"):
        if augment[key] < 0:
            raise UserError(f"augment.{key} is 0 (off) or positive, but got {augment[key]}.")
    if augment.mix_group is not None and (augment.mix_group < 1 or config.batch_size % augment.mix_group):
        raise UserError(f"augment.mix_group divides batch_size={config.batch_size}, but got {augment.mix_group}.")
    if not 0 <= config.label_smoothing < 1:
        raise UserError(f"label_smoothing lies in [0, 1), but got {config.label_smoothing}.")
