"""The keys of a config, each with its default and its type.

A file in `configs/` starts from `default_config()` and changes values. Unknown keys and values of the wrong type are refused.
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
from paca_jax.ops import IMPLEMENTATIONS

# Fields of a model's config that other keys or the data set give.
_SET_ELSEWHERE = ("num_classes", "image_size", "crop", "teacher", "backbone", "head", "short_side", "long_side")
_CHOICES = {"dtype": ("float32", "bfloat16"), "on_nonfinite": ("stop", "skip"), "schedule": ("cosine", "linear", "steps")}
# Keys of `config.model` that are not options of the network. The implementation is never recorded in a checkpoint.
_NOT_OVERRIDES = ("name", "implementation")


def default_config() -> ConfigDict:
    """Returns a locked config with every key that exists."""
    config = ConfigDict()
    config.task = "classification"  # or "segmentation", "detection"
    config.seed = 0

    config.model = ConfigDict({"name": "pacavit_tiny_p2cconv_100_0", **_model_overrides()})
    config.model.implementation = placeholder(str)  # of the fused operations: "xla", "xla_cpu", "pallas_tpu"; None: automatic

    config.dataset = ConfigDict()
    config.dataset.name = "imagenet2012"
    config.dataset.data_dir = placeholder(str)  # None: the default folder of TFDS
    config.dataset.train_split = "train"
    config.dataset.eval_split = "validation"
    config.dataset.mask_feature = "mask"  # segmentation: the feature that holds the label maps
    config.dataset.ignore_zero = placeholder(bool)  # whether index 0 means unlabeled and k + 1 means class k; None: by data set
    config.dataset.boxes_only = False  # detection: train and evaluate boxes alone; the mask of an object is then its box
    config.dataset.skip_corrupt = False  # whether to skip (and count) images that are missing or cannot be read
    config.dataset.num_workers = 0  # processes that read and augment; 0: threads

    config.image_size = 224  # side of a training image in pixels
    config.eval_crop = 0.9  # fraction of the resized short side that evaluation keeps
    config.short_side = 512  # segmentation and detection: images are resized to this short side, ...
    config.long_side = 2048  # ... or to this long side if that makes them smaller
    config.augment = ConfigDict()
    config.augment.crop_scale = (0.08, 1.0)  # fraction of the area
    config.augment.crop_ratio = (3 / 4, 4 / 3)  # width over height
    config.augment.short_sides = tuple(range(480, 801, 32))  # detection: one is drawn for each image
    config.augment.bucket_sides = (640, 800)  # detection: short sides of the shapes to which images are padded
    config.augment.detr_crop = True  # detection: half of the images are cropped before they are resized
    config.augment.resize_range = (0.5, 2.0)  # segmentation: scale of the image before it is cropped
    config.augment.category_limit = 0.75  # segmentation: redraw crops in which one class has this fraction of the pixels
    config.augment.photometric = True  # segmentation: change brightness, contrast, saturation and hue
    config.augment.flip = True
    config.augment.color_jitter = 0.0  # strength; recipes with RandAugment have none
    config.augment.rand_operations = 0  # RandAugment operations per image; 0: off
    config.augment.rand_magnitude = 9.0
    config.augment.rand_magnitude_std = 0.5
    config.augment.erase_probability = 0.0
    config.augment.mixup_alpha = 0.0  # 0: off
    config.augment.cutmix_alpha = 0.0  # 0: off
    config.augment.cutmix_probability = 0.5  # of cutmix rather than mixup, if both are on
    config.augment.mix_group = placeholder(int)  # images that mix among themselves, with one lam; None: the whole batch

    config.test = ConfigDict()  # segmentation: the views of an evaluation image
    config.test.scales = (1.0,)  # of the resized image; the probabilities of several views are averaged
    config.test.flip = False  # add mirrored views
    config.test.window = 0  # side of sliding windows in pixels; 0: the whole image at once
    config.test.window_stride = 341
    config.test.size_multiple = 64  # pad sides to multiples of this, so that fewer shapes are compiled

    config.batch_size = 1024  # over all devices
    config.accumulate_steps = 1  # parts of a batch that are processed one after the other
    config.num_steps = placeholder(int)  # overrides num_epochs
    config.num_epochs = 300.0
    config.dtype = "float32"  # of the computation; parameters are float32
    config.remat = False  # rematerialize blocks in the backward pass: slower, and less memory

    config.learning_rate = 1e-3
    config.warmup_steps = placeholder(int)  # overrides warmup_epochs
    config.warmup_epochs = 5.0
    config.warmup_learning_rate = 0.0  # at step 0
    config.min_learning_rate = 0.0  # at the end
    config.learning_rate_batch_size = placeholder(int)  # scale the three rates by batch_size over this; None: do not scale
    config.schedule = "cosine"  # after the warm-up; or "linear", "steps": see `make_schedule`
    config.decay_epochs = ()  # "steps": the epochs at which the rate falls to a tenth
    config.schedule_by_epoch = False  # change the rate once per epoch, not at every step
    config.layer_decay = 1.0  # factor of the rate from each layer to the next one further from the head
    config.freeze_backbone = False  # train only the head
    config.rate_scales = ()  # (regular expression, factor): scale the rate of parameters whose path matches
    config.weight_decay = 0.05
    config.no_decay = placeholder(str)  # regular expression of parameters without weight decay; None: all with one axis
    config.beta1 = 0.9
    config.beta2 = 0.999
    config.label_smoothing = 0.1
    config.clip_norm = 0.0  # 0: off
    config.ema_decay = 0.0  # 0: off; otherwise evaluation uses the averaged weights
    config.on_nonfinite = "stop"  # if a loss or gradient is infinite or NaN: "stop" the run, or "skip" the step

    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "model": 1})  # devices along each axis; -1: all that remain
    config.mesh.split_rows = False  # between blocks, split the rows of the images over `model`

    config.log_every_steps = 100
    config.eval_every_steps = 5000
    config.checkpoint_every_steps = 1000
    config.checkpoint_keep = 3  # newest checkpoints to keep, besides the best one
    config.profile_steps = ()  # (first, last): trace these steps into WORKDIR/plugins/profile
    config.init_from = placeholder(str)  # a workdir, a file, an official model's name, or "official": the model's own weights
    config.init_weights = placeholder(str)  # "raw" or "ema", if it has both; None: as for `paca_jax.load`
    config.init_rgb_to_gray = False  # sum the first kernel of weights for RGB images, for a model of gray ones
    config.init_allow_new = ()  # layers that may start from scratch: "head", "clustering"
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
    """Returns the options of the network that the config sets."""
    return {key: value for key, value in config.model.items() if key not in _NOT_OVERRIDES and value is not None}


@dataclasses.dataclass(frozen=True)
class Steps:
    """The length of a run.

    Attributes:
        total: optimizer steps of the whole run.
        warmup: steps of the linear warm-up; may exceed `total`.
        per_epoch: steps per pass over the training set.
    """

    total: int
    warmup: int
    per_epoch: float


def count_steps(config: ConfigDict, num_examples: int) -> Steps:
    """Returns the length of a run on a training set of `num_examples`.

    Raises:
        UserError: if the run has no steps.
    """
    per_epoch = num_examples / config.batch_size
    total = round(config.num_epochs * per_epoch) if config.num_steps is None else config.num_steps
    warmup = round(config.warmup_epochs * per_epoch) if config.warmup_steps is None else config.warmup_steps
    if total < 1:
        raise UserError(
            f"Expected a run of at least one step, got {total} (num_steps={config.num_steps}, num_epochs={config.num_epochs}, "
            f"{num_examples} examples in batches of {config.batch_size}). Raise num_steps or num_epochs."
        )
    return Steps(total, max(warmup, 0), per_epoch)


def check_config(config: ConfigDict, batch_shards: int) -> None:
    """Checks the values of a config beyond their types.

    Args:
        config: the config of a run.
        batch_shards: parts into which the mesh splits a batch.

    Raises:
        UserError: if a value is out of range. The message names the key.
    """
    parts = batch_shards * config.accumulate_steps
    if config.accumulate_steps < 1 or config.batch_size < 1 or config.batch_size % parts:
        raise UserError(
            f"Expected batch_size to be a multiple of {parts} ({batch_shards}, the product of mesh.data and mesh.fsdp, times "
            f"accumulate_steps={config.accumulate_steps}), got {config.batch_size}. Change one of them."
        )
    for key in ("image_size", "log_every_steps", "eval_every_steps", "checkpoint_every_steps", "checkpoint_keep"):
        _expect(config[key] >= 1, key, "at least 1", config[key])
    for key, choices in _CHOICES.items():
        _expect(config[key] in choices, key, " or ".join(choices), config[key])
    known = (None, *IMPLEMENTATIONS)
    asked = config.model.implementation
    _expect(asked in known, "model.implementation", f"one of {', '.join(map(str, known))}", asked)
    _expect(0 <= config.ema_decay < 1, "ema_decay", "in [0, 1)", config.ema_decay)
    _expect(0 < config.layer_decay <= 1, "layer_decay", "in (0, 1]", config.layer_decay)
    _expect(0 <= config.label_smoothing < 1, "label_smoothing", "in [0, 1)", config.label_smoothing)
    rate_batch = config.learning_rate_batch_size
    _expect(rate_batch is None or rate_batch >= 1, "learning_rate_batch_size", "at least 1", rate_batch)
    profile = tuple(config.profile_steps)
    in_order = len(profile) in (0, 2) and all(type(step) is int for step in profile) and profile == tuple(sorted(profile))
    _expect(in_order, "profile_steps", "() or two steps (first, last) in order", profile)
    _check_expressions(config)
    _check_augment(config)


def _expect(holds: bool, key: str, expected: str, value: object) -> None:
    if not holds:
        raise UserError(f"Expected {key} to be {expected}, got {value!r}. Change {key}.")


def _check_expressions(config: ConfigDict) -> None:
    pairs = config.rate_scales
    fit = all(len(pair) == 2 and isinstance(pair[0], str) and 0 <= pair[1] < math.inf for pair in pairs)
    _expect(fit, "rate_scales", "pairs of a regular expression and a factor of 0 or more", pairs)
    for key, pattern in [("no_decay", config.no_decay or ""), *(("rate_scales", pattern) for pattern, _ in pairs)]:
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"Expected a regular expression in {key}, got {pattern!r} ({error}). Correct it.") from error


def _check_augment(config: ConfigDict) -> None:
    augment = config.augment
    for key in ("erase_probability", "cutmix_probability"):
        _expect(0 <= augment[key] <= 1, f"augment.{key}", "in [0, 1]", augment[key])
    for key in ("mixup_alpha", "cutmix_alpha"):
        _expect(augment[key] >= 0, f"augment.{key}", "positive, or 0 to turn it off", augment[key])
    group = augment.mix_group
    divides = group is None or (group >= 1 and config.batch_size % group == 0)
    _expect(divides, "augment.mix_group", f"a divisor of batch_size={config.batch_size}", group)
