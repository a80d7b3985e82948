"""A short table, as text for a terminal and as HTML for a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_CELL = "text-align: left; vertical-align: top; padding: 2px 1em 2px 0"


def text(title: str, rows: Sequence[Sequence[str]], header: Sequence[str] = ()) -> str:
    """Return rows as aligned columns under a title; the last column is as long as it is."""
    lines = [list(header), *map(list, rows)] if header else list(map(list, rows))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]) - 1)] if lines else []
    shown = [
        "  ".join([cell.ljust(width) for cell, width in zip(line, widths, strict=False)] + [line[-1]])
        for line in lines
    ]
    return "\n".join([title, *(f"  {line}".rstrip() for line in shown)])


def html(title: str, rows: Sequence[Sequence[str]], header: Sequence[str] = ()) -> str:
    """Return rows as an HTML table with a caption; every text is escaped."""
    head = "".join(f'<th style="{_CELL}">{escape(cell)}</th>' for cell in header)
    body = "".join(
        "<tr>" + "".join(f'<td style="{_CELL}">{escape(cell)}</td>' for cell in row) + "</tr>" for row in rows
    )
    caption = f'<caption style="text-align: left; font-weight: bold">{escape(title)}</caption>'
    return f"<table>{caption}{f'<tr>{head}</tr>' if head else ''}{body}</table>"
