"""Tables in Markdown."""

from collections.abc import Sequence

from paca_jax.errors import one_line


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table."""
    return [f"| {' | '.join(map(cell, row))} |" for row in (header, (":--",) * len(header), *rows)]


def cell(text: str) -> str:
    """Returns a text that stays in one cell of a table, or in one line."""
    return one_line(text).replace("|", "\\|")
