"""`coordinator feed`: where the feed stands, and its new beginning after a restore."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sqlalchemy import Engine

AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for machines.")]

feed = typer.Typer(help="Looks at the feed, and begins it anew after a restore.", no_args_is_help=True)


@feed.command("status")
def status(as_json: AsJson = False) -> None:
    """Print where the feed stands and what its table takes up."""
    from models.feed_state import feed_state
    from runtime.postgres import transaction

    with _database() as engine, transaction(engine) as connection:
        rows = asdict(feed_state(connection))
    if as_json:
        print(json.dumps(rows, indent=2, default=datetime.isoformat))
        return
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name.replace('_', ' '):<{width}}  {_shown(name, value)}")


@feed.command("rotate-epoch")
def rotate(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Give the feed a new epoch: every client begins anew with a snapshot. Needed after a restore from a backup."""
    from models.feed_state import rotate_epoch
    from runtime.postgres import transaction

    if not yes:
        typer.confirm("Every client of the feed will begin anew. Go on?", abort=True, err=True)
    with _database() as engine, transaction(engine) as connection:
        former, fresh = rotate_epoch(connection)
    print(json.dumps({"former": former, "epoch": fresh}) if as_json else f"epoch {former} is over, {fresh} begins")


@contextmanager
def _database() -> "Iterator[Engine]":
    from sqlalchemy.exc import SQLAlchemyError

    from runtime.postgres import is_unavailable, sync_engine
    from runtime.settings import load_settings, masked

    settings = load_settings()
    engine = sync_engine(settings, pool_size=1, name="coordinator feed")
    try:
        yield engine
    except SQLAlchemyError as error:
        if not is_unavailable(error):
            raise
        print(f"coordinator: {masked(settings.database_url)} does not answer: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    finally:
        engine.dispose()


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
