import json
from dataclasses import asdict
from typing import Annotated

import typer

from runtime.terminal import say


def settings(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print all settings with units and sources.

    Values are the effective ones; passwords are masked.
    """
    from runtime.effective_settings import effective
    from runtime.settings import load_settings

    rows = effective(load_settings())
    if as_json:
        say(json.dumps([asdict(row) for row in rows], indent=2))
        return
    widths = [max(len(getattr(row, column)) for row in rows) for column in ("name", "value", "unit", "source")]
    for row in rows:
        cells = (row.name, row.value or "-", row.unit, row.source)
        say("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + f"  {row.description}")
