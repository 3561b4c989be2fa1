import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from models.schema.revisions import MIGRATIONS, newest_revision, revision

HEAD_LOCK = 0x636F6F7264  # "coord": one migration at a time on one database


# Exclude indexes that are being built now, and partitioned ones, which are not built themselves.
INVALID_INDEXES = text("""
    SELECT format('%I.%I', n.nspname, c.relname) AS name, c.relname ~ '_cc(new|old)[0-9]*$' AS is_copy
    FROM pg_index i
    JOIN pg_class c ON c.oid = i.indexrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE NOT i.indisvalid AND c.relkind = 'i' AND n.nspname = current_schema()
        AND i.indexrelid NOT IN (SELECT index_relid FROM pg_stat_progress_create_index)
    ORDER BY name
""")


class UnknownRevision(Exception):
    """The schema is at a revision that this version has no file of, made by a newer one."""


class MigrationBusy(Exception):
    pass


def upgrade(
    url: str, *, wait_seconds: float = 300, say: Callable[[str], object] = lambda _line: None
) -> tuple[str | None, str | None]:
    """Upgrade the database at ``url`` to the newest revision; return the revision before and after.

    Safe to call from many processes at once: one migrates, the others wait. The lock is tried once a second outside any
    transaction, since a transaction that waits inside ``pg_advisory_lock`` deadlocks with CREATE INDEX CONCURRENTLY.
    Safe to repeat after it was killed anywhere: a revision is there wholly or not at all, and an index that was being
    built concurrently, which stays behind INVALID, is rebuilt first. A table in use is waited for briefly but again and
    again, since every later query queues behind the waiting lock; ``say`` is called for both. Gives up after
    ``wait_seconds`` of either, with MigrationBusy or Postgres's own error.
    """
    engine = create_engine(url, poolclass=NullPool)
    try:
        with engine.connect() as connection, _migration_lock(connection, wait_seconds):
            before = revision(connection)
            connection.rollback()
            _refuse_unknown(before)
            _upgrade_with_retries(connection, time.monotonic() + wait_seconds, say)
            after = revision(connection)
            connection.rollback()
            return before, after
    finally:
        engine.dispose()


def _refuse_unknown(found: str | None) -> None:
    if found is None or any(
        script.revision == found for script in ScriptDirectory.from_config(_config()).walk_revisions()
    ):
        return
    message = (
        f"the schema is at {found}, made by a newer version than this one, which knows {newest_revision()}: it is "
        "served all the same, and only the newer version can change it"
    )
    raise UnknownRevision(message)


def downgrade(url: str, target: str) -> None:
    engine = create_engine(url, poolclass=NullPool)
    try:
        with engine.connect() as connection, _migration_lock(connection, 60):
            config = _config()
            config.attributes["connection"] = connection
            command.downgrade(config, target)
    finally:
        engine.dispose()


def _upgrade_with_retries(connection: Connection, deadline: float, say: Callable[[str], object]) -> None:
    config = _config()
    config.attributes["connection"] = connection
    while True:
        try:
            _rebuild_invalid_indexes(connection, say)
            command.upgrade(config, "head")
            return
        except OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable) or time.monotonic() > deadline:
                raise
            connection.rollback()
            say("a table is in use: trying again")
            time.sleep(1)


def _rebuild_invalid_indexes(connection: Connection, say: Callable[[str], object]) -> None:
    """Rebuild indexes whose concurrent build was cut off: readers do not use them, but each write pays for them.

    A repeated revision would take them for built (IF NOT EXISTS) or fail. The remains of a REINDEX are dropped.
    """
    connection.execution_options(isolation_level="AUTOCOMMIT")
    left = connection.execute(INVALID_INDEXES).all()
    if left:
        # Wait without limit: such a build waits for running transactions and blocks none meanwhile.
        connection.execute(text("SET lock_timeout = 0"))
        connection.execute(text("SET statement_timeout = 0"))
    for name, is_copy in left:
        say(f"index {name} was left unfinished: {'removing' if is_copy else 'rebuilding'} it")
        action = "DROP INDEX CONCURRENTLY IF EXISTS" if is_copy else "REINDEX INDEX CONCURRENTLY"
        connection.exec_driver_sql(f"{action} {name}")
    connection.rollback()
    connection.execution_options(isolation_level=connection.default_isolation_level)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


@contextmanager
def _migration_lock(connection: Connection, wait_seconds: float) -> Iterator[None]:
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
