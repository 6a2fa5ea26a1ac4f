"""The folder of a repository of the Hugging Face Hub: weights, config, model card."""

import json
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from paca_jax.checkpoints.files import CONFIG, IN_FOLDERS, write_state_dict
from paca_jax.checkpoints.hub.card import kind_of, write_card
from paca_jax.checkpoints.hub.client import check_repository
from paca_jax.checkpoints.hub.run import read_run
from paca_jax.checkpoints.loading import Loaded, read_model
from paca_jax.convert import to_torch
from paca_jax.errors import UserError
from paca_jax.files import check_new_folder, read_file, write_file
from paca_jax.models import PaCaConfig
from paca_jax.ops import MEAN, STD

CARD = "README.md"


def write_hub_folder(
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    repository: str,
    *,
    model: str | None = None,
    weights: str | None = None,
    class_names: Sequence[str] | None = None,
    license: str | None = None,
    picture: bool = True,
    allow_nonfinite: bool = False,
) -> Loaded:
    """Writes a model as the folder of a repository of the Hugging Face Hub, which `paca_jax.load` reads. Uploads nothing.

    The folder holds `model.safetensors` (the names and layouts of the official PyTorch code; the recipe and the names of the
    classes in its header), `config.json` and the model card `README.md`. If the source is the checkpoint of a run, the card has
    what the run measured of these weights and, of its last checkpoint, the picture that the run has drawn.

    Args:
        source: the place of the weights, as for `paca_jax.load`, or an official model's name.
        folder: the folder to write to, on this machine; new or empty.
        repository: the repository that the card is for, OWNER/NAME.
        model: the model's name, if the source does not say it.
        weights: "raw" or "ema", as for `paca_jax.load`.
        class_names: the names of the model's outputs, instead of those that the source has.
        license: the license of the weights in the words of the Hub, such as "mit" or "cc-by-nc-4.0"; None to state none.
        picture: whether to add the picture of the run, which shows images of its evaluation set.
        allow_nonfinite: accept weights that are NaN or infinite.

    Returns:
        The model and its variables, with what there is to say about the source.

    Raises:
        UserError: if an argument is wrong, the source cannot be read, or the folder is not empty or cannot be written. Nothing
            is left in the folder then.
    """
    check_repository(repository)
    if license is not None and not (isinstance(license, str) and re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", license)):
        raise UserError(f"Expected a license in the words of the Hub, such as mit or apache-2.0, got {license!r}. Correct it.")
    place = check_new_folder(folder)
    run = read_run(source, weights)
    loaded = read_model(
        source if run is None else run.checkpoint,
        model,
        weights=weights,
        class_names=class_names,
        allow_nonfinite=allow_nonfinite,
    )
    shown = None if run is None or run.pictures is None or not picture else run.pictures / kind_of(loaded).picture
    shown = shown if shown is not None and shown.exists() else None
    files: dict[str, str | bytes] = {
        # Names of folders that are no text have lone surrogates, which JSON can hold, but not UTF-8.
        CONFIG: f"{json.dumps(hub_config(loaded), indent=2, ensure_ascii=False)}\n".encode(errors="backslashreplace"),
        CARD: write_card(loaded, repository, run, license, has_picture=shown is not None),
    }
    if shown is not None:
        files[shown.name] = read_file(shown)
    state = to_torch(loaded.variables, loaded.model)
    _write(place, files, state, loaded)
    return loaded


def hub_config(loaded: Loaded) -> dict[str, Any]:
    """Returns the content of `config.json`: the recipe, the classes and the images of a model, for this library and others."""
    config: Any = loaded.model.config
    names, channels = loaded.class_names, config.image_channels
    # One channel is normalized with the means of the three values.
    mean, std = ([float(np.mean(values))] if channels == 1 else list(values) for values in (MEAN, STD))
    size = config.image_size if isinstance(config, PaCaConfig) else config.short_side
    view: dict[str, Any] = {"interpolation": "bicubic", "mean": mean, "std": std}
    if isinstance(config, PaCaConfig):
        view = {"input_size": [channels, size, size], "crop_pct": config.crop, **view}
    labels: dict[str, Any] = {}
    if names is not None:
        labels["id2label"] = {str(index): name for index, name in enumerate(names)}
        if len(set(names)) == len(names):  # ImageNet's are not unique: a crane is a bird and a machine
            labels["label2id"] = {name: index for index, name in enumerate(names)}
    return {
        "library_name": "paca-jax",
        "model_type": "pacavit",
        "architectures": [type(loaded.model).__name__],
        "architecture": loaded.recipe["name"],
        "paca_jax": loaded.recipe,
        "num_classes": config.num_classes,
        **labels,
        "image_size": size,
        "num_channels": channels,
        "pretrained_cfg": {"num_classes": config.num_classes, **view},
    }


def _write(folder: epath.Path, files: dict[str, str | bytes], state: dict[str, np.ndarray], loaded: Loaded) -> None:
    """Writes the files, the weights last, or none of them."""
    try:
        for name, content in files.items():
            write_file(folder / name, content)
        write_state_dict(folder / IN_FOLDERS[0], state, loaded.recipe, loaded.class_names)
    except BaseException:
        for name in (*files, IN_FOLDERS[0]):
            (folder / name).unlink(missing_ok=True)
        raise
