"""An extension of griffe, which reads the library for the site: the shape in an annotation stays text.

Griffe takes text in annotations for names of types, and so would print Float[Array, "B"] as Float[Array, B].
"""

import griffe


class Shapes(griffe.Extension):
    """Puts the quotation marks back."""

    def on_function(self, *, func: griffe.Function, **kwargs: object) -> None:
        """Corrects the annotations of a function's parameters and results."""
        for annotation in (func.returns, *(parameter.annotation for parameter in func.parameters)):
            _correct(annotation)

    def on_attribute(self, *, attr: griffe.Attribute, **kwargs: object) -> None:
        """Corrects the annotation of an attribute."""
        _correct(attr.annotation)


def _correct(part: str | griffe.Expr | None) -> None:
    if not isinstance(part, griffe.Expr):
        return
    of_jaxtyping = isinstance(part, griffe.ExprSubscript) and part.canonical_path.startswith("jaxtyping.")
    if of_jaxtyping and isinstance(part.slice, griffe.ExprTuple):
        array, *shape = part.slice.elements
        part.slice.elements = [array, *(repr(str(text).strip("' ")) for text in shape)]
    for inner in part.iterate(flat=False):
        if inner is not part:
            _correct(inner)
