from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import psycopg
from psycopg.types.array import ListBinaryDumper
from sqlalchemy import Connection, Engine, ExceptionContext, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from runtime.facts import begin_facts, count_facts
from runtime.settings import Settings

DEADLOCK = "40P01"
SERIALIZATION = "40001"
READ_ONLY = "25006"
IDLE_IN_TRANSACTION = "25P03"
UNKNOWN_DATABASE = "3D000"
STALE_PLAN = "0A000"
LOCK_TIMEOUT = "55P03"
STATEMENT_TIMEOUT = "57014"

# Time for the answer to a cancelled statement to arrive from a busy server.
SILENCE_MARGIN_SECONDS = 2.0


def sync_engine(settings: Settings, *, pool_size: int | None = None, name: str = "coordinator") -> Engine:
    """Return an engine for workers, the command line and tests; pg_stat_activity shows `name`.

    A full pool raises sqlalchemy's TimeoutError after `pool_timeout_seconds`; that is no outage (see is_unavailable).
    """
    size = settings.worker_threads + 2 if pool_size is None else pool_size
    engine = create_engine(settings.database_url, **_engine_arguments(settings, size, name))
    _listen(engine, settings)
    return engine


def async_engine(settings: Settings, *, pool_size: int | None = None, name: str = "coordinator") -> AsyncEngine:
    """Return an engine for the web; verbs run on it with `AsyncConnection.run_sync`.

    Its connections stay in autocommit: to change the mode of one and back costs the web half as much as a statement.
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
    """Run the block in one transaction; roll back if it raises.

    A lost connection may be raised after the COMMIT has happened: repeat only what is safe to repeat.
    """
    with engine.begin() as connection:
        noted = begin_facts(connection.info)
        yield connection
    count_facts(noted)


@contextmanager
def autocommit(engine: Engine) -> Iterator[Connection]:
    """Yield a connection whose statements are transactions of their own, for `sequence_feed` and single reads."""
    with engine.connect() as connection:
        noted = begin_facts(connection.info)
        yield connection.execution_options(isolation_level="AUTOCOMMIT")
    count_facts(noted)


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """Run the block in one transaction that only reads, and sees the database as it was at its first statement."""
    with engine.connect() as connection:
        connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with connection.begin():
            yield connection


@asynccontextmanager
async def transaction_async(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    async with engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        assert isinstance(driver, psycopg.AsyncConnection)  # noqa: S101 -- the engine uses this driver
        noted = begin_facts(connection.info)
        try:
            async with driver.transaction():
                yield connection
            count_facts(noted)
        finally:
            # Show SQLAlchemy that the driver lost the connection at BEGIN or COMMIT: it then distrusts the rest of its
            # pool, too.
            if driver.closed and not connection.invalidated:
                with suppress(DBAPIError):
                    await connection.exec_driver_sql("SELECT 1")


@asynccontextmanager
async def autocommit_async(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    async with engine.connect() as connection:
        noted = begin_facts(connection.info)
        yield connection
    count_facts(noted)


def session_settings(settings: Settings) -> dict[str, str]:
    """Return the server settings of every connection: timeouts in milliseconds, and plans that use indexes.

    The plan of a prepared statement may be made while a table is nearly empty, and is kept when it has grown. JIT is
    off since before Postgres 18 an unavoidable scan of a table then gets a cost at which the plan would be compiled
    first.
    """
    return {
        "enable_seqscan": "off",
        "jit": "off",
        "lock_timeout": _milliseconds(settings.lock_timeout_seconds),
        "statement_timeout": _milliseconds(settings.statement_timeout_seconds),
        "idle_in_transaction_session_timeout": _milliseconds(settings.idle_in_transaction_seconds),
    }


def longest_silence(settings: Settings) -> float:
    """Return the seconds of silence that prove an outage of Postgres: it cancels each statement before that, and a
    connection that is refused or not free is given up before.
    """
    connecting = settings.pool_timeout_seconds + settings.connect_timeout_seconds
    return max(settings.statement_timeout_seconds, connecting) + SILENCE_MARGIN_SECONDS


def connect_arguments(settings: Settings, name: str) -> dict[str, Any]:
    """Return the arguments of every libpq connection, by which a dead one is detected within seconds.

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
        own_options = " ".join(f"-c {key}={value}" for key, value in session_settings(settings).items())
        url_options = make_url(settings.database_url).query.get("options", "")
        arguments["options"] = f"{own_options} {url_options}".strip()
    return arguments


def _engine_arguments(settings: Settings, pool_size: int, name: str) -> dict[str, Any]:
    if not settings.database_url:
        settings.need_servers()
    return {
        "connect_args": connect_arguments(settings, name),
        "pool_size": pool_size,
        "max_overflow": 0,
        "pool_timeout": settings.pool_timeout_seconds,
        # Reuse the last one used, so that a quiet process keeps one connection warm and the others idle.
        "pool_use_lifo": True,
        "use_native_hstore": False,
    }


def _milliseconds(seconds: float) -> str:
    # 0 would disable a timeout.
    return str(max(1, round(seconds * 1000)))


def _listen(engine: Engine, settings: Settings) -> None:
    event.listen(engine, "handle_error", _drop_poisoned)
    event.listen(engine, "connect", _send_arrays_as_binary)
    if not settings.startup_options:
        wanted = session_settings(settings)
        calls = ", ".join(["set_config(%s, %s, true)"] * len(wanted))
        parameters = tuple(part for pair in wanted.items() for part in pair)

        def set_for_transaction(connection: Connection) -> None:
            connection.exec_driver_sql(f"SELECT {calls}", parameters)

        event.listen(engine, "begin", set_for_transaction)


def _send_arrays_as_binary(connection: Any, _: object) -> None:
    """Send lists as binary arrays: as text each element is escaped in Python, which costs more than the statement."""
    connection.adapters.register_dumper(list, ListBinaryDumper)


def _drop_poisoned(context: ExceptionContext) -> None:
    """Drop connections that would fail again: to a former primary, or with plans older than a migration."""
    if sqlstate(context.original_exception) in {READ_ONLY, STALE_PLAN}:
        context.is_disconnect = True


def sqlstate(error: BaseException | None) -> str | None:
    found = _driver_error(error)
    return found.sqlstate if found else None


def is_unavailable(error: BaseException | None) -> bool:
    """Return whether Postgres cannot serve us now and may later: refused, lost, starting, full, read-only.

    A full pool of our own, a lock or statement timeout and errors of data do not count: they concern one request.
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
    """Return whether the whole batch may be repeated at once with the same ids: deadlock, serialisation, lost
    connection.

    After a lost connection the COMMIT may have happened.
    """
    state = sqlstate(error)
    return state in {DEADLOCK, SERIALIZATION, STALE_PLAN, IDLE_IN_TRANSACTION} or is_unavailable(error)


def is_item_fault(error: BaseException | None) -> bool:
    """Return whether one item of a batch is to blame, or is blocked: bad data, broken constraint, lock or time limit.

    The batch is bisected until the item is alone. Text that psycopg cannot encode counts as bad data.
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
