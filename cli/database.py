"""The database of a command that speaks to it by itself: which, as whom, and what is said when it does not answer."""

import os
import pwd
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.terminal import complain

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from runtime.settings import Settings

Data = Annotated[
    Path | None, typer.Option(file_okay=False, help="Directory of `coordinator up`, where no DATABASE_URL is given.")
]


@contextmanager
def database(settings: "Settings", name: str) -> "Iterator[Engine]":
    """One connection at most, under this name, for the length of a block; exit code 1 when Postgres is away."""
    from sqlalchemy.exc import SQLAlchemyError

    from runtime.effective_settings import masked
    from runtime.postgres import is_unavailable, sync_engine

    engine = sync_engine(settings, pool_size=1, name=name)
    try:
        yield engine
    except SQLAlchemyError as error:
        if not is_unavailable(error):
            raise
        complain(f"{masked(settings.database_url)} does not answer: {error}")
        raise typer.Exit(1) from error
    finally:
        engine.dispose()


def nearest_database(data: Path | None, name: str) -> "AbstractContextManager[Engine]":
    """The database that the settings name, else the one that `coordinator up` keeps in a directory; exit code 2."""
    from runtime.embedded_postgres import kept_url
    from runtime.settings import load_settings

    settings = load_settings()
    if not settings.database_url:
        url = kept_url((data or Path(settings.data_dir)).resolve())
        if url is None:
            complain("DATABASE_URL is not set, and `coordinator up` has served nothing here")
            raise typer.Exit(2)
        settings = settings.model_validate({**settings.model_dump(), "database_url": url})
    return database(settings, name)


def operator() -> str:
    """Return as whom the audit log names who calls a command: the operating system's word for it, and the machine."""
    number = os.getuid()
    try:
        user = pwd.getpwuid(number).pw_name
    except KeyError:
        # In a container that runs as a number without a name.
        user = str(number)
    return f"local:{user}@{socket.gethostname()}"
