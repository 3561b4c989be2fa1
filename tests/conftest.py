"""Fixtures of all tests: real servers, a fresh migrated database per test, and real processes of ours."""

import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import structlog
from sqlalchemy import Connection, Engine

from runtime.postgres import sync_engine
from runtime.settings import PREFIX, Settings
from testkit.authorities import share_default_authorities
from testkit.cluster import Cluster
from testkit.prefork import ForkServer
from testkit.servers import (
    POOLED,
    POOLER,
    OwnPostgres,
    OwnRedis,
    PostgresOfTests,
    RedisOfTests,
    clear_leftovers,
    new_directory,
    postgres_of,
    redis_of,
    scratch_directory,
)
from tests.support import command
from tests.support.databases import Databases
from tests.support.db_verbs import DbVerbs
from tests.support.filled_database import filled_database
from tests.support.web import WebClient, WebInThread, served

# Keep exported variables from changing tests; the addresses of servers alone are read.
for _name in [name for name in os.environ if name.startswith(PREFIX)]:
    del os.environ[_name]
if POOLER in os.environ:
    os.environ.update(POOLED)
share_default_authorities()
# Let the processes of a run read what the first of them has compiled; each would compile 200 modules anew.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Print plain tracebacks, as our processes do: the default prints sources and variables, which took an event loop 2 s.
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)

# Allow more than production limits: 64 contenders and other tests on two cores have held a lock for 2 s, delayed a
# connection for 3 s, waited 2 s for one of the pool's, and paused for 5 s within a transaction.
UNHURRIED = {
    "lock_timeout_seconds": 20,
    "connect_timeout_seconds": 30,
    "statement_timeout_seconds": 60,
    "pool_timeout_seconds": 30,
    "idle_in_transaction_seconds": 60,
}


def pytest_xdist_auto_num_workers() -> int:
    """Return two workers per core, at most eight: tests wait for servers and outages more than they compute."""
    return min(8, 2 * (os.cpu_count() or 1))


def pytest_unconfigure(config: pytest.Config) -> None:
    """End processes left by killed test processes of this or an earlier run, once all workers are done."""
    if not hasattr(config, "workerinput"):
        clear_leftovers()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Function) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the last log lines of a cluster's processes to the report of the test that failed with them."""
    report = yield
    if report.failed and isinstance(cluster := item.funcargs.get("cluster"), Cluster):
        report.sections += [(f"end of {process.name}'s log", process.log()[-4000:]) for process in cluster.processes]
    return report


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """Return a directory of this test process that Postgres may enter, whichever user it runs as."""
    with scratch_directory() as path:
        yield path


@pytest.fixture(scope="session")
def process_name() -> str:
    return os.environ.get("PYTEST_XDIST_WORKER", "gw0")


@pytest.fixture(scope="session")
def postgres(scratch: Path, process_name: str) -> Iterator[PostgresOfTests]:
    """Return the Postgres of this test process, for databases beyond `database_url`; use own_postgres for one to be
    stopped.
    """
    server = postgres_of(scratch, process_name, os.environ.get("DATABASE_URL", ""))
    yield server
    server.close()


@pytest.fixture(scope="session")
def redis_server(scratch: Path, process_name: str) -> Iterator[RedisOfTests]:
    server = redis_of(scratch, process_name, os.environ.get("REDIS_URL", ""))
    yield server
    server.close()


@pytest.fixture(scope="session")
def databases(postgres: PostgresOfTests) -> Iterator[Databases]:
    """Return the databases that the tests of this process use one after another."""
    databases = Databases(postgres.create, postgres.drop)
    yield databases
    databases.close()


@pytest.fixture
def database_url(postgres: PostgresOfTests, databases: Databases) -> Iterator[str]:
    """Return the URL of this test's own database, migrated and empty."""
    url = databases.take()
    yield postgres.pooled(url)
    databases.give_back(url)


@pytest.fixture
def empty_database_url(postgres: PostgresOfTests) -> Iterator[str]:
    """Return the URL of a database without any table: for migrations."""
    url = postgres.create(migrated=False)
    yield postgres.pooled(url)
    postgres.drop(url)


@pytest.fixture
def redis_url(redis_server: RedisOfTests) -> str:
    """Return the URL of an empty logical database that no other test uses meanwhile."""
    redis_server.flush()
    return redis_server.url


@pytest.fixture
def settings(database_url: str, redis_url: str) -> Settings:
    """Return the defaults with this test's servers."""
    return Settings(database_url=database_url, redis_url=redis_url)


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    """Connect to this test's database, with connections for 32 contenders and limits that a busy machine keeps."""
    engine = sync_engine(settings.model_copy(update=UNHURRIED), pool_size=48, name="test")
    yield engine
    engine.dispose()


@pytest.fixture
def db(engine: Engine) -> DbVerbs:
    """Return the verbs of models/ on this test's database, each call a committed transaction."""
    return DbVerbs(engine)


@pytest.fixture(scope="session")
def fork_server(scratch: Path) -> Iterator[ForkServer]:
    """Return the process from which commands are forked; once there is a scratch directory, whose guard ends them all."""
    yield command.fork_server
    command.fork_server.close()


@pytest.fixture
def cluster(scratch: Path, settings: Settings, fork_server: ForkServer) -> Iterator[Cluster]:
    """Provide real web and worker processes on this test's database: `cluster.start_web()`,
    `cluster.start_worker()`.
    """
    cluster = Cluster(new_directory(scratch, "cluster"), settings.database_url, settings.redis_url, fork_server)
    yield cluster
    cluster.stop()


@pytest.fixture
def web(settings: Settings) -> Iterator[WebInThread]:
    """Serve the application from this process; modules with other settings define their own."""
    with served(settings) as web:
        yield web


@pytest.fixture
def client(web: WebInThread) -> WebClient:
    """Return a client of ``web``."""
    return web.client


@pytest.fixture
def own_postgres(scratch: Path) -> Iterator[OwnPostgres]:
    """Start a migrated embedded Postgres for this test alone, also when DATABASE_URL is given."""
    server = OwnPostgres(new_directory(scratch, "postgres"))
    yield server
    server.server.stop("immediate")


@pytest.fixture
def own_engine(own_postgres: OwnPostgres, redis_url: str) -> Iterator[Engine]:
    """Connect to `own_postgres`, which the test may stop; each look takes a fresh connection."""
    engine = sync_engine(Settings(database_url=own_postgres.url, redis_url=redis_url), pool_size=16, name="test")
    yield engine
    engine.dispose()


@pytest.fixture
def own_redis(scratch: Path) -> Iterator[OwnRedis]:
    """Start an embedded Redis for this test alone, also when REDIS_URL is given."""
    server = OwnRedis(new_directory(scratch, "redis"))
    yield server
    server.kill()


@pytest.fixture(scope="module")
def filled(request: pytest.FixtureRequest, postgres: PostgresOfTests) -> Iterator[Engine]:
    """Create a database of the module's own, with the rows of its ``FILL`` and fresh statistics."""
    with filled_database(postgres, request.module.FILL) as engine:
        yield engine


@pytest.fixture
def conn(filled: Engine) -> Iterator[Connection]:
    """Open a transaction on ``filled`` that is rolled back."""
    with filled.connect() as connection:
        yield connection
        connection.rollback()
