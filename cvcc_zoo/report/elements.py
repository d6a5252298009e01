"""Elements of the page of a report as HTML: text, sections and tables."""

import html
from collections.abc import Sequence

Cell = tuple[str, float | str | None]
"""The text of a cell, and its sort key."""


def text(value: object) -> str:
    """Return a value as text, escaped for HTML."""
    return html.escape(str(value))


def section(title: str, content: str) -> str:
    """Return a section with a heading."""
    return f"<section><h2>{text(title)}</h2>{content}</section>"


def table(header: Sequence[str], rows: Sequence[Sequence[Cell]], *, sortable: bool) -> str:
    """Return a table that scrolls sideways on a narrow page."""
    if sortable:
        heads = "".join(f'<th scope="col" aria-sort="none"><button>{text(name)}</button></th>' for name in header)
    else:
        heads = "".join(f'<th scope="col">{text(name)}</th>' for name in header)
    lines = []
    for row in rows:
        cells = (f'<td data-key="{text("" if key is None else key)}">{text(shown)}</td>' for shown, key in row)
        lines.append(f"<tr>{''.join(cells)}</tr>")
    kind = ' class="sortable"' if sortable else ""
    return (
        f'<div class="wide"><table{kind}><thead><tr>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
    )


def number(value: float | None, form: str, factor: float | None = None) -> Cell:
    """Return a cell with a number, or "-" if it was not measured."""
    if value is None:
        return "-", None
    return form.format(value if factor is None else factor * value), value
