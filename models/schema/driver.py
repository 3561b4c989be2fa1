"""Execute statements by the driver itself, past SQLAlchemy's execution (docs/decisions/0049)."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

import psycopg
from psycopg.rows import namedtuple_row
from sqlalchemy import Connection, TextClause
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.sql.selectable import TextualSelect
from sqlalchemy.util import await_only

# Key in `Connection.info` of a function to call when Postgres has answered.
ANSWERED: Final = "coordinator_answered"


def fetch_all(
    conn: Connection, statement: TextClause | TextualSelect, values: Mapping[str, Any] | None = None
) -> Sequence[Any]:
    """Return the rows of a statement that is a transaction of its own, as named tuples.

    For statements that a web process sends many times a second: SQLAlchemy's execution and its result take twice as
    long as the driver. Errors are SQLAlchemy's own, and a connection that is lost is no longer used.
    """
    given = values or {}
    driver = conn.connection.driver_connection
    if not isinstance(driver, psycopg.AsyncConnection):
        return conn.execute(statement, given).all()
    query, names = _numbered(statement)
    cursor = psycopg.AsyncRawCursor(driver, row_factory=namedtuple_row)
    try:
        rows = await_only(_fetch_all(cursor, query, [given[name] for name in names]))
    except (psycopg.Error, asyncio.CancelledError) as fault:
        # SQLAlchemy wraps the error there, and distrusts the whole pool if the connection is lost. A cancelled
        # statement may have cost the connection, too: it does not return to the pool.
        conn._handle_dbapi_exception(fault, query.decode(), dict(given), None, None)  # noqa: SLF001 -- no public way
    answered = conn.info.get(ANSWERED)
    if answered is not None:
        answered()
    return rows


async def _fetch_all(cursor: "psycopg.AsyncRawCursor[Any]", query: bytes, values: Sequence[Any]) -> list[Any]:
    await cursor.execute(query, values)
    return await cursor.fetchall()


@cache
def _numbered(statement: TextClause | TextualSelect) -> tuple[bytes, Sequence[str]]:
    """Return the statement with ``$1`` in place of names, and the names in order: the driver has nothing to parse."""
    dialect = PGDialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]  # SQLAlchemy does not annotate it
    compiled = statement.compile(dialect=dialect)
    return compiled.string.encode(), compiled.positiontup or ()
