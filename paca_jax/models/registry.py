"""The named models, as values of one dataclass in one table."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike

from paca_jax.errors import UserError, nearest
from paca_jax.fields import check_value
from paca_jax.models.config import PaCaConfig, TeacherConfig
from paca_jax.models.detector import Detector
from paca_jax.models.heads import DetectorConfig, SegmentorConfig
from paca_jax.models.segmentor import Segmentor
from paca_jax.models.vit import PaCaViT
from paca_jax.ops import check_implementation

_TINY = PaCaConfig(drop_path_rate=0.1)
_SMALL = dataclasses.replace(_TINY, depths=(3, 3, 10, 3))
_BASE = PaCaConfig(embed_dims=(96, 192, 384, 512), depths=(3, 3, 18, 3), drop_path_rate=0.5)
_EVERY_STAGE = (100, 100, 100, 100)

_MODELS = {
    "pacavit_tiny_p2cconv_100_0": _TINY,
    "pacavit_small_p2cconv_100_0": _SMALL,
    "pacavit_base_p2cconv_100_0": _BASE,
    "pacavit_small_p2cmlp_100_0": dataclasses.replace(_SMALL, clustering="mlp"),
    "pacavit_small_p2cconv_2_0": dataclasses.replace(_SMALL, clusters=(2, 2, 2, 0)),
    "pacavit_small_p2cconv_49_0": dataclasses.replace(_SMALL, clusters=(49, 49, 49, 0)),
    "pacavit_small_p2cconv_49_100": dataclasses.replace(_SMALL, clusters=(49, 64, 81, 100)),
    "pacavit_small_p2cconv_100_49": dataclasses.replace(_SMALL, clusters=(100, 81, 64, 49)),
    "pacavit_small_p2cconv_100": dataclasses.replace(_SMALL, clusters=_EVERY_STAGE),
    "pacavit_small_p2cconv_100_blockwise": dataclasses.replace(_SMALL, clusters=_EVERY_STAGE, clustering_periods=(1, 1, 1, 1)),
    "pacavit_convmixer_tiny_100": dataclasses.replace(
        _TINY, depths=(2, 2, 2, 2), clusters=_EVERY_STAGE, teacher=TeacherConfig()
    ),
    "pacavit_convmixer_small_100": dataclasses.replace(
        _TINY, depths=(3, 3, 7, 3), clusters=_EVERY_STAGE, teacher=TeacherConfig()
    ),
    "pacavit_convmixer_base_100": dataclasses.replace(
        _BASE, depths=(3, 3, 16, 3), clusters=_EVERY_STAGE, teacher=TeacherConfig(depths=(2, 2, 4, 2)), drop_path_rate=0.1
    ),
    # Ours: the official code's linear clustering, named in its README and not published as a model.
    "pacavit_small_p2clinear_100_0": dataclasses.replace(_SMALL, clustering="linear"),
    # Ours: for small images; 32 pixels a side give maps of 8x8, 4x4, 2x2 and 1x1 patches.
    "pacavit_nano": PaCaConfig(
        embed_dims=(32, 64, 128, 160),
        depths=(1, 2, 2, 1),
        num_heads=(1, 2, 4, 5),
        mlp_ratios=(2, 2, 2, 2),
        clusters=(16, 8, 0, 0),
        image_size=32,
        crop=1.0,
    ),
}


# Backbones whose downstream models have a short name; the others are spelled in full, without "pacavit_".
_SHORT_NAMES = {
    "pacavit_tiny_p2cconv_100_0": "tiny",
    "pacavit_small_p2cconv_100_0": "small",
    "pacavit_base_p2cconv_100_0": "base",
    "pacavit_convmixer_tiny_100": "convmixer_tiny",
    "pacavit_convmixer_small_100": "convmixer_small",
    "pacavit_convmixer_base_100": "convmixer_base",
}
_SEGMENTOR_CLUSTERS = 200


def _downstream_name(prefix: str, backbone: str) -> str:
    return prefix + _SHORT_NAMES.get(backbone, backbone.removeprefix("pacavit_"))


def _detector_backbone(name: str) -> PaCaConfig:
    """Returns the backbone of a detector: with its own clusters, and the same stochastic depth for all but the nano model."""
    config = dataclasses.replace(_MODELS[name], num_classes=0)
    return config if name == "pacavit_nano" else dataclasses.replace(config, drop_path_rate=0.1)


def _segmentor_backbone(name: str, head: str) -> PaCaConfig:
    """Returns the backbone of a segmentor: 200 clusters wherever it has some (the nano model keeps its few)."""
    config = _detector_backbone(name)
    if name == "pacavit_nano":
        return config
    clusters = tuple(_SEGMENTOR_CLUSTERS if count else 0 for count in config.clusters)
    is_base = config.embed_dims == _BASE.embed_dims
    return dataclasses.replace(config, clusters=clusters, drop_path_rate=0.5 if is_base and head == "paca" else 0.1)


_SEGMENTOR_HEADS = {"pacahead_": ("paca", 256), "upernet_": ("upernet", 512)}
_DETECTOR = "mask_rcnn_"
_PREFIXES = (*_SEGMENTOR_HEADS, _DETECTOR)
_DOWNSTREAM: dict[str, SegmentorConfig | DetectorConfig] = {
    _downstream_name(prefix, name): SegmentorConfig(_segmentor_backbone(name, head), head, head_channels=channels)
    for prefix, (head, channels) in _SEGMENTOR_HEADS.items()
    for name in _MODELS
} | {_downstream_name(_DETECTOR, name): DetectorConfig(_detector_backbone(name)) for name in _MODELS}


def backbone_name(name: str) -> str:
    """Returns the model whose ImageNet weights the named model starts from: its backbone, or a classifier itself."""
    for prefix in _PREFIXES:
        for backbone in _MODELS:
            if name == _downstream_name(prefix, backbone):
                return backbone
    return name


def name_within(text: str) -> str | None:
    """Returns the longest name of a model that a text holds, or that of an official one ("pacahead_pacavit_tiny_...")."""
    names = {name: name for name in list_models()}
    names |= {prefix + name: _downstream_name(prefix, name) for prefix in _PREFIXES for name in _MODELS}
    return names.get(max((name for name in names if name in text), key=len, default=""))


def list_models() -> list[str]:
    """Returns the names that `create_model` knows: backbones with a classifier, segmentors, detectors."""
    return [*_MODELS, *_DOWNSTREAM]


def model_config(name: str, num_classes: int | None = None, **overrides: Any) -> PaCaConfig | SegmentorConfig | DetectorConfig:
    """Returns the named model's description with some fields replaced; downstream, the backbone takes what the head has not.

    Raises:
        UserError: if the name or a field is unknown; the nearest known ones are told.
    """
    if name not in list_models():
        raise UserError(f"There is no model named {name!r}; {nearest(str(name), list_models(), 'paca_jax.list_models()')}.")
    given: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    if name in _MODELS:
        return dataclasses.replace(_MODELS[name], **given, **_known(overrides, _CLASSIFIER_FIELDS))
    config = _DOWNSTREAM[name]
    head_fields = [field.name for field in dataclasses.fields(config) if field.name not in ("backbone", "head", "num_classes")]
    _known(overrides, head_fields + _BACKBONE_FIELDS)
    of_head = {key: value for key, value in overrides.items() if key in head_fields}
    of_backbone = {key: value for key, value in overrides.items() if key in _BACKBONE_FIELDS}
    return dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, **of_backbone), **of_head, **given)


_CLASSIFIER_FIELDS = [field.name for field in dataclasses.fields(PaCaConfig)]
_BACKBONE_FIELDS = [name for name in _CLASSIFIER_FIELDS if name not in ("num_classes", "image_size", "crop")]


_CREATION_OPTIONS = ("dtype", "remat", "split_rows", "implementation")


def _known(overrides: dict[str, Any], fields: list[str]) -> dict[str, Any]:
    for key in overrides:
        if key not in fields:
            raise UserError(f"This model has no option {key!r}; {nearest(key, [*fields, *_CREATION_OPTIONS])}.")
    return overrides


def create_model(
    name: str,
    num_classes: int | None = None,
    dtype: DTypeLike = jnp.float32,
    *,
    remat: bool = False,
    split_rows: bool = False,
    implementation: str | None = None,
    **overrides: Any,
) -> PaCaViT | Segmentor | Detector:
    """Returns a model by its name.

    Args:
        name: one of `list_models()`.
        num_classes: outputs of the classifier, 1000 by default, 0 for pooled features; a segmentor's classes, 150 by default;
            a detector's, 80.
        dtype: the type to compute in, e.g. "bfloat16"; parameters stay float32.
        remat: recompute each block in the gradient, which takes time and saves memory.
        split_rows: between blocks, split the rows of the maps over the mesh's `model` axis, for large images.
        implementation: how operations are computed, one of `ops.IMPLEMENTATIONS`; None chooses the fastest for each by
            target platform and shape (see `paca_jax.ops.implementation`).
        **overrides: any other field of `PaCaConfig`: `clusters`, `drop_path_rate`, `image_channels`, ...; segmentors and
            detectors have those of `SegmentorConfig` and `DetectorConfig` instead of `image_size` and `crop`.

    Raises:
        UserError: if the name or an override is unknown, or a value does not fit.
    """
    for option, value, hint in (
        ("remat", remat, bool),
        ("split_rows", split_rows, bool),
        ("implementation", implementation, str | None),
    ):
        check_value(option, value, hint)
    config = model_config(name, num_classes, **overrides)
    kind = {PaCaConfig: PaCaViT, SegmentorConfig: Segmentor, DetectorConfig: Detector}[type(config)]
    options = {"remat": remat, "split_rows": split_rows, "implementation": check_implementation(implementation)}
    return kind(config, _floating(dtype), **options)


def _floating(dtype: DTypeLike) -> jnp.dtype:
    try:
        found = jnp.dtype(dtype)
    except TypeError:
        found = None
    if dtype is None or found is None or not jnp.issubdtype(found, jnp.floating):
        raise UserError(f"Expected a floating-point dtype, got {dtype!r}. Choose 'float32' or 'bfloat16'.")
    return found
