"""Embedded servers, from which a bare checkout serves."""

import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from devserver import postgres_binaries
from devserver.embedded import (
    PortTaken,
    PostgresServer,
    RedisServer,
    find_postgres_binaries,
    start_postgres,
    start_redis,
)
from runtime.processes import Locked, is_alive, locked, processes_in, read_pid_file
from testkit.waiting import eventually

ROOT = Path(__file__).parents[2]


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """Return a data directory whose servers are stopped after the test, whatever process started them."""
    yield tmp_path / "data"
    for name, folder in (("postgres", "postgres/cluster"), ("valkey-server", "redis"), ("redis-server", "redis")):
        for process in processes_in(tmp_path / "data" / folder, [name]):
            process.kill()


def query(server: PostgresServer, statement: str) -> object:
    with psycopg.connect(server.url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def client(server: RedisServer) -> "redis.Redis":
    return redis.Redis.from_url(server.url, decode_responses=True)


def test_data_survives_restart_at_same_address(data_dir: Path) -> None:
    """Let clients keep their URL and find what they wrote."""
    postgres, store = start_postgres(data_dir), start_redis(data_dir)
    query(postgres, "CREATE TABLE kept AS SELECT 7 AS n")
    client(store).set("kept", "7")
    postgres.stop()
    store.stop()
    assert not psutil.pid_exists(postgres.pid)
    assert not psutil.pid_exists(store.pid)

    again, store_again = start_postgres(data_dir), start_redis(data_dir)
    assert (again.url, store_again.url) == (postgres.url, store.url)
    assert query(again, "SELECT n FROM kept") == 7
    assert client(store_again).get("kept") == "7"
    again.stop()
    store_again.stop()


def test_start_waits_for_the_initdb_of_a_killed_start(data_dir: Path) -> None:
    """An orphan writes to the place where the next start would create its own."""
    script = "import sys, pathlib, devserver.embedded as e; e.start_postgres(pathlib.Path(sys.argv[1]))"
    with subprocess.Popen([sys.executable, "-c", script, str(data_dir)], cwd=ROOT) as killed:
        starter = psutil.Process(killed.pid)
        (initdb,) = eventually(lambda: [one for one in starter.children() if one.name() == "initdb"], what="initdb")
        initdb.suspend()
        killed.kill()
    with pytest.raises(Locked), locked(data_dir / "run" / "postgres.lock"):
        pass
    initdb.resume()
    postgres = start_postgres(data_dir)
    assert not is_alive(initdb)
    assert query(postgres, "SELECT 1") == 1
    postgres.stop()


def test_live_server_of_same_data_is_adopted(data_dir: Path) -> None:
    """Find the running pair on a second start by its pid file or, if that is lost, by its working directory."""
    postgres, store = start_postgres(data_dir), start_redis(data_dir)
    for name in ("postgres", "redis"):
        (data_dir / "run" / f"{name}.pid").unlink()
    again, store_again = start_postgres(data_dir), start_redis(data_dir)
    assert (again.pid, again.adopted) == (postgres.pid, True)
    assert (store_again.pid, store_again.adopted) == (store.pid, True)
    again.stop()
    store_again.stop()
    assert not postgres.alive()
    assert not store.alive()


def test_committed_data_survives_sigkill(data_dir: Path) -> None:
    """Kill every process of the pair: no commit is lost, and the next start needs no help."""
    postgres, store = start_postgres(data_dir), start_redis(data_dir)
    query(postgres, "CREATE TABLE kept AS SELECT 7 AS n")
    postgres.kill()
    store.kill()
    again, store_again = start_postgres(data_dir), start_redis(data_dir)
    assert again.pid != postgres.pid
    assert again.url == postgres.url
    assert query(again, "SELECT n FROM kept") == 7
    assert client(store_again).ping()
    again.stop("immediate")
    store_again.stop()


def test_postmaster_pid_of_unrelated_process_is_removed(data_dir: Path) -> None:
    """Reuse the pid for another process: it neither stops the start nor is harmed."""
    postgres = start_postgres(data_dir)
    leftover = (data_dir / "postgres/cluster/postmaster.pid").read_text()
    postgres.stop()
    unrelated = psutil.Popen(["/bin/sleep", "60"])
    try:
        text = leftover.replace(str(postgres.pid), str(unrelated.pid), 1)
        (data_dir / "postgres/cluster/postmaster.pid").write_text(text)
        (data_dir / "run/postgres.pid").write_text(f"{unrelated.pid} made-up-mark\n")
        again = start_postgres(data_dir)
        assert again.pid not in {postgres.pid, unrelated.pid}
        assert unrelated.is_running()
        again.stop()
    finally:
        unrelated.kill()
        unrelated.wait()


def test_passwords_are_required_and_private(data_dir: Path) -> None:
    """Refuse connections without the generated password; only the own user may read it."""
    postgres, store = start_postgres(data_dir), start_redis(data_dir)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(postgres.url.replace("@", "x@"))
    with pytest.raises(redis.AuthenticationError):
        redis.Redis.from_url(store.url.replace("@", "x@")).ping()
    for file in ("postgres/access.json", "redis/access.json", "redis/redis.conf", "postgres/cluster/coordinator.conf"):
        assert stat.S_IMODE((data_dir / file).stat().st_mode) == 0o600, file
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
    commands = [psutil.Process(server.pid).cmdline() for server in (postgres, store)]
    for password in (postgres.url.split(":")[2].split("@")[0], store.url.split(":")[2].split("@")[0]):
        assert password not in str(commands)
    postgres.stop()
    store.stop()


def test_servers_listen_on_loopback_below_ephemeral_range(data_dir: Path) -> None:
    """Keep away from other hosts and from ports of outgoing connections."""
    postgres, store = start_postgres(data_dir), start_redis(data_dir)
    for server in (postgres, store):
        listening = [c.laddr for c in psutil.Process(server.pid).net_connections() if c.status == psutil.CONN_LISTEN]
        assert {address.ip for address in listening} == {"127.0.0.1"}
        assert all(address.port < 32768 for address in listening)
    postgres.stop()
    store.stop()


def test_taken_remembered_port_is_replaced(data_dir: Path) -> None:
    """Start anyway, at another address."""
    postgres, store = start_postgres(data_dir), start_redis(data_dir)
    postgres.stop()
    store.stop()
    with socket.socket() as first, socket.socket() as second:
        for sock, server in ((first, postgres), (second, store)):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", int(server.url.rpartition(":")[2].split("/")[0])))
            sock.listen()
        again, store_again = start_postgres(data_dir), start_redis(data_dir)
        assert again.url != postgres.url
        assert store_again.url != store.url
        assert query(again, "SELECT 1") == 1
        again.stop()
        store_again.stop()


def test_taken_explicit_port_is_an_error(data_dir: Path) -> None:
    """Choose no other port silently."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(PortTaken, match=str(port)):
            start_redis(data_dir, port=port)
        with pytest.raises(PortTaken, match=str(port)):
            start_postgres(data_dir, port=port)


def test_settings_reach_postgres_and_environment_does_not(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Apply what the caller passes, and ignore what a developer's shell holds for other databases."""
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGOPTIONS", "-c work_mem=64kB")
    monkeypatch.setenv("PGDATA", "/nowhere")
    postgres = start_postgres(data_dir, settings={"max_prepared_transactions": "5", "log_line_prefix": "it's %p "})
    monkeypatch.undo()
    assert query(postgres, "SELECT current_setting('max_prepared_transactions')") == "5"
    assert query(postgres, "SELECT current_setting('log_line_prefix')") == "it's %p "
    assert query(postgres, "SELECT current_setting('fsync')") == "on"
    postgres.stop()


def test_pid_files_name_running_servers(data_dir: Path) -> None:
    """Name the live process in run/NAME.pid, and remove the file on a stop."""
    postgres, store = start_postgres(data_dir), start_redis(data_dir)
    for name, server in (("postgres", postgres), ("redis", store)):
        named = read_pid_file(data_dir / "run" / f"{name}.pid")
        assert named
        assert named.pid == server.pid
        assert (data_dir / "logs" / f"{name}.log").stat().st_size
        server.stop()
        assert not (data_dir / "run" / f"{name}.pid").exists()


def test_frozen_server_is_stopped_in_bounded_time(data_dir: Path) -> None:
    store = start_redis(data_dir)
    psutil.Process(store.pid).send_signal(signal.SIGSTOP)
    store.stop(within=0.2)
    assert not psutil.pid_exists(store.pid)


def test_postgres_never_runs_as_root_and_opens_no_folder(data_dir: Path) -> None:
    """Own the data as the user that runs it. Under root that is another user, for which folders above stay closed."""
    data_dir.parent.chmod(0o700)
    postgres = start_postgres(data_dir)
    user = psutil.Process(postgres.pid).uids().real
    assert user != 0
    assert os.geteuid() in {0, user}
    assert stat.S_IMODE(data_dir.parent.stat().st_mode) == 0o700
    assert (data_dir / "postgres").stat().st_uid == user
    postgres.stop()


def test_programs_closed_to_server_user_are_copied_with_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve from a wheel under root's home too; without root no copy is needed, since the users are the same."""
    closed, shared = Path(tempfile.mkdtemp()), Path(tempfile.mkdtemp())
    try:
        shared.chmod(0o755)
        monkeypatch.setattr(postgres_binaries, "_SHARED_PLACES", (str(shared),))
        package = find_postgres_binaries().parent.parent
        libraries = f"{package.name}.libs"
        shutil.copytree(package, closed / package.name, symlinks=True)
        shutil.copytree(package.with_name(libraries), closed / libraries, symlinks=True)
        programs = closed / package.name / "pginstall" / "bin"
        user = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None
        found = postgres_binaries.readable_by(user, programs)
        assert found.is_relative_to(shared if user else closed)
        assert postgres_binaries.readable_by(user, programs) == found
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    finally:
        shutil.rmtree(closed)
        shutil.rmtree(shared)
