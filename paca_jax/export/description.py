"""`export.json`: what an exported program takes and returns, and how to make that of a picture, for people and programs."""

import json
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from paca_jax.errors import UserError
from paca_jax.export.program import Program
from paca_jax.models import PaCaConfig, SegmentorConfig
from paca_jax.ops import MEAN, STD
from paca_jax.version import __version__


def describe(program: Program, file: str, class_names: Sequence[str] | None) -> str:
    """Returns the content of `export.json`.

    Args:
        program: the program.
        file: the name of its file.
        class_names: the names of the model's classes, if they are known.

    Raises:
        UserError: if there is not a name for each class.
    """
    count = program.model.config.num_classes
    if class_names is not None and len(class_names) != count:
        raise UserError(f"Expected the names of {count} classes, got {len(class_names)}. Give one for each.")
    outputs = jax.eval_shape(program.function, *program.inputs.values())
    content = {
        "program": file,
        "weight_dtype": program.weight_dtype,
        "inputs": {name: _array(struct) for name, struct in program.inputs.items()},
        "outputs": {name: _array(struct) for name, struct in outputs.items()},
        "preprocessing": _preprocessing(program),
        "num_classes": count,
        "class_names": None if class_names is None else list(class_names),
        "paca_jax": __version__,
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _array(struct: jax.ShapeDtypeStruct) -> dict[str, Any]:
    """Returns the shape, in which strings are symbols and formulas of them, and the type of an array."""
    return {"shape": [side if isinstance(side, int) else str(side) for side in struct.shape], "dtype": str(struct.dtype)}


def _preprocessing(program: Program) -> dict[str, Any]:
    config = program.model.config
    gray = config.image_channels == 1
    steps: dict[str, Any] = {"color": "gray" if gray else "RGB"}
    if isinstance(config, PaCaConfig):
        steps |= {
            "resize": {"short_side": math.floor(config.image_size / config.crop), "interpolation": "bicubic, as Pillow's"},
            "center_crop": [config.image_size, config.image_size],
        }
    else:
        fit = {"short_side": config.short_side, "long_side": config.long_side}
        steps["resize"] = {"fit_into": fit, "interpolation": "bilinear, as OpenCV's"}
    if not isinstance(config, PaCaConfig | SegmentorConfig):
        steps["pad"] = {"height_width": program.canvas, "where": "right and bottom", "sizes": "height and width before padding"}
    mean, std = (([float(np.mean(values))] if gray else list(values)) for values in (MEAN, STD))
    return steps | {"normalization": {"inside_the_program": True, "mean": mean, "std": std}}
