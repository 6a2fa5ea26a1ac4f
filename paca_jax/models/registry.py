"""The named models, as values of one dataclass in one table."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike

from paca_jax.errors import UserError, nearest
from paca_jax.models.config import PaCaConfig, TeacherConfig
from paca_jax.models.vit import PaCaViT

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


def list_models() -> list[str]:
    """Returns the names that `create_model` knows."""
    return list(_MODELS)


def model_config(name: str, **overrides: Any) -> PaCaConfig:
    """Returns the named model's description with some fields replaced.

    Raises:
        UserError: if the name or a field is unknown; the nearest known ones are told.
    """
    if name not in _MODELS:
        raise UserError(f"There is no model named {name!r}; {nearest(name, list(_MODELS))}.")
    fields = [field.name for field in dataclasses.fields(PaCaConfig)]
    for key in overrides:
        if key not in fields:
            raise UserError(f"A model has no option {key!r}; {nearest(key, [*fields, 'dtype', 'remat', 'split_rows'])}.")
    return dataclasses.replace(_MODELS[name], **overrides)


def create_model(
    name: str,
    num_classes: int = 1000,
    dtype: DTypeLike = jnp.float32,
    *,
    remat: bool = False,
    split_rows: bool = False,
    **overrides: Any,
) -> PaCaViT:
    """Returns a model by its name.

    Args:
        name: one of `list_models()`.
        num_classes: outputs of the classifier; 0 for pooled features.
        dtype: the type to compute in, e.g. "bfloat16"; parameters stay float32.
        remat: compute each block anew in a gradient, which takes time and spares memory.
        split_rows: between blocks, split the rows of the maps over the mesh's `model` axis: for large images.
        **overrides: any other field of `PaCaConfig`: `clusters`, `drop_path_rate`, `image_channels`, ...

    Raises:
        UserError: if the name or an override is unknown, or a value does not fit.
    """
    return PaCaViT(model_config(name, num_classes=num_classes, **overrides), jnp.dtype(dtype), remat, split_rows)
