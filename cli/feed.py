import json
from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import typer

from cli.client import AsJson
from cli.database import Data, nearest_database, operator
from runtime.terminal import say

NAME = "coordinator feed"

feed = typer.Typer(help="Show the feed's state, rotate its epoch.", no_args_is_help=True)


@feed.command("status")
def status(data: Data = None, as_json: AsJson = False) -> None:
    """Show the feed's position, epoch and size."""
    from models.feed.state import feed_state
    from runtime.postgres import transaction

    with nearest_database(data, NAME) as engine, transaction(engine) as connection:
        rows = asdict(feed_state(connection))
    if as_json:
        say(json.dumps(rows, indent=2, default=datetime.isoformat))
        return
    width = max(map(len, rows))
    for name, value in rows.items():
        say(f"{name.replace('_', ' '):<{width}}  {_shown(name, value)}")


@feed.command("rotate-epoch")
def rotate(
    yes: Annotated[bool, typer.Option("--yes", help="Skip the confirmation.")] = False,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Start a new epoch after a restore.

    Needed after a restore from a backup: every client of the feed starts over with a snapshot.
    """
    from models.feed.state import rotate_epoch
    from runtime.postgres import transaction

    if not yes:
        typer.confirm("Every client of the feed will start over with a snapshot. Continue?", abort=True, err=True)
    with nearest_database(data, NAME) as engine, transaction(engine) as connection:
        former, fresh = rotate_epoch(connection, operator())
    say(json.dumps({"former": former, "epoch": fresh}) if as_json else f"epoch {former} is over, {fresh} begins")


def _shown(name: str, value: object) -> str:
    match value:
        case None:
            return "-"
        case datetime():
            return value.isoformat(sep=" ", timespec="seconds")
        case int() if name.endswith("_bytes"):
            return f"{value / 2**20:,.1f} MiB"
        case int():
            return f"{value:,}"
        case _:
            return str(value)
