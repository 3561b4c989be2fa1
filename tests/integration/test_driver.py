"""Statements sent by the driver itself: the rows of SQLAlchemy, and its treatment of errors."""

import asyncio

import psycopg
import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.writes.attempts import Attempts
from models.schema.driver import fetch_all
from models.schema.sql import sql
from runtime.settings import Settings
from tests.support.batches import run

PAIRS = sql("""
    SELECT t.word, t.number, :once AS first, :once AS again, 'a:b %' AS kept
    FROM unnest(CAST(:words AS text[]), CAST(:numbers AS int[])) AS t(word, number)
""")
DIVIDED = sql("SELECT 1 / CAST(:divisor AS int) AS part")
SLEPT = sql("SELECT pg_sleep(60)")
PID = sql("SELECT pg_backend_pid() AS pid")


def test_rows_are_those_of_sqlalchemy(settings: Settings) -> None:
    """Repeat a name, send NULL within a list, and keep what only looks like a placeholder."""
    values = {"words": ["a", None, "ü"], "numbers": [1, 2, None], "once": "twice"}

    def both(conn: Connection) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
        rows = fetch_all(conn, PAIRS, values)
        assert [row.word for row in rows] == values["words"]
        return [tuple(row) for row in rows], [tuple(row) for row in conn.execute(PAIRS, values)]

    async def scenario(attempts: Attempts, _: AsyncEngine) -> None:
        own, theirs = await attempts.autocommit(both)
        assert own == theirs

    run(settings, scenario)


def test_lost_connection_leaves_the_pool(settings: Settings) -> None:
    """Raise errors as SQLAlchemy does; the repeat of an attempt gets a new connection at once."""

    async def scenario(attempts: Attempts, web: AsyncEngine) -> None:
        with pytest.raises(DBAPIError) as divided:
            await attempts.autocommit(fetch_all, DIVIDED, {"divisor": 0})
        assert isinstance(divided.value.orig, psycopg.errors.DivisionByZero)
        assert not divided.value.connection_invalidated
        ((pid,),) = await attempts.autocommit(fetch_all, PID)
        with psycopg.connect(settings.database_url.replace("+psycopg", ""), autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        async with web.connect() as connection:
            with pytest.raises(DBAPIError) as lost:
                await connection.run_sync(fetch_all, PID)
        assert lost.value.connection_invalidated
        ((after,),) = await attempts.autocommit(fetch_all, PID)
        assert after != pid

    run(settings, scenario)


def test_connection_closed_by_a_cancelled_statement_leaves_the_pool(settings: Settings) -> None:
    """Cancel while the driver cancels the statement at the server: it then closes the connection."""

    async def scenario(attempts: Attempts, web: AsyncEngine) -> None:
        async with web.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert isinstance(driver, psycopg.AsyncConnection)
            sleeping = asyncio.ensure_future(connection.run_sync(fetch_all, SLEPT))
            while driver.info.transaction_status is not psycopg.pq.TransactionStatus.ACTIVE:  # noqa: ASYNC110 -- no event tells
                await asyncio.sleep(0)
            sleeping.cancel()
            await asyncio.sleep(0)
            sleeping.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sleeping
        assert driver.closed
        async with web.connect() as connection:
            assert await connection.run_sync(fetch_all, PID)

    run(settings, scenario)
