import os
import resource
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import psutil
import psycopg

from devserver.embedded import PostgresServer, RedisServer, start_postgres, start_redis
from devserver.embedded_server import pid_file_of
from devserver.supervisor import ROOT, own_command
from runtime.processes import end_processes, family, read_pid_file, wait_until
from testkit.ports import own_ports

_PREFIX: Final = "coordinator-bench-"
START_SECONDS: Final = 120
# Dropping a database with all its rows must not wait for a checkpoint of them; fsync stays on, as by default.
POSTGRES: Final = {"shared_preload_libraries": "pg_stat_statements", "max_wal_size": "4GB"}
SETTINGS: Final = {"COORDINATOR_LOG_LEVEL": "warning"}


class ClusterFailed(Exception):
    pass


class Servers:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.postgres: PostgresServer = start_postgres(directory, settings=POSTGRES)
        self.redis: RedisServer = start_redis(directory)

    def fresh_database(self) -> str:
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            connection.execute("DROP DATABASE IF EXISTS measured WITH (FORCE)")
            connection.execute("CREATE DATABASE measured TEMPLATE template0")
        self.redis.kill()
        shutil.rmtree(self._directory / "redis", ignore_errors=True)
        self.start_redis()
        return urlunsplit(urlsplit(self.postgres.url)._replace(path="/measured"))

    def start_redis(self) -> None:
        self.redis = start_redis(self._directory)

    def stop(self) -> None:
        self.redis.stop()
        self.postgres.stop("immediate")


class Cluster:
    def __init__(self, servers: Servers, directory: Path, web: int, workers: int, settings: Mapping[str, str]) -> None:
        self.servers = servers
        self.database_url = servers.fresh_database()
        self.web, self.workers = web, workers
        self._directory = directory
        self._settings = settings
        first = own_ports(web)
        self.urls = [f"http://127.0.0.1:{first + number}" for number in range(web)]
        self._output = directory / "output"
        directory.mkdir(parents=True)
        arguments = ["--no-runner", "--web", str(web), "--workers", str(workers)]
        with self._output.open("wb") as output:
            self._up = subprocess.Popen(
                own_command("up", *arguments, "--no-console", "--data", str(directory / "data"), "--port", str(first)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.child_environment(),
                cwd=ROOT,
                start_new_session=True,
            )

    def child_environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("COORDINATOR_")}
        addresses = {
            "COORDINATOR_DATABASE_URL": self.database_url,
            "COORDINATOR_REDIS_URL": self.servers.redis.url,
        }
        return {**inherited, **SETTINGS, **self._settings, **addresses}

    def wait_ready(self) -> None:
        ended = wait_until(
            lambda: self._up.poll() is not None or b"ready: " in self._output.read_bytes(),
            within=START_SECONDS,
            every=0.05,
        )
        if not ended or self._up.poll() is not None:
            raise ClusterFailed(self._output.read_text(errors="replace"))

    def processes(self) -> dict[str, list[psutil.Process]]:
        web = [process for number in range(1, self.web + 1) if (process := self._named(f"web-{number}"))]
        workers = [process for number in range(1, self.workers + 1) if (process := self._named(f"worker-{number}"))]
        servers = {"postgres": self.servers.postgres.pid, "redis": self.servers.redis.pid}
        return {
            "web": web,
            "workers": family(workers),
            **{name: family([psutil.Process(pid)]) for name, pid in servers.items() if psutil.pid_exists(pid)},
        }

    def end(self) -> None:
        self._up.send_signal(signal.SIGINT)
        try:
            self._up.wait(30)
        except subprocess.TimeoutExpired:
            end_processes(family([psutil.Process(self._up.pid)]), within=0)
            self._up.wait()

    def _named(self, name: str) -> psutil.Process | None:
        return read_pid_file(pid_file_of(self._directory / "data", name))


@contextmanager
def scratch_servers() -> Iterator[tuple[Servers, Path]]:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    _clear_leftovers()
    directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    try:
        servers = Servers(directory / "servers")
        try:
            yield servers, directory
        finally:
            servers.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def running(
    servers: Servers, directory: Path, *, web: int = 2, workers: int = 2, settings: Mapping[str, str] | None = None
) -> Iterator[Cluster]:
    cluster = Cluster(servers, Path(tempfile.mkdtemp(dir=directory)) / "up", web, workers, settings or {})
    try:
        cluster.wait_ready()
        yield cluster
    finally:
        cluster.end()


def _clear_leftovers() -> None:
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        pid = path.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            left = [process for process in map(read_pid_file, path.rglob("run/*.pid")) if process is not None]
            # SIGQUIT ends Postgres at once, but lets it give its shared memory back.
            end_processes(family(left), within=10, by=signal.SIGQUIT)
            shutil.rmtree(path, ignore_errors=True)
