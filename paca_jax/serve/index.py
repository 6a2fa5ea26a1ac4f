"""The page with a form to upload a picture; it needs no script."""

import html
from collections.abc import Sequence
from pathlib import Path
from string import Template

from paca_jax.explain.page.building import read_part
from paca_jax.serve.answering import Answering
from paca_jax.serve.limits import Limits

_SENTENCES = {
    "classification": "says which classes a picture most likely shows",
    "segmentation": "says which class each pixel of a picture shows",
    "detection": "finds objects in a picture",
}
_BUTTONS = {
    "/explore": "Explore the clusters",
    "/predict": "Predict, as JSON",
    "/mask": "Mask, as PNG",
}


def index_page(answering: Answering, limits: Limits, routes: Sequence[str]) -> str:
    """Returns the page.

    Args:
        answering: the model.
        limits: what an upload may take, which the page says.
        routes: the addresses of the server, each of which may have a button.
    """
    buttons = [f'<button formaction="{path[1:]}">{label}</button>' for path, label in _BUTTONS.items() if path in routes]
    return Template((Path(__file__).parent / "index.html").read_text(encoding="utf-8")).substitute(
        style=read_part("common.css").rstrip(),
        name=html.escape(answering.name),
        sentence=_SENTENCES[answering.task],
        megabytes=f"{limits.megabytes:g}",
        megapixels=f"{limits.megapixels:g}",
        buttons="\n      ".join(buttons),
        count=len(answering.classes),
        classes=html.escape(", ".join(answering.classes)),
    )
