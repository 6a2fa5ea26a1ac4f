"""The page: what a model does with several pictures, its clusters and its answers without them, in one HTML file."""

import base64
import dataclasses
import html
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from PIL import Image

from paca_jax import data
from paca_jax.errors import UserError, check
from paca_jax.explain.checks import AnyModel, check_variables, checked_items, names_of_classes
from paca_jax.explain.cluster_sheets.maps import stride_of
from paca_jax.explain.inspection.answering import kind_of
from paca_jax.explain.inspection.patch_sources import assignments_of_blocks
from paca_jax.explain.inspection.rows import Answer
from paca_jax.explain.page.looking import Seen, look
from paca_jax.explain.page.packing import cell_side, pool_assignment, pool_attention, to_bytes, to_text
from paca_jax.explain.page.removal import answers_without_each
from paca_jax.fields import check_value
from paca_jax.files import write_file
from paca_jax.paths import user_path

_STYLES = ("common.css", "style.css")
_SCRIPTS = ("maps.js", "choosing.js", "showing.js", "page.js")
_LONGEST_SIDE = 640  # of a picture in the page, in pixels
_SMALL = 128  # a picture up to this size is stored exactly
# What the values of answers are, by the kind of the model.
_MEASURES = {"classifier": "Probability", "segmentor": "Area", "detector": "Score"}


@dataclasses.dataclass(frozen=True)
class Explorer:
    """A page to explore the clusters of a model; a notebook shows it where it is the value of a cell.

    Attributes:
        html: the whole page, which loads nothing from anywhere.
    """

    html: str

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes the page to a file, which any browser opens.

        Raises:
            UserError: if it cannot be written.
        """
        write_file(user_path(path), self.html)

    def _repr_html_(self) -> str:
        style = "width: 100%; height: 900px; border: 0"
        return f'<iframe title="Explorer of clusters" style="{style}" srcdoc="{html.escape(self.html)}"></iframe>'

    def __repr__(self) -> str:
        return f"Explorer(<{len(self.html.encode()):,} bytes of HTML>)"


def explorer(
    model: AnyModel,
    variables: Mapping[str, PyTree],
    images: data.Picture | Sequence[data.Picture],
    class_names: Sequence[str] | None = None,
    *,
    effects: bool = True,
) -> Explorer:
    """Returns a page in which a person explores what the clusters of a model do with pictures.

    For each block the page shows which clusters a patch reads, what these gather, which patches read a cluster, and the answer
    of the model without a cluster. Maps with a side above 56 patches are shown in cells of several patches.

    Args:
        model: a classifier, segmentor or detector with clusters, as from `paca_jax.load`.
        variables: the variables of the model.
        images: one picture, or several in a list: paths, bytes of image files, Pillow images, or uint8 arrays (H, W, C).
        class_names: the names of the model's classes, in order. Default: those of ImageNet, ADE20K or COCO for a model with as
            many classes, which a warning says, and numbers for another.
        effects: whether to compute the answers without each cluster, which takes one forward pass per cluster and picture.

    Raises:
        UserError: if the model has other variables, no clusters or no answer that is finite, the names are not those of its
            classes, or a picture cannot be read.
    """
    owners = assignments_of_blocks(model)
    check_value("effects", effects, bool)
    check(bool(owners), "Expected a model with clusters, got one that attends to patches in every stage. Choose another.")
    kind = kind_of(model)
    check(
        model.config.num_classes > 0,
        "Expected a model with a classifier, got one without (num_classes=0). Choose one with classes.",
    )
    check_variables(model, variables)
    names = names_of_classes(model, class_names)
    single = isinstance(images, str | bytes | os.PathLike | Image.Image | np.ndarray)
    listed: Sequence[Any] = [images] if single else checked_items("images", images)
    check(bool(listed), "Expected at least one picture to explore, got none. Pass one.")
    pictures = [data.read_picture(each, model.config.image_channels) for each in listed]
    content = {
        "model": kind,
        "measure": _MEASURES[kind],
        "classNames": list(names),
        "blocks": [{"name": name, "owner": owner, "stride": stride_of(name)} for name, owner in owners.items()],
        "pictures": [
            _picture(_name(each, number), model, dict(variables), picture, owners, names, effects)
            for number, (each, picture) in enumerate(zip(listed, pictures, strict=True), 1)
        ],
    }
    return Explorer(_page(content))


def _picture(
    name: str,
    model: AnyModel,
    variables: dict[str, PyTree],
    picture: Image.Image,
    owners: Mapping[str, str],
    names: Sequence[str],
    effects: bool,
) -> dict[str, Any]:
    """Returns one picture's part of the page's data."""
    try:
        seen = look(model, variables, picture)
        image = jnp.asarray(seen.image)[None]
        without = answers_without_each(model, variables, image, seen.answer) if effects else {}
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    best = f"{names[seen.answer.labels[0]]} {seen.answer.values[0]:.0%}" if len(seen.answer.labels) else "nothing"
    return {
        "name": name,
        "description": f"{name}, answer of the model: {best}",
        "width": seen.picture.width,
        "height": seen.picture.height,
        "image": seen.image.shape[:2],
        "source": _data_url(seen.picture),
        "answer": _answer(seen.answer),
        "attention": _packed_attention(seen),
        "assignments": _packed_assignments(seen, set(owners.values())),
        "without": {owner: [_changed(answer) for answer in answers] for owner, answers in without.items()},
    }


def _packed_attention(seen: Seen) -> dict[str, Any]:
    packed = {}
    for block, weights in seen.attention.items():
        heads, height, width, clusters = weights.shape
        side = cell_side(height, width)
        pooled = pool_attention(weights, side)
        packed[block] = {
            "heads": heads,
            "rows": pooled.shape[1],
            "columns": pooled.shape[2],
            "clusters": clusters,
            "patches": [height, width],
            "side": side,
            "bytes": to_text(to_bytes(pooled, (3,))),
        }
    return packed


def _packed_assignments(seen: Seen, owners: set[str]) -> dict[str, str]:
    packed = {}
    for owner in sorted(owners):
        weights = seen.clusters[owner]
        packed[owner] = to_text(to_bytes(pool_assignment(weights, cell_side(*weights.shape[1:])), (1, 2)))
    return packed


def _answer(answer: Answer) -> dict[str, Any]:
    boxes = None if answer.boxes is None else np.round(answer.boxes, 4).tolist()
    return {"labels": answer.labels.tolist(), "boxes": boxes, **_changed(answer)}


def _changed(answer: Answer) -> dict[str, Any]:
    values = np.round(answer.values.astype(np.float64), 5).tolist()
    return {"values": values, "other": answer.other, "otherValue": round(answer.other_value, 5)}


def _name(image: data.Picture, number: int) -> str:
    return os.path.basename(os.fspath(image)) if isinstance(image, str | os.PathLike) else f"picture {number}"


def _data_url(picture: Image.Image) -> str:
    shown = picture.convert("RGB")
    shown.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE), Image.Resampling.LANCZOS)
    kind, options = ("png", {"optimize": True}) if max(shown.size) <= _SMALL else ("jpeg", {"quality": 85, "optimize": True})
    buffer = io.BytesIO()
    shown.save(buffer, format=kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _page(content: Mapping[str, Any]) -> str:
    """Returns the template with its style, scripts and data filled in."""
    # No text of the data may end the element that holds it.
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    parts = {"style": "".join(map(read_part, _STYLES)), "data": text, "script": "\n".join(map(read_part, _SCRIPTS))}
    page = read_part("template.html")
    for name, part in parts.items():
        page = page.replace(f"<!-- {name} -->", part, 1)
    return page


def read_part(name: str) -> str:
    """Returns a file that the page is made of."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
