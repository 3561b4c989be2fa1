"""Connections to a real Postgres, and the classification of its failures."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import psycopg
import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.postgres import (
    async_engine,
    autocommit,
    autocommit_async,
    is_item_fault,
    is_retryable,
    is_unavailable,
    sqlstate,
    sync_engine,
    transaction,
    transaction_async,
)
from runtime.settings import Settings
from testkit.servers import OwnPostgres
from testkit.waiting import eventually, eventually_async
from tests.support.db_verbs import DbVerbs, backend

TIMEOUTS = text(
    "SELECT name, setting FROM pg_settings"
    " WHERE name IN ('lock_timeout', 'statement_timeout', 'idle_in_transaction_session_timeout')"
)
EXPECTED = {"lock_timeout": "2000", "statement_timeout": "10000", "idle_in_transaction_session_timeout": "5000"}


def timeouts_of(connection: Connection) -> dict[str, str]:
    return {row.name: row.setting for row in connection.execute(TIMEOUTS)}


def failure(connection: Connection, statement: str) -> DBAPIError:
    with pytest.raises(DBAPIError) as caught:
        connection.execute(text(statement))
    return caught.value


def verdict(error: BaseException) -> str:
    found = [name for name, is_so in (("unavailable", is_unavailable), ("fault", is_item_fault)) if is_so(error)]
    return " ".join([*found, *(["retry"] if is_retryable(error) else [])])


@pytest.mark.direct
def test_every_connection_has_timeouts_from_the_start(settings: Settings) -> None:
    """Bound each statement, whatever helper gave the connection."""
    engine = sync_engine(settings, pool_size=1)
    with transaction(engine) as connection:
        assert timeouts_of(connection) == EXPECTED
    with autocommit(engine) as connection:
        assert timeouts_of(connection) == EXPECTED
    engine.dispose()


def test_without_startup_options_each_transaction_sets_timeouts(settings: Settings) -> None:
    """Set nothing for the session, which another client gets next behind PgBouncer."""
    engine = sync_engine(settings.model_copy(update={"startup_options": False}), pool_size=1)
    with transaction(engine) as connection:
        assert timeouts_of(connection) == EXPECTED
    with autocommit(engine) as connection:
        assert timeouts_of(connection)["lock_timeout"] == "0"
    engine.dispose()


@pytest.mark.direct
async def test_web_engine_has_same_timeouts(settings: Settings) -> None:
    """Check the asynchronous engine."""
    engine = async_engine(settings)
    async with autocommit_async(engine) as connection:
        assert await connection.run_sync(timeouts_of) == EXPECTED
    await engine.dispose()


def test_transaction_commits_at_end_and_rolls_back_on_error(engine: Engine) -> None:
    with transaction(engine) as connection:
        connection.execute(text("CREATE TABLE noted (n int)"))
    with pytest.raises(DBAPIError), transaction(engine) as connection:
        connection.execute(text("INSERT INTO noted VALUES (1)"))
        connection.execute(text("SELECT 1/0"))
    with transaction(engine) as connection:
        assert connection.execute(text("SELECT count(*) FROM noted")).scalar_one() == 0


async def test_web_transaction_commits_at_end_and_rolls_back_on_error(settings: Settings, db: DbVerbs) -> None:
    """Roll back on any error, though its connections are in autocommit."""
    web = async_engine(settings, pool_size=1)
    async with transaction_async(web) as connection:
        await connection.run_sync(noting)
    for failing in (failing_statement, failing_code, partial(cancelled, db.engine)):
        with pytest.raises((DBAPIError, ZeroDivisionError, asyncio.CancelledError)):
            async with transaction_async(web) as connection:
                await connection.run_sync(noting)
                await failing(connection)
    assert noted(db.engine) == 1
    async with autocommit_async(web) as connection:
        await connection.run_sync(noting)
        assert noted(db.engine) == 2
    await web.dispose()


@pytest.mark.direct
@pytest.mark.parametrize("moment", ["begin", "commit"])
async def test_one_attempt_fails_when_all_connections_are_lost(settings: Settings, db: DbVerbs, moment: str) -> None:
    """Tell the pool, although the driver begins and ends by itself: no other dead connection is handed out."""
    web = async_engine(settings, pool_size=3)
    async with transaction_async(web) as first, transaction_async(web) as second, transaction_async(web) as third:
        pids = [await connection.run_sync(backend) for connection in (first, second, third)]
    if moment == "begin":
        terminate(db.engine, pids)
    with pytest.raises(psycopg.OperationalError) as caught:
        async with transaction_async(web) as connection:
            await connection.run_sync(noting)
            terminate(db.engine, pids)
    assert verdict(caught.value) == "unavailable retry"
    async with transaction_async(web) as first, transaction_async(web) as second, transaction_async(web) as third:
        new = {await connection.run_sync(backend) for connection in (first, second, third)}
    assert len(new - {*pids}) == 3
    assert noted(db.engine) == 0
    await web.dispose()


def terminate(engine: Engine, pids: list[int]) -> None:
    with transaction(engine) as connection:
        connection.execute(text("SELECT pg_terminate_backend(pid, 5000) FROM unnest(:pids) AS pid"), {"pids": pids})


def noting(connection: Connection) -> None:
    connection.execute(text("INSERT INTO duties (duty, last_run) SELECT 'noted' || count(*), now() FROM duties"))


def noted(engine: Engine) -> int:
    with transaction(engine) as connection:
        return int(connection.execute(text("SELECT count(*) FROM duties WHERE duty LIKE 'noted%'")).scalar_one())


async def failing_statement(connection: AsyncConnection) -> None:
    await connection.run_sync(lambda sync: sync.execute(text("SELECT 1/0")))


async def failing_code(_: AsyncConnection) -> None:
    raise ZeroDivisionError


async def cancelled(engine: Engine, connection: AsyncConnection) -> None:
    asleep = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'")

    async def is_asleep() -> bool:
        with transaction(engine) as watcher:
            return bool(watcher.execute(asleep).scalar_one())

    task = asyncio.ensure_future(connection.run_sync(lambda sync: sync.execute(text("SELECT pg_sleep(60)"))))
    # A cancellation that overtakes its statement ends nothing in the server.
    await eventually_async(is_asleep)
    task.cancel()
    await task


@pytest.mark.parametrize(
    ("statement", "meaning"),
    [
        ("SELECT 1/0", "fault"),
        ("SELECT repeat(chr(0), 1)", "fault"),
        ("SELECT repeat('[', 100000)::json", "fault"),
        ("SET LOCAL statement_timeout = 10; SELECT pg_sleep(5)", "fault"),
        ("SELECT pg_terminate_backend(pg_backend_pid())", "unavailable retry"),
        ("SET TRANSACTION READ ONLY; CREATE TABLE t ()", "unavailable retry"),
        ("SELECT * FROM no_such_table", ""),
        ("SELEC 1", ""),
    ],
    ids=["division", "nul", "depth", "timeout", "terminated", "read only", "no table", "syntax"],
)
def test_failures_are_classified_by_sqlstate(engine: Engine, statement: str, meaning: str) -> None:
    """Bisect faults of an item, retry through outages, and treat the rest as a bug."""
    with engine.connect() as connection:
        assert verdict(failure(connection, statement)) == meaning


def test_constraint_and_encoding_errors_are_item_faults(engine: Engine) -> None:
    """Count a NUL or a lone surrogate as the item's fault, although it never reaches Postgres."""
    with engine.connect() as connection:
        for value in ("\x00", "\ud800"):
            with pytest.raises((DBAPIError, UnicodeEncodeError)) as caught:
                connection.execute(text("SELECT CAST(:value AS text)"), {"value": value})
            assert verdict(caught.value) == "fault"
            connection.rollback()
        connection.execute(text("CREATE TEMP TABLE once (n int PRIMARY KEY)"))
        assert verdict(failure(connection, "INSERT INTO once VALUES (1), (1)")) == "fault"


def test_lock_timeout_is_item_fault_and_deadlock_is_repeated(engine: Engine) -> None:
    """Fail the blocked item alone; repeat the deadlocked batch."""
    with transaction(engine) as connection:
        connection.execute(text("CREATE TABLE rows AS SELECT n FROM generate_series(1, 2) AS n"))
    meet = threading.Barrier(2)

    def lock_both(first: int, second: int) -> str:
        with engine.connect() as connection:
            connection.execute(text("SET LOCAL lock_timeout = 0"))
            statement = text("SELECT n FROM rows WHERE n = :n FOR UPDATE")
            connection.execute(statement, {"n": first})
            meet.wait(30)
            try:
                connection.execute(statement, {"n": second})
            except DBAPIError as error:
                return verdict(error)
            return "got both"

    with ThreadPoolExecutor(2) as threads:
        outcomes = [threads.submit(lock_both, *pair).result for pair in ((1, 2), (2, 1))]
        assert sorted(outcome() for outcome in outcomes) == ["got both", "retry"]

    with engine.connect() as holder, engine.connect() as waiter:
        holder.execute(text("SELECT n FROM rows WHERE n = 1 FOR UPDATE"))
        waiter.execute(text("SET LOCAL lock_timeout = 20"))
        error = failure(waiter, "SELECT n FROM rows WHERE n = 1 FOR UPDATE")
        assert (sqlstate(error), verdict(error)) == ("55P03", "fault")


def test_exhausted_pool_is_no_outage(settings: Settings) -> None:
    """Use up our own connections while Postgres is well."""
    engine = sync_engine(settings.model_copy(update={"pool_timeout_seconds": 0.01}), pool_size=1)
    with engine.connect(), pytest.raises(PoolTimeout) as caught:
        engine.connect()
    assert verdict(caught.value) == ""
    engine.dispose()


def test_paused_transaction_is_ended_and_may_be_repeated(settings: Settings) -> None:
    """Release the locks of a frozen process: the server ends its transaction."""
    engine = sync_engine(settings.model_copy(update={"idle_in_transaction_seconds": 1}), pool_size=2)
    with engine.connect() as paused, autocommit(engine) as watcher:
        pid = backend(paused)
        alive = text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid")
        eventually(lambda: watcher.execute(alive, {"pid": pid}).scalar_one() == 0)
        assert "retry" in verdict(failure(paused, "SELECT 1"))
    engine.dispose()


def test_engine_survives_crash_and_stop_of_server(own_postgres: OwnPostgres) -> None:
    """Report each failure meanwhile, then go on with the same engine."""
    engine = sync_engine(Settings(database_url=own_postgres.url), pool_size=2)
    for end in (own_postgres.kill, own_postgres.stop):
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
            end()
            assert verdict(failure(connection, "SELECT 1")) == "unavailable retry"
        with pytest.raises(DBAPIError) as caught:
            engine.connect()
        assert verdict(caught.value) == "unavailable retry"
        own_postgres.start()
        with transaction(engine) as connection:
            assert connection.execute(text("SELECT 1")).scalar_one() == 1
    engine.dispose()
