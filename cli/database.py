import os
import pwd
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runtime.terminal import complain

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.exc import SQLAlchemyError

    from runtime.settings import Settings

# SQLSTATEs: no such table, column, function or schema.
_NO_SCHEMA = {"42P01", "42703", "42883", "3F000"}

Data = Annotated[
    Path | None,
    typer.Option(
        file_okay=False,
        help="Directory of `coordinator up`, used without DATABASE_URL (default: COORDINATOR_DATA_DIR).",
    ),
]


def data_directory(given: Path | None, settings: "Settings") -> Path:
    return (given or Path(settings.data_dir)).resolve()


@contextmanager
def database(settings: "Settings", name: str) -> "Iterator[Engine]":
    from runtime.postgres import sync_engine

    with sentences(settings):
        engine = sync_engine(settings, pool_size=1, name=name)
        try:
            yield engine
        finally:
            engine.dispose()


@contextmanager
def sentences(settings: "Settings") -> "Iterator[None]":
    """Report an error of Postgres as one line and exit with 1: away, wrong password, no schema, no permission."""
    from sqlalchemy.exc import SQLAlchemyError

    from runtime.effective_settings import masked

    try:
        yield
    except SQLAlchemyError as error:
        complain(f"{masked(settings.database_url)} {_said(error)}")
        raise typer.Exit(1) from error


def _said(error: "SQLAlchemyError") -> str:
    from runtime.postgres import is_unavailable, sqlstate

    # libpq prints a line for each address that it tried; the last line holds the last one's answer.
    lines = [line.strip() for line in str(getattr(error, "orig", None) or error).splitlines() if line.strip()]
    shown = lines[-1] if lines else type(error).__name__
    if sqlstate(error) in _NO_SCHEMA:
        return f"lacks the schema that this version needs: run `coordinator migrate` ({lines[0]})"
    if "FATAL" in shown:
        return f"refuses the connection: {shown.partition('FATAL:')[2].strip()}"
    return f"does not answer: {shown}" if is_unavailable(error) else f"refuses: {lines[0] if lines else shown}"


def nearest_settings(data: Path | None) -> "Settings":
    """Return the settings with a database: the configured one, else that of `coordinator up` in its directory.

    Exits with code 2 when there is neither.
    """
    from devserver.embedded_postgres import kept_url
    from runtime.settings import load_settings

    settings = load_settings()
    if settings.database_url:
        return settings
    directory = data_directory(data, settings)
    try:
        url = kept_url(directory)
    except (OSError, ValueError, TypeError, KeyError) as error:
        complain(f"the database that `coordinator up` keeps in {directory} cannot be found: {error}")
        raise typer.Exit(2) from None
    if url is None:
        complain(
            f"DATABASE_URL is not set, and `coordinator up` has served nothing in {directory}; --data names another"
        )
        raise typer.Exit(2)
    return settings.model_validate({**settings.model_dump(), "database_url": url})


def nearest_database(data: Path | None, name: str) -> "AbstractContextManager[Engine]":
    return database(nearest_settings(data), name)


def operator() -> str:
    number = os.getuid()
    try:
        user = pwd.getpwuid(number).pw_name
    except KeyError:
        # A container may run as a user id without a name.
        user = str(number)
    return f"local:{user}@{socket.gethostname()}"
