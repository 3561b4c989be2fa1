from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from rich.table import Table
from rich.text import Text

from runtime.terminal import printable, printable_line, say, show, width

# Columns that are never folded: their texts are copied or compared.
_WHOLE: Final = frozenset({"act", "age", "heard", "key id", "role", "run", "runner", "state", "status"})
# With fewer characters than this for each other column, print a field a line instead.
_LEAST_FOLDED: Final = 12


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    cells = [[_cell(value) for value in row] for row in rows]
    if cells and _least_width(head, cells) > width():
        for place, row in enumerate(cells):
            if place:
                say()
            print_fields(zip(head, row, strict=True))
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in head:
        table.add_column(column, no_wrap=column in _WHOLE, overflow="fold")
    for row in cells:
        table.add_row(*row)
    show(table)


def print_fields(fields: Iterable[tuple[str, str | Text]]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields:
        table.add_row(name, value if isinstance(value, Text) else printable(value))
    show(table)


def _least_width(head: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> int:
    widths = [
        max(len(name), *(len(row[place]) for row in rows)) if name in _WHOLE else _LEAST_FOLDED
        for place, name in enumerate(head)
    ]
    return sum(widths) + len("  ") * (len(head) - 1)


def _cell(value: object) -> str | Text:
    if isinstance(value, Text):
        return value
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    return "-" if value is None else printable_line(str(value))
