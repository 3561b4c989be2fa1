"""Plain tables for terminals, without control characters."""

from collections.abc import Sequence
from datetime import datetime

from runtime.terminal import printable_line, say


def print_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print the rows below their headings; None as a dash, times to the second."""
    lines = [list(head), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(head))]
    for line in lines:
        say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    return "-" if value is None else printable_line(str(value))
