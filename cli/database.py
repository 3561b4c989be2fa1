"""The database of a command that speaks to it by itself, and what is said when it does not answer."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from runtime.settings import Settings


@contextmanager
def database(settings: "Settings", name: str) -> "Iterator[Engine]":
    """One connection at most, under this name, for the length of a block; exit code 1 when Postgres is away."""
    from sqlalchemy.exc import SQLAlchemyError

    from runtime.postgres import is_unavailable, sync_engine
    from runtime.settings import masked

    engine = sync_engine(settings, pool_size=1, name=name)
    try:
        yield engine
    except SQLAlchemyError as error:
        if not is_unavailable(error):
            raise
        print(f"coordinator: {masked(settings.database_url)} does not answer: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    finally:
        engine.dispose()
