"""Bringing a database to this version's schema, safely from every replica at once."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool

HEAD_LOCK = 0x636F6F7264  # "coord": one migration at a time on one database
MIGRATIONS = Path(__file__).with_name("migrations")


class MigrationBusy(Exception):
    """Another process has been migrating for longer than we were asked to wait."""


def upgrade(url: str, *, wait_seconds: float = 300) -> tuple[str | None, str | None]:
    """Bring the database at ``url`` to the newest revision; returns the revision before and after.

    Safe to call from many processes at once: one migrates, the others wait. The lock is tried once a second outside any
    transaction, since a transaction that waits inside ``pg_advisory_lock`` deadlocks with CREATE INDEX CONCURRENTLY.
    """
    engine = create_engine(url, poolclass=NullPool)
    try:
        with engine.connect() as connection, _alone(connection, wait_seconds):
            before = revision(connection)
            connection.rollback()
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            after = revision(connection)
            connection.rollback()
            return before, after
    finally:
        engine.dispose()


def downgrade(url: str, target: str) -> None:
    """Take the database back to ``target`` ("base" for an empty one): for tests and for a change of mind."""
    engine = create_engine(url, poolclass=NullPool)
    try:
        with engine.connect() as connection, _alone(connection, 60):
            config = _config()
            config.attributes["connection"] = connection
            command.downgrade(config, target)
    finally:
        engine.dispose()


def revision(connection: Connection) -> str | None:
    """Return the revision the database is at, None for an empty one."""
    return MigrationContext.configure(connection).get_current_revision()


def newest_revision() -> str:
    """Return the revision this version of the code was written for."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        msg = "there are no migrations"
        raise RuntimeError(msg)
    return head


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


@contextmanager
def _alone(connection: Connection, wait_seconds: float) -> Iterator[None]:
    deadline = time.monotonic() + wait_seconds
    while not _try_lock(connection):
        if time.monotonic() > deadline:
            msg = f"another process has been migrating this database for {wait_seconds:.0f} s"
            raise MigrationBusy(msg)
        time.sleep(1)
    try:
        yield
    finally:
        connection.rollback()
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": HEAD_LOCK})
        connection.commit()


def _try_lock(connection: Connection) -> bool:
    got = connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": HEAD_LOCK}).scalar_one()
    connection.commit()
    return bool(got)
