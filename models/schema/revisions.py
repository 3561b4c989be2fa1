"""Revision of a database's schema, and the newest one of this version. Alembic is not loaded: each process asks."""

from pathlib import Path
from typing import Final

from sqlalchemy import Connection, text

MIGRATIONS: Final = Path(__file__).with_name("migrations")

_IS_MIGRATED: Final = text("SELECT to_regclass('alembic_version') IS NOT NULL")
_REVISION: Final = text("SELECT version_num FROM alembic_version")


def revision(connection: Connection) -> str | None:
    """Return the revision of the database's schema; None for an empty database."""
    if not connection.execute(_IS_MIGRATED).scalar_one():
        return None
    return connection.execute(_REVISION).scalar_one_or_none()


def newest_revision() -> str:
    """Return the newest revision that this version has a file of: ``expand_0019_batches.py`` is 0019."""
    return max(path.stem.split("_")[1] for path in MIGRATIONS.glob("versions/*_????_*.py"))


def schema_fault(connection: Connection) -> str | None:
    """Return why this version cannot serve the schema and what to do, None when it can.

    A newer schema serves this version too: it was expanded only.
    """
    found, needed = revision(connection), newest_revision()
    if found is not None and found >= needed:
        return None
    return f"the schema is at {found or 'nothing'}, this version needs {needed}: run `coordinator migrate`"
