"""A plain table as text, for the summary that a run ends with."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

WIDTH = 110


def text_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lines of at most 110 columns: the title, the header, the rows; all columns but the first are aligned right."""
    out = io.StringIO()
    console = Console(file=out, width=WIDTH, highlight=False, color_system=None)
    table = Table(box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(escape(column), justify="right" if number else "left")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(f"\n{escape(title)}")
    console.print(table)
    return out.getvalue()
