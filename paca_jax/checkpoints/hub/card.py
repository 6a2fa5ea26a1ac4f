"""The model card: the README.md of a repository of the Hugging Face Hub."""

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from paca_jax.checkpoints.hub.run import RunRecord
from paca_jax.checkpoints.loading import Loaded
from paca_jax.errors import one_line
from paca_jax.models import Detector, PaCaConfig, Segmentor

_LISTED = 10
_CITATION = """\
```bibtex
@inproceedings{grainger2023paca,
  title={PaCa-ViT: Learning Patch-to-Cluster Attention in Vision Transformers},
  author={Grainger, Ryan and Paniagua, Thomas and Song, Xi and Cuntoor, Naresh and Lee, Mun Wai and Wu, Tianfu},
  booktitle={Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  pages={18568--18578},
  year={2023}
}
```"""


class Kind(NamedTuple):
    """A kind of model.

    Attributes:
        pipeline: its task in the words of the Hub.
        task: the same in the words of this library.
        picture: the file in a workdir that shows what the model makes of evaluation images.
        caption: what the picture shows.
        use: the lines of code that use the model on an `image`.
    """

    pipeline: str
    task: str
    picture: str
    caption: str
    use: str


_SEGMENTATION = Kind(
    "image-segmentation",
    "semantic segmentation",
    "segments.png",
    "Evaluation images, and the classes that the model finds in them",
    "logits = model.apply(variables, image[None])  # (1, H/4, W/4, {classes})",
)
_DETECTION = Kind(
    "object-detection",
    "object detection and instance segmentation",
    "detections.png",
    "Evaluation images, and the objects that the model finds in them",
    "found = model.apply(variables, image[None])  # boxes, scores, labels, masks, valid",
)
_CLASSIFICATION = Kind(
    "image-classification",
    "image classification",
    "clusters.png",
    "Evaluation images, the model's predictions, and its strongest clusters as heat maps",
    "logits = model.apply(variables, image[None])  # (1, {classes})",
)
_FEATURES = Kind(
    "image-feature-extraction",
    "image features",
    "clusters.png",
    _CLASSIFICATION.caption,
    "features = model.apply(variables, image[None])  # (1, channels)",
)


def kind_of(loaded: Loaded) -> Kind:
    """Returns the kind of a model."""
    if isinstance(loaded.model, Segmentor):
        return _SEGMENTATION
    if isinstance(loaded.model, Detector):
        return _DETECTION
    return _CLASSIFICATION if loaded.model.config.num_classes else _FEATURES


def write_card(loaded: Loaded, repository: str, run: RunRecord | None, license: str | None, has_picture: bool) -> str:
    """Returns the text of a model card. It claims nothing that was not recorded.

    Args:
        loaded: the model.
        repository: the repository that the card is for, OWNER/NAME.
        run: the record of the run that the weights are of, if there is one.
        license: the license of the weights in the Hub's words; None if it is not known.
        has_picture: whether the kind's picture is beside the card.
    """
    kind = kind_of(loaded)
    parts = [
        _front_matter(loaded, kind, license),
        f"# {repository.partition('/')[2]}",
        f"A PaCa-ViT (patch-to-cluster attention, [Grainger et al., CVPR 2023](https://arxiv.org/abs/2203.11987)) for "
        f"{kind.task}, in the format of PaCa-JAX.",
        *([f"![{kind.caption}]({kind.picture})"] if has_picture else []),
        _table(_facts(loaded, kind, run)),
        "## Evaluation",
        *_evaluation(run),
        "## How to use it",
        *_usage(loaded, kind, repository),
        *([] if license else ["## License", "The license of these weights is not stated."]),
        "## Citation",
        _CITATION,
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(loaded: Loaded, kind: Kind, license: str | None) -> str:
    """Returns the YAML at the head of a card; JSON's texts and lists are YAML's."""
    fields: dict[str, Any] = {
        "library_name": "paca-jax",
        "pipeline_tag": kind.pipeline,
        **({"license": license} if license else {}),
        "tags": ["paca-jax", "jax", "flax", "vision-transformer", loaded.recipe["name"]],
    }
    return "\n".join(["---", *(f"{name}: {json.dumps(value)}" for name, value in fields.items()), "---"])


def _facts(loaded: Loaded, kind: Kind, run: RunRecord | None) -> list[tuple[str, str]]:
    config: Any = loaded.model.config
    parameters = sum(leaf.size for leaf in jax.tree.leaves(loaded.variables["params"]))
    backbone = config if isinstance(config, PaCaConfig) else config.backbone
    if isinstance(config, PaCaConfig):
        size = f"{config.image_size} x {config.image_size} pixels, a crop of {config.crop:g} of the resized short side"
    else:
        size = f"short side {config.short_side} pixels, long side at most {config.long_side}"
    facts = [
        ("model", f"`{loaded.recipe['name']}`"),
        ("task", kind.task),
        ("parameters", f"{parameters:,}"),
        ("clusters of each stage", ", ".join(map(str, backbone.clusters))),
        ("images", f"{size}; {config.image_channels} channel{'s' if config.image_channels > 1 else ''}"),
    ]
    if config.num_classes:
        facts.append(("classes", f"{config.num_classes}{_listed(loaded.class_names)}"))
    if run is not None and "name" in run.dataset:
        split = f", split {_plain(run.dataset['train_split'])}" if "train_split" in run.dataset else ""
        facts.append(("training data", f"{_plain(run.dataset['name'])}{split}"))
    if run is not None and run.step:
        facts.append(("training", f"{run.step:,} steps{', weights averaged over them' if run.averaged else ''}"))
    return facts


def _listed(names: Sequence[str] | None) -> str:
    if not names:
        return ""
    more = ", ... (all are in `config.json`)" if len(names) > _LISTED else ""
    return f": {', '.join(map(_plain, names[:_LISTED]))}{more}"


def _evaluation(run: RunRecord | None) -> list[str]:
    if run is None or not run.metrics:
        return ["No evaluation of these weights is recorded."]
    where = ", ".join(
        phrase
        for phrase in (
            f"on {_plain(run.dataset['name'])}" if "name" in run.dataset else "",
            f"split {_plain(run.dataset['eval_split'])}" if "eval_split" in run.dataset else "",
        )
        if phrase
    )
    rows = [(name, f"{value:.4g}" if isinstance(value, float) else str(value)) for name, value in run.metrics.items()]
    return [f"Measured by the training run after step {run.step:,}{f', {where}' if where else ''}:", _table(rows)]


def _usage(loaded: Loaded, kind: Kind, repository: str) -> list[str]:
    lines = [
        "import jax.numpy as jnp",
        "import paca_jax",
        "",
        f'model, variables = paca_jax.load("hf://{repository}")',
        'image = jnp.asarray(paca_jax.preprocess("photo.jpg", model))  # (H, W, C), normalized',
        kind.use.format(classes=loaded.model.config.num_classes),
    ]
    predict = [
        "On the command line, with the names of the classes and pictures:",
        f"    paca predict --checkpoint=hf://{repository} photo.jpg --out=seen",
    ]
    return [
        "With PaCa-JAX and its extra `hub`:",
        "\n".join(["```python", *lines, "```"]),
        *(predict if loaded.model.config.num_classes else []),
        "`model.safetensors` has the names and layouts of the official PyTorch code, which loads it with `strict=True`.",
    ]


def _table(rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "|:--|:--|", *(f"| {name} | {value} |" for name, value in rows)])


def _plain(text: str) -> str:
    """Returns a text of others as Markdown shows it: on one line, and without a meaning."""
    return re.sub(r"([\\`*_\[\]<>|~&$])", r"\\\1", one_line(text))
