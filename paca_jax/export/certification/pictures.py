"""The photographs that an exported program is tried on, as the program takes them."""

import numpy as np
from PIL import Image

from paca_jax import data
from paca_jax.data.transforms.padding import pad_picture
from paca_jax.data.transforms.placement import Placement
from paca_jax.data.transforms.resize_geometry import fitted_size
from paca_jax.export.program import Program
from paca_jax.paths import shipped

PICTURES = tuple(f"photographs/test/{name}.jpg" for name in ("mountains", "raccoon", "sunset"))
Inputs = dict[str, np.ndarray]


def example_inputs(program: Program) -> list[Inputs]:
    """Returns the arguments of a few calls: the photographs of each shape as one batch, then the first one alone.

    If the program takes a fixed number of images, each photograph is a batch of copies.
    """
    channels = program.model.config.image_channels
    seen = [_view(program, data.read_picture(shipped("datasets") / name, channels)) for name in PICTURES]
    count = program.inputs["images"].shape[0]
    if isinstance(count, int):
        return [{name: np.stack([view[name]] * count) for name in program.inputs} for view in seen]
    groups: dict[tuple[int, ...], list[Inputs]] = {}
    for view in seen:
        groups.setdefault(view["images"].shape, []).append(view)
    calls = [*groups.values(), seen[:1]]
    return [{name: np.stack([view[name] for view in views]) for name in program.inputs} for views in calls]


def _view(program: Program, picture: Image.Image) -> Inputs:
    """Returns the arguments for one picture, without the batch axis, as `export.json` describes them."""
    config = program.model.config
    if program.canvas is None:
        transform = data.eval_transform(config)
        view = transform.view(picture)
        if isinstance(transform, data.EvalTransform):
            return {"images": view}
        height, width = view["size_0"]
        return {"images": view["image_0"][:height, :width]}
    pixels = np.asarray(picture).reshape(picture.height, picture.width, -1)
    original = (picture.height, picture.width)
    fitted = fitted_size(original, config.short_side, config.long_side)
    placement = Placement.of_whole(original, fitted).within(program.canvas)
    padded = pad_picture(placement.pixels(pixels), program.canvas)
    return {"images": padded, "sizes": np.array(placement.final, np.int32)}
