"""Postgres and Redis of a test process: an embedded pair of its own, or those of DATABASE_URL and REDIS_URL."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import psutil
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from redis import Redis

from devserver.embedded import PostgresServer, RedisServer, start_postgres, start_redis
from models.schema.migrate import upgrade
from runtime.processes import end_processes, read_pid_file
from runtime.redis_client import sync_client
from testkit.ports import own_port
from testkit.process_guard import guarded

_PREFIX = "coordinator-test-"
MIGRATE_WITH = "MIGRATE_WITH"
POOLER = "POSTGRES_POOLER"
# Settings that our processes need behind a pooler.
POOLED = {"COORDINATOR_STARTUP_OPTIONS": "0", "COORDINATOR_PREPARE_STATEMENTS": "0"}
# Turn fsync off: tests kill processes, and only a dead machine loses writes.
FAST_POSTGRES = {
    "fsync": "off",
    "full_page_writes": "off",
    # Rows then lie in the order in which they were inserted, also in a database that an earlier test has used.
    "autovacuum": "off",
    "max_connections": "200",
    "max_prepared_transactions": "10",
}


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """Create a directory for this process's servers, logs and pid files; clear it at the end, however that comes."""
    path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    with guarded(path):
        try:
            yield path
        finally:
            clear(path)


def new_directory(scratch: Path, kind: str) -> Path:
    return Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=scratch))


def clear(path: Path) -> None:
    """End whatever still runs from a scratch directory, then remove it."""
    pid_files = path.rglob("run/*.pid")
    left = [process for process in map(read_pid_file, pid_files) if process is not None]
    # SIGQUIT makes Postgres end at once and still free its shared memory.
    end_processes(left, within=10, by=signal.SIGQUIT)
    shutil.rmtree(path, ignore_errors=True)


def clear_leftovers() -> None:
    """Clear the scratch directories of test processes that are gone, of this run or an earlier one."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        pid = path.name.removeprefix(_PREFIX).split("-", 1)[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            clear(path)


def migrate(url: str) -> None:
    """Bring a database to this release's schema, or to another one's by the command in MIGRATE_WITH.

    So the tests of this release can run on the schema of a later one (tests/migrations/test_last_release.py).
    """
    command = os.environ.get(MIGRATE_WITH, "")
    if not command:
        upgrade(url.replace("postgresql://", "postgresql+psycopg://", 1))
        return
    # Hand on no path of ours: the command must find its own code.
    servers = {"DATABASE_URL": url, "REDIS_URL": "redis://127.0.0.1:1/0"}
    subprocess.run(shlex.split(command), env={"PATH": os.defpath, **servers}, cwd="/", check=True)


@dataclass
class PostgresOfTests:
    """Server with one migrated template from which databases are copied.

    The code under test reaches it at `pooler`, a host and port, if there is one: a PgBouncer
    (scripts/behind_pgbouncer).
    """

    url: str
    name: str
    server: PostgresServer | None = None
    pooler: str = ""
    _numbers: Iterator[int] = field(default_factory=count)
    _template: str = ""

    def create(self, *, migrated: bool = True) -> str:
        """Create a database, migrated or empty, and return its URL."""
        name = f"{self.name}_{next(self._numbers)}"
        template = self._migrated_template() if migrated else "template0"
        self._run(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
        return self._url_of(name)

    def pooled(self, url: str) -> str:
        """Return the URL by which the code under test reaches a database of this server."""
        return re.sub(r"@[^/@]*/", f"@{self.pooler}/", url) if self.pooler else url

    def drop(self, url: str) -> None:
        name = url.rpartition("/")[2].partition("?")[0]
        self._run(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def close(self) -> None:
        """Stop the server, or drop the template on one that is not ours."""
        if self.server is not None:
            self.server.stop("immediate")
        elif self._template:
            self.drop(self._url_of(self._template))

    def _migrated_template(self) -> str:
        if not self._template:
            name = f"{self.name}_template"
            self._run(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
            migrate(self._url_of(name))
            self._template = name
        return self._template

    def _url_of(self, database: str) -> str:
        base, question, query = self.url.partition("?")
        return f"{base.rpartition('/')[0]}/{database}{question}{query}"

    def _run(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement)


def redis_client(url: str) -> Redis:
    """Return a Redis client of the test itself, which waits while a crowded machine writes Redis's file."""
    return sync_client(url, answer_timeout=60, connect_timeout=60)


@dataclass
class RedisOfTests:
    """Redis server, or one logical database of a shared one."""

    url: str
    server: RedisServer | None = None

    def flush(self) -> None:
        client = redis_client(self.url)
        client.flushdb()
        client.close()

    def close(self) -> None:
        if self.server is not None:
            self.server.kill()


def copy_prepared_postgres(directory: Path) -> None:
    """Put a migrated Postgres, not running, into an empty data directory: a tenth of the time of initdb."""
    scratch = next((one for one in directory.parents if one.name.startswith(_PREFIX)), directory.parent)
    prepared = scratch / "prepared-postgres"
    if not prepared.exists():
        half_made = new_directory(scratch, "preparing")
        server = start_postgres(half_made, settings=FAST_POSTGRES)
        _hash_password_once(server.url)
        migrate(server.url)
        server.stop()
        half_made.rename(prepared)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    # With their owner: Postgres refuses to run as root, and on files of another user.
    command = ["cp", "-Rp", str(prepared / "postgres"), str(directory / "postgres")]
    subprocess.run(command, check=True)


def _hash_password_once(url: str) -> None:
    """Store the password by one round of its hash instead of 4,096: these take a client 3 ms of CPU a connection."""
    password = sql.Literal(conninfo_to_dict(url)["password"])
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET scram_iterations = 1")
        connection.execute(sql.SQL("ALTER ROLE CURRENT_USER PASSWORD {}").format(password))


@dataclass
class OwnPostgres:
    """Migrated embedded Postgres of one test, to be killed, stopped and started at will; its URL stays."""

    directory: Path
    port: int = field(default_factory=own_port)
    server: PostgresServer = field(init=False)

    def __post_init__(self) -> None:
        copy_prepared_postgres(self.directory)
        self.start()
        self.url = self.server.url

    def start(self) -> None:
        self.server = start_postgres(self.directory, port=self.port, settings=FAST_POSTGRES)

    def stop(self) -> None:
        """Shut it down: clients are told so."""
        self.server.stop()

    def kill(self) -> None:
        """Send SIGKILL to all of it, as in a power cut."""
        self.server.kill()


@dataclass
class OwnRedis:
    """Embedded Redis of one test, to be killed, frozen and started at will; its URL stays."""

    directory: Path
    port: int = field(default_factory=own_port)
    server: RedisServer = field(init=False)

    def __post_init__(self) -> None:
        self.start()
        self.url = self.server.url

    def start(self) -> None:
        self.server = start_redis(self.directory, port=self.port)

    def stop(self) -> None:
        self.server.stop()

    def kill(self) -> None:
        self.server.kill()

    def freeze(self) -> None:
        """Stop it: it answers nothing, and its connections stay open."""
        os.kill(self.server.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.server.pid, signal.SIGCONT)


def postgres_of(scratch: Path, worker: str, given: str) -> PostgresOfTests:
    """Return the Postgres of this test process; the user of `given` (DATABASE_URL) must be allowed to
    create databases.
    """
    name = f"test_{os.getpid()}_{worker}"
    if given:
        url = given.replace("+psycopg", "", 1).replace("postgres://", "postgresql://", 1)
        return PostgresOfTests(url, name, pooler=os.environ.get(POOLER, ""))
    server = start_postgres(scratch, settings=FAST_POSTGRES)
    _hash_password_once(server.url)
    return PostgresOfTests(server.url, name, server)


def redis_of(scratch: Path, worker: str, given: str) -> RedisOfTests:
    """Return the Redis of this test process; of a `given` one (REDIS_URL) use, and empty, a logical
    database of 1-15.
    """
    if given:
        base = given.partition("?")[0].rstrip("/")
        scheme, _, address = base.partition("://")
        number = int(worker.removeprefix("gw") or 0) % 15 + 1 if worker.startswith("gw") else 1
        return RedisOfTests(f"{scheme}://{address.split('/', 1)[0]}/{number}")
    server = start_redis(scratch)
    return RedisOfTests(server.url, server)
