"""The keys of a config, each with its default and its type.

A file in `configs/` starts from `default_config()` and changes values. Unknown keys and values of the wrong type are refused.
"""

import dataclasses
import re
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from paca_jax.convert.checkpoint import WEIGHTS
from paca_jax.errors import UserError, shorten
from paca_jax.fields import ASCENDING, Hint, Length, OneOf, Range, check_value, plain_type
from paca_jax.models import DetectorConfig, PaCaConfig, SegmentorConfig
from paca_jax.models.config import Rate, Side
from paca_jax.models.variables import GROUPS
from paca_jax.ops import IMPLEMENTATIONS

# Fields of a model's config that other keys or the data set give.
_SET_ELSEWHERE = ("num_classes", "image_size", "crop", "teacher", "backbone", "head", "short_side", "long_side")
# Keys of `config.model` that are not options of the network. The implementation is never recorded in a checkpoint.
_NOT_OVERRIDES = ("name", "implementation")


def default_config() -> ConfigDict:
    """Returns a locked config with every key that exists."""
    config = ConfigDict()
    config.task = "classification"  # or "segmentation", "detection"
    config.seed = 0  # of every random draw

    config.model = ConfigDict(
        {"name": "pacavit_tiny_p2cconv_100_0", **{key: placeholder(plain_type(hint)) for key, hint in _model_hints().items()}}
    )
    config.model.implementation = placeholder(str)  # of operations: "xla", "xla_cpu", "pallas_tpu", ...; None: automatic

    config.dataset = ConfigDict()
    config.dataset.name = "imagenet2012"  # of TFDS, or "folder", "ade20k", "coco"
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
    config.augment.flip = True  # mirror half of the images
    config.augment.color_jitter = 0.0  # strength; recipes with RandAugment have none
    config.augment.rand_operations = 0  # RandAugment operations per image; 0: off
    config.augment.rand_magnitude = 9.0  # the mean strength of these operations
    config.augment.rand_magnitude_std = 0.5  # its standard deviation
    config.augment.erase_probability = 0.0  # of noise in place of a rectangle of an image
    config.augment.mixup_alpha = 0.0  # 0: off
    config.augment.cutmix_alpha = 0.0  # 0: off
    config.augment.cutmix_probability = 0.5  # of cutmix rather than mixup, if both are on
    config.augment.mix_group = placeholder(int)  # images that mix among themselves, with one lam; None: the whole batch

    config.test = ConfigDict()  # segmentation: the views of an evaluation image
    config.test.scales = (1.0,)  # of the resized image; the probabilities of several views are averaged
    config.test.flip = False  # add mirrored views
    config.test.window = 0  # side of sliding windows in pixels; 0: the whole image at once
    config.test.window_stride = 341  # pixels from one window to the next
    config.test.size_multiple = 64  # pad sides to multiples of this, so that fewer shapes are compiled

    config.batch_size = 1024  # over all devices
    config.accumulate_steps = 1  # parts of a batch that are processed one after the other
    config.num_steps = placeholder(int)  # overrides num_epochs
    config.num_epochs = 300.0  # passes over the training set
    config.dtype = "float32"  # of the computation; parameters are float32
    config.remat = False  # rematerialize blocks in the backward pass: slower, and less memory

    config.learning_rate = 1e-3  # after the warm-up
    config.warmup_steps = placeholder(int)  # overrides warmup_epochs
    config.warmup_epochs = 5.0  # in which the learning rate rises linearly
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
    config.on_nonfinite = "stop"  # if a loss, gradient or update is infinite or NaN: "stop" the run, or "skip" the step

    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "model": 1})  # devices along each axis; -1: all that remain
    config.mesh.split_rows = False  # between blocks, split the rows of the images over `model`

    config.log_every_steps = 100  # steps from one line of metrics to the next
    config.eval_every_steps = 5000  # steps from one evaluation to the next
    config.checkpoint_every_steps = 1000  # steps from one checkpoint to the next
    config.checkpoint_keep = 3  # newest checkpoints to keep, besides the best one
    config.profile_steps = ()  # (first, last): trace these steps into WORKDIR/plugins/profile
    config.init_from = placeholder(str)  # a workdir, a file, an official model's name, or "official": the model's own weights
    config.init_weights = placeholder(str)  # "raw" or "ema", if it has both; None: as for `paca_jax.load`
    config.init_rgb_to_gray = False  # sum the first kernel of weights for RGB images, for a model of gray ones
    config.init_allow_new = ()  # layers that may start from scratch: "head", "clustering"
    return config.lock()


def _model_hints() -> dict[str, Hint]:
    """Returns the annotation of each option of a model."""
    kinds = (DetectorConfig, SegmentorConfig, PaCaConfig)
    hints = {name: hint for kind in kinds for name, hint in typing.get_type_hints(kind, include_extras=True).items()}
    return {name: hint for name, hint in hints.items() if name not in _SET_ELSEWHERE}


def restored_config(recorded: Mapping[str, Any]) -> ConfigDict:
    """Returns the config that was recorded as nested dicts, perhaps by another version of the library.

    Keys that it does not have keep their defaults, and keys that do not exist any more are left out.

    Raises:
        UserError: if a value has another type, or is out of range.
    """
    config = default_config()
    flat = flatten_dict(recorded, sep=".")
    for key, hint in VALUES.items():
        if key in flat:
            value = _with_tuples(flat[key])
            check_value(key, value, hint)
            config.update_from_flattened_dict({key: value})
    check_values(config)
    return config


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
        UserError: if the run has no steps, or it or its warm-up has more than their counter holds.
    """
    per_epoch = num_examples / config.batch_size
    total = round(config.num_epochs * per_epoch) if config.num_steps is None else config.num_steps
    warmup = round(config.warmup_epochs * per_epoch) if config.warmup_steps is None else config.warmup_steps
    if not 1 <= total < 2**31 or warmup >= 2**31:
        raise UserError(
            f"Expected a run of 1 to {2**31 - 1} steps and no longer warm-up, got {total} and {warmup} "
            f"(num_steps={config.num_steps}, num_epochs={config.num_epochs}, warmup_epochs={config.warmup_epochs}, "
            f"{num_examples} examples in batches of {config.batch_size}). Change one of them."
        )
    return Steps(total, warmup, per_epoch)


def check_config(config: ConfigDict, batch_shards: int) -> None:
    """Checks the values of a config, and that its batch can be split.

    Args:
        config: the config of a run.
        batch_shards: parts into which the mesh splits a batch.

    Raises:
        UserError: if a value is wrong. The message names the key.
    """
    check_values(config)
    parts = batch_shards * config.accumulate_steps
    if config.batch_size % parts:
        raise UserError(
            f"Expected batch_size to be a multiple of {parts} ({batch_shards}, the product of mesh.data and mesh.fsdp, times "
            f"accumulate_steps={config.accumulate_steps}), got {config.batch_size}. Change one of them."
        )
    group = config.augment.mix_group
    if group is not None and config.batch_size % group:
        raise UserError(
            f"Expected augment.mix_group to be a divisor of batch_size={config.batch_size}, got {group}. Change one of them."
        )


def check_keys(config: ConfigDict, place: str) -> None:
    """Checks that a config, from a place that messages name, has exactly the keys of `default_config()`.

    Raises:
        UserError: if a key is missing or unknown.
    """
    keys = {key for key, _, _ in flat_items(config)}
    for lack, names in (("without", VALUES.keys() - keys), ("that also has", keys - VALUES.keys())):
        if names:
            found = shorten(", ".join(sorted(names)))
            raise UserError(
                f"Expected the keys of default_config() in {place}, got a config {lack} {found}. Start from that one."
            )


def check_values(config: ConfigDict) -> None:
    """Checks that a config has exactly the keys of `default_config()`, and each value its type and range.

    Raises:
        UserError: if a key is missing or unknown, or a value is wrong. The message names the key.
    """
    check_keys(config, "the config")
    values = {key: value for key, value, _ in flat_items(config)}
    for key, hint in VALUES.items():
        check_value(key, _with_tuples(values[key]), hint)
    for key, pattern in [("no_decay", config.no_decay or ""), *(("rate_scales", pattern) for pattern, _ in config.rate_scales)]:
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise UserError(f"Expected a regular expression in {key}, got {pattern!r} ({error}). Correct it.") from error


def _with_tuples(value: Any) -> Any:
    return tuple(map(_with_tuples, value)) if isinstance(value, list | tuple) else value


def flat_items(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any, type]]:
    """Yields the dotted keys of a config, each with its value and the type that it is declared with."""
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            yield from flat_items(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value, config.get_type(key)


_Part = Annotated[float, Range(0, 1, "(]")]
_Scale = Annotated[float, Range(0, 100, "(]")]
_Strength = Annotated[float, Range(0, 1000)]
_Positive = Annotated[int, Range(1, 2**24)]
_Step = Annotated[int, Range(1, 10**9)]
_Epochs = Annotated[float, Range(0, 10**6)]
_Factor = Annotated[float, Range(0, 10**6)]
_Sides = Annotated[tuple[Side, ...], Length(1, 100)]
_Pair = Annotated[tuple[_Scale, _Scale], ASCENDING]

# The type and the range of every key; keys that are not listed here have only the type of their default. The bounds are beyond
# any run that is of use: they keep a slip of a digit from exhausting the machine.
VALUES: dict[str, Hint] = {
    **{key: kind | None if value is None else kind for key, value, kind in flat_items(default_config())},
    **{f"model.{key}": hint | None for key, hint in _model_hints().items()},
    "task": Annotated[str, OneOf("classification", "segmentation", "detection")],
    "seed": Annotated[int, Range(0, 2**32 - 1)],
    "model.implementation": Annotated[str, OneOf(*IMPLEMENTATIONS)] | None,
    "dataset.num_workers": Annotated[int, Range(0, 512)],
    **dict.fromkeys(("image_size", "short_side", "long_side"), Side),
    "eval_crop": _Part,
    "augment.crop_scale": Annotated[tuple[_Part, _Part], ASCENDING],
    **dict.fromkeys(("augment.crop_ratio", "augment.resize_range"), _Pair),
    **dict.fromkeys(("augment.short_sides", "augment.bucket_sides"), _Sides),
    "augment.category_limit": _Part,
    **dict.fromkeys(("augment.color_jitter", "augment.rand_magnitude_std"), _Strength),
    "augment.rand_operations": Annotated[int, Range(0, 100)],
    "augment.rand_magnitude": Annotated[float, Range(0, 10)],
    **dict.fromkeys(("augment.erase_probability", "augment.cutmix_probability"), Annotated[float, Range(0, 1)]),
    **dict.fromkeys(("augment.mixup_alpha", "augment.cutmix_alpha"), _Strength),
    "augment.mix_group": _Positive | None,
    "test.scales": Annotated[tuple[_Scale, ...], Length(1, 100)],
    "test.window": Annotated[int, Range(0, 16_384)],
    **dict.fromkeys(("test.window_stride", "test.size_multiple"), Side),
    **dict.fromkeys(("batch_size", "accumulate_steps"), _Positive),
    "learning_rate_batch_size": _Positive | None,
    "num_steps": _Step | None,
    "warmup_steps": Annotated[int, Range(0, 10**9)] | None,
    **dict.fromkeys(("num_epochs", "warmup_epochs"), _Epochs),
    "dtype": Annotated[str, OneOf("float32", "bfloat16")],
    **dict.fromkeys(("learning_rate", "warmup_learning_rate", "min_learning_rate", "weight_decay"), _Strength),
    "schedule": Annotated[str, OneOf("cosine", "linear", "steps")],
    "decay_epochs": Annotated[tuple[_Epochs, ...], Length(0, 1000), ASCENDING],
    "layer_decay": _Part,
    "rate_scales": Annotated[tuple[tuple[str, _Factor], ...], Length(0, 1000)],
    **dict.fromkeys(("beta1", "beta2", "label_smoothing", "ema_decay"), Rate),
    "clip_norm": Annotated[float, Range(0, 10**9)],
    "on_nonfinite": Annotated[str, OneOf("stop", "skip")],
    **dict.fromkeys(("mesh.data", "mesh.fsdp", "mesh.model"), Annotated[int, Range(-1, 2**20)]),
    **dict.fromkeys(("log_every_steps", "eval_every_steps", "checkpoint_every_steps", "checkpoint_keep"), _Step),
    "profile_steps": tuple[()] | Annotated[tuple[_Step, _Step], ASCENDING],
    "init_weights": Annotated[str, OneOf(*WEIGHTS)] | None,
    "init_allow_new": Annotated[tuple[Annotated[str, OneOf(*GROUPS)], ...], Length(0, len(GROUPS))],
}
