"""The list of all keys of a config, each with its value, its comment and its range, derived from where these stand."""

import inspect
import re

from ml_collections import ConfigDict

from paca_jax.fields import describe
from paca_jax.models import DetectorConfig, PaCaConfig, SegmentorConfig
from paca_jax.train.config import VALUES, default_config, flat_items

_COMMENT = re.compile(r"^ +config\.([\w.]+) = .*  # (.*)$", re.MULTILINE)
_ATTRIBUTE = re.compile(r"^    (\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)


def describe_config(config: ConfigDict) -> str:
    """Returns a text with every key of a config: its value, its default if that is another, its comment, its type and range."""
    comments = _comments()
    defaults = {key: value for key, value, _ in flat_items(default_config())}
    lines = []
    for key, value, _ in flat_items(config):
        default = "" if value == defaults[key] else f"  (default: {defaults[key]})"
        comment = comments.get(key) or comments.get(key.rpartition(".")[0])
        lines += [f"--config.{key}={value}{default}", *([f"    {comment}"] if comment else []), f"    {describe(VALUES[key])}"]
    return "\n".join(lines)


def _comments() -> dict[str, str]:
    """Returns the comment of each key or group of keys that has one: in `default_config`, or that of an option of a model."""
    options: dict[str, str] = {}
    for kind in (DetectorConfig, SegmentorConfig, PaCaConfig):
        attributes = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:")[2]
        for name, text in _ATTRIBUTE.findall(attributes):
            options[f"model.{name}"] = f"{' '.join(text.split()).rstrip('.')}; None: as in the model of model.name"
    return options | dict(_COMMENT.findall(inspect.getsource(default_config)))
