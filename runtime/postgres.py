"""Connections to Postgres, the transaction of everything but the web's writes, and what a failure of it means."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import psycopg
from psycopg.types.array import ListBinaryDumper
from sqlalchemy import Connection, Engine, ExceptionContext, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from runtime.settings import Settings

DEADLOCK = "40P01"
SERIALIZATION = "40001"
READ_ONLY = "25006"
IDLE_IN_TRANSACTION = "25P03"
UNKNOWN_DATABASE = "3D000"
STALE_PLAN = "0A000"
LOCK_TIMEOUT = "55P03"
STATEMENT_TIMEOUT = "57014"

# The cancelled statement's answer has to come back, from a server that is busy.
SILENCE_MARGIN_SECONDS = 2.0


def sync_engine(settings: Settings, *, pool_size: int | None = None, name: str = "coordinator") -> Engine:
    """Engine for workers, the command line and tests. `name` is what pg_stat_activity shows.

    A full pool raises sqlalchemy's TimeoutError after `pool_timeout_seconds`; that is no outage (see is_unavailable).
    """
    size = settings.worker_threads + 2 if pool_size is None else pool_size
    engine = create_engine(settings.database_url, **_engine_arguments(settings, size, name))
    _listen(engine, settings)
    return engine


def async_engine(settings: Settings, *, pool_size: int | None = None, name: str = "coordinator") -> AsyncEngine:
    """The same for the web: verbs are run on it with `AsyncConnection.run_sync`.

    Its connections are in autocommit for good: to change one's mode and back costs the web half as much as a statement.
    """
    size = settings.web_pool_size if pool_size is None else pool_size
    engine = create_async_engine(
        settings.database_url,
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        **_engine_arguments(settings, size, name),
    )
    _listen(engine.sync_engine, settings)
    return engine


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """One transaction, committed at the end of the block, rolled back if it raises.

    A lost connection may be raised after the COMMIT has happened: repeat only what is safe to repeat.
    """
    with engine.begin() as connection:
        yield connection


@contextmanager
def autocommit(engine: Engine) -> Iterator[Connection]:
    """A connection on which each statement is its own transaction: for `sequence_feed` and one-statement reads."""
    with engine.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


@asynccontextmanager
async def transaction_async(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """`transaction` for the web: its driver begins and ends it."""
    async with engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        assert isinstance(driver, psycopg.AsyncConnection)  # noqa: S101 -- what the engine is made of
        try:
            async with driver.transaction():
                yield connection
        finally:
            # What the driver lost at BEGIN or COMMIT, SQLAlchemy has to see: then it doubts the rest of its pool, too.
            if driver.closed and not connection.invalidated:
                with suppress(DBAPIError):
                    await connection.exec_driver_sql("SELECT 1")


@asynccontextmanager
async def autocommit_async(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """`autocommit` for the web."""
    async with engine.connect() as connection:
        yield connection


def session_settings(settings: Settings) -> dict[str, str]:
    """What every connection asks of the server: its timeouts, in milliseconds, and to read tables by their indexes.

    The plan of a prepared statement may be made while a table is nearly empty, and stays when it has grown. Before
    Postgres 18 what must read a table all the same is then given a price at which it would be compiled first.
    """
    return {
        "enable_seqscan": "off",
        "jit": "off",
        "lock_timeout": _milliseconds(settings.lock_timeout_seconds),
        "statement_timeout": _milliseconds(settings.statement_timeout_seconds),
        "idle_in_transaction_session_timeout": _milliseconds(settings.idle_in_transaction_seconds),
    }


def longest_silence(settings: Settings) -> float:
    """Return after how many seconds without a word a Postgres cannot be there: it ends each statement before that, and
    a connection that it does not accept, or that is not free, is given up before.
    """
    connecting = settings.pool_timeout_seconds + settings.connect_timeout_seconds
    return max(settings.statement_timeout_seconds, connecting) + SILENCE_MARGIN_SECONDS


def connect_arguments(settings: Settings, name: str) -> dict[str, Any]:
    """Arguments of every libpq connection: found dead within seconds, never waiting for ever.

    The session's settings travel with the start-up packet, so they cost no round trip and never leak into another's
    session, as a SET does behind PgBouncer's transaction mode. With `startup_options` off each transaction sets them.
    """
    arguments: dict[str, Any] = {
        "application_name": name,
        "connect_timeout": settings.connect_timeout_seconds,
        "keepalives": 1,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": int(_milliseconds(settings.tcp_user_timeout_seconds)),
    }
    if not settings.prepare_statements:
        arguments["prepare_threshold"] = None
    if settings.startup_options:
        ours = " ".join(f"-c {key}={value}" for key, value in session_settings(settings).items())
        theirs = make_url(settings.database_url).query.get("options", "")
        arguments["options"] = f"{ours} {theirs}".strip()
    return arguments


def _engine_arguments(settings: Settings, pool_size: int, name: str) -> dict[str, Any]:
    if not settings.database_url:
        settings.need_servers()
    return {
        "connect_args": connect_arguments(settings, name),
        "pool_size": pool_size,
        "max_overflow": 0,
        "pool_timeout": settings.pool_timeout_seconds,
        # The last one used is used again, so that a quiet process keeps one connection warm and the others idle.
        "pool_use_lifo": True,
        "use_native_hstore": False,
    }


def _milliseconds(seconds: float) -> str:
    # 0 would switch a timeout off.
    return str(max(1, round(seconds * 1000)))


def _listen(engine: Engine, settings: Settings) -> None:
    event.listen(engine, "handle_error", _drop_poisoned)
    event.listen(engine, "connect", _send_arrays_as_binary)
    if not settings.startup_options:
        wanted = session_settings(settings)
        calls = ", ".join(["set_config(%s, %s, true)"] * len(wanted))
        parameters = tuple(part for pair in wanted.items() for part in pair)

        def set_them(connection: Connection) -> None:
            connection.exec_driver_sql(f"SELECT {calls}", parameters)

        event.listen(engine, "begin", set_them)


def _send_arrays_as_binary(connection: Any, _: object) -> None:
    """Verbs pass columns as arrays; as text each element is escaped in Python, which costs more than the statement."""
    connection.adapters.register_dumper(list, ListBinaryDumper)


def _drop_poisoned(context: ExceptionContext) -> None:
    """Throw connections away that will fail again: to a former primary, or with plans older than a migration."""
    if sqlstate(context.original_exception) in {READ_ONLY, STALE_PLAN}:
        context.is_disconnect = True


def sqlstate(error: BaseException | None) -> str | None:
    """The five characters Postgres gave, or None when it gave none (connection refused or lost, or not its error)."""
    found = _driver_error(error)
    return found.sqlstate if found else None


def is_unavailable(error: BaseException | None) -> bool:
    """Whether Postgres cannot serve us now and may later: refused, lost, starting, full, read-only.

    A full pool of our own, a lock or statement timeout and errors of data are not: they concern one request.
    """
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return sqlstate(error) not in {STALE_PLAN, IDLE_IN_TRANSACTION}
    found = _driver_error(error)
    if found is None:
        return False
    state = found.sqlstate
    if state is None:
        return isinstance(found, psycopg.OperationalError | psycopg.InterfaceError)
    # 08 connection, 28 login, 53 out of connections, memory or disk, 57P shutdown or starting, 58 its disk or files.
    return state[:2] in {"08", "28", "53", "58"} or state[:3] == "57P" or state in {READ_ONLY, UNKNOWN_DATABASE}


def is_retryable(error: BaseException | None) -> bool:
    """Whether the whole batch may be repeated at once, with the same ids: deadlock, serialisation, lost connection.

    After a lost connection the COMMIT may have happened.
    """
    state = sqlstate(error)
    return state in {DEADLOCK, SERIALIZATION, STALE_PLAN, IDLE_IN_TRANSACTION} or is_unavailable(error)


def is_item_fault(error: BaseException | None) -> bool:
    """Whether one item of a batch is to blame, or is blocked: bad data, a broken constraint, a lock or time limit.

    The batch is cut in halves until the item stands alone. Text that psycopg cannot encode counts as bad data.
    """
    if isinstance(error, UnicodeEncodeError):
        return True
    found = _driver_error(error)
    if found is None:
        return False
    if found.sqlstate is None:
        return isinstance(found, psycopg.DataError)
    # 54: the item is too long for an index, or nested too deep for the server's stack.
    return found.sqlstate[:2] in {"22", "23", "54"} or found.sqlstate in {LOCK_TIMEOUT, STATEMENT_TIMEOUT}


def _driver_error(error: BaseException | None) -> psycopg.Error | None:
    original = error.orig if isinstance(error, DBAPIError) else error
    return original if isinstance(original, psycopg.Error) else None
