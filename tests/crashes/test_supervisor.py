"""Check `coordinator up` when its parts, itself, or the servers it started die."""

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest

from devserver.embedded import start_postgres, start_redis
from runtime.processes import is_alive, port_is_free
from testkit.ports import own_port, own_ports
from testkit.servers import FAST_POSTGRES, new_directory
from testkit.up_process import Up, answers
from testkit.waiting import eventually

StartUp = Callable[..., Up]
SMALL = ("--web", "1", "--workers", "1", "--no-runner")


@pytest.fixture
def data_dir(scratch: Path) -> Path:
    return new_directory(scratch, "up")


@pytest.fixture
def start_up(data_dir: Path) -> Iterator[StartUp]:
    """Start `coordinator up` on this test's data directory and free ports, any number of times."""
    started: list[Up] = []
    port = own_ports(3)

    def start(*arguments: str, **environment: str) -> Up:
        up = Up(data_dir, port, *arguments, **environment)
        started.append(up)
        return up

    yield start
    for up in started:
        up.end()


@pytest.fixture(scope="module")
def shared_up(scratch: Path) -> Iterator[Up]:
    """Start one for the tests that leave it serving: two replicas, a worker, a runner and both servers."""
    up = Up(new_directory(scratch, "shared-up"), own_ports(2), "--web", "2", "--workers", "1")
    up.line("ready:")
    yield up
    up.end()


def gone(processes: list[psutil.Process]) -> bool:
    return not any(map(is_alive, processes))


def test_up_serves_and_sigterm_leaves_nothing_behind(start_up: StartUp) -> None:
    """Start two replicas, two workers, a runner and both servers, with pid files; a run that is submitted to one replica
    is completed on the other; all are gone after SIGTERM. The next start still has the run.
    """
    up = start_up()
    assert up.line("ready:") == f"ready: http://127.0.0.1:{up.port} http://127.0.0.1:{up.port + 1}"
    assert all(answers(url, "/health/ready") for url in up.urls)
    names = {"postgres", "redis", "web-1", "web-2", "worker-1", "worker-2", "runner-1"}
    eventually(lambda: up.pid_files() == names, what="the pid files")
    assert {path.stem for path in (up.data_dir / "logs").glob("*.log")} >= names
    members = up.family()
    assert len(members) > len(names)
    run_id = submit(up.urls[0], "hello")
    eventually(lambda: status(up.urls[1], run_id) == "completed", 60, what="the completed run")
    up.signal(signal.SIGTERM)
    assert up.wait(30) == 0
    assert gone(members)
    assert up.pid_files() == set()
    assert port_is_free(up.port)
    assert port_is_free(up.port + 1)
    again = start_up(*SMALL)
    assert status(again.urls[0], run_id) == "completed"


@pytest.mark.parametrize("moment", ["postgres", "migrate"])
def test_ctrl_c_at_any_moment_leaves_nothing_behind(start_up: StartUp, moment: str) -> None:
    """Take moments within a start, after which nothing has to be cleaned up by hand; other tests end it later on."""
    up = start_up(*SMALL)
    up.line(moment)
    members = up.family()
    up.signal(signal.SIGINT)
    assert up.wait(30) == 0
    assert gone(members)
    assert up.pid_files() == set()
    assert "Traceback" not in "\n".join(up.errors)


def test_ctrl_c_during_the_first_start_leaves_nothing_behind(start_up: StartUp, data_dir: Path) -> None:
    """A half-made database is not used by the next start."""
    up = start_up(*SMALL)
    eventually(lambda: list((data_dir / "postgres").glob("cluster*")), 30, what="initdb at work")
    up.signal(signal.SIGINT)
    assert up.wait(30) == 0
    assert up.pid_files() == set()
    again = start_up(*SMALL)
    assert again.line("ready:")


def test_ctrl_c_while_postgres_does_not_come_up_leaves_nothing_behind(start_up: StartUp) -> None:
    """On a busy machine its start may exceed our wait."""
    up = start_up(*SMALL)
    eventually(lambda: "postgres" in up.pid_files(), 30, what="a server that is being started")
    server = up.process("postgres")
    assert server is not None
    server.suspend()
    up.signal(signal.SIGINT)
    assert up.wait(30) == 0
    assert up.pid_files() == set()
    assert gone([server])


def test_dead_replica_is_restarted_and_its_address_stays_open(shared_up: Up) -> None:
    """Connections made in between wait instead of being refused: the supervisor owns the socket."""
    up = shared_up
    url = up.urls[0]
    former = up.running("web-1")
    other = up.running("web-2").pid
    former.kill()
    assert httpx.get(f"{url}/health", timeout=30).status_code == 200
    assert "killed by SIGKILL" in up.line("web-1      ended")
    assert up.running("web-1").pid != former.pid
    assert up.running("web-2").pid == other


def test_worker_that_keeps_dying_is_restarted_with_backoff(shared_up: Up) -> None:
    """A broken process does not use up the machine, and each restart is logged."""
    up = shared_up
    for delay in ("0.5", "1", "2"):
        said = len(up.lines)
        up.running("worker-1").kill()
        assert up.line("worker-1   ended", said).partition("again in ")[2].startswith(f"{delay} s")


def test_dead_embedded_servers_restart_at_their_addresses(shared_up: Up) -> None:
    """Replicas and workers keep their URLs and reconnect by themselves."""
    up = shared_up
    url, pids = up.urls[0], {name: up.running(name).pid for name in ("web-1", "worker-1")}
    for name in ("postgres", "redis"):
        former = up.running(name)
        started = up.line(f"{name:<10} started")
        said = len(up.lines)
        former.kill()
        again = up.line(f"{name:<10} started", said)
        assert again.rpartition("port ")[2] == started.rpartition("port ")[2]
        assert up.running(name).pid != former.pid
    eventually(lambda: answers(url, "/runs"), 30, what="an answer from Postgres")
    assert {name: up.running(name).pid for name in pids} == pids


def test_next_up_after_kill_9_ends_orphans_and_adopts_the_servers(start_up: StartUp) -> None:
    """The orphans serve until then; the databases are not even restarted."""
    up = start_up("--web", "2", "--workers", "1")
    url = up.urls[0]
    up.running("runner-1")
    former = {name: up.running(name) for name in ("postgres", "redis", "web-1", "web-2", "worker-1", "runner-1")}
    up.signal(signal.SIGKILL)
    up.wait()
    assert answers(url)
    assert all(map(is_alive, former.values()))

    again = start_up("--web", "2", "--workers", "1")
    assert "web-1 (process" in again.line("of a previous `up`")
    assert again.line("ready:")
    for name in ("postgres", "redis"):
        assert "adopted" in again.line(name)
        assert again.running(name).pid == former[name].pid
    for name in ("web-1", "web-2", "worker-1", "runner-1"):
        assert not is_alive(former[name]), name
        assert again.running(name).pid != former[name].pid
    again.signal(signal.SIGINT)
    assert again.wait(30) == 0
    assert gone(list(former.values()))


def test_reused_pid_is_not_killed_and_removed_data_directory_ends_up(start_up: StartUp, data_dir: Path) -> None:
    """After a reboot our former pids belong to other processes. Do not continue with an empty database."""
    with psutil.Popen(["/bin/sleep", "60"]) as unrelated:
        (data_dir / "run").mkdir()
        (data_dir / "run" / "web-1.pid").write_text(f"{unrelated.pid} another-boot:12345\n")
        up = start_up(*SMALL)
        up.line("ready:")
        assert unrelated.is_running()
        assert up.running("web-1").pid != unrelated.pid
        unrelated.kill()
    members = up.family()
    data_dir.rename(data_dir.with_name("elsewhere"))
    assert up.wait(30) == 1
    assert "was removed while it was served from" in up.errors[-1]
    assert gone(members)


def test_second_up_on_the_same_data_is_refused(shared_up: Up) -> None:
    """Name the first one, which serves on untouched."""
    up = shared_up
    members = [up.running(name) for name in up.pid_files()]
    second = Up(up.data_dir, own_ports(2), *SMALL)
    assert second.wait(30) == 1
    assert f"another `coordinator up` (process {up.pid}) already serves" in second.errors[-1]
    assert answers(up.urls[0])
    assert all(map(is_alive, members))


def test_taken_port_is_reported_before_anything_starts(start_up: StartUp, data_dir: Path) -> None:
    """Name its holder and the remedy, and create no database."""
    with socket.socket() as squatter:
        up_port = own_ports(2)
        squatter.bind(("127.0.0.1", up_port + 1))
        squatter.listen()
        up = start_up("--port", str(up_port))
        assert up.wait(30) == 1
        assert f"port {up_port + 1} on 127.0.0.1 cannot be used, process {os.getpid()}" in up.errors[-1]
        assert "--port" in up.errors[-1]
    assert not (data_dir / "postgres").exists()
    assert up.pid_files() == set()


def test_given_servers_are_used_and_outlive_up(start_up: StartUp, data_dir: Path, scratch: Path) -> None:
    """Treat each independently: with DATABASE_URL no Postgres is started, and the given one is not stopped."""
    elsewhere = new_directory(scratch, "given")
    postgres, store = start_postgres(elsewhere, settings=FAST_POSTGRES), start_redis(elsewhere)
    try:
        up = start_up(*SMALL, DATABASE_URL=postgres.url)
        up.line("ready:")
        assert "postgres" not in up.pid_files()
        assert "redis" in up.pid_files()
        assert not (data_dir / "postgres").exists()
        up.signal(signal.SIGTERM)
        assert up.wait(30) == 0
        with psycopg.connect(postgres.url) as connection:
            assert connection.execute("SELECT count(*) FROM runs").fetchone() == (0,)

        second = start_up(*SMALL, DATABASE_URL=postgres.url, REDIS_URL=store.url)
        second.line("ready:")
        assert second.pid_files().isdisjoint({"postgres", "redis"})
        second.signal(signal.SIGTERM)
        assert second.wait(30) == 0
        assert store.alive()
    finally:
        postgres.kill()
        store.kill()


def test_unreachable_database_is_reported_with_the_reason(start_up: StartUp) -> None:
    """Exit with code 1 instead of waiting silently; do not show the password."""
    up = start_up(*SMALL, DATABASE_URL=f"postgresql://u:secret@127.0.0.1:{own_port()}/none")
    assert up.wait(60) == 1
    said = "\n".join(up.lines + up.errors)
    assert "could not be migrated" in said
    assert "secret" not in said
    assert up.pid_files() == set()


def test_open_requests_do_not_delay_the_end(start_up: StartUp) -> None:
    """Open a client that reads nothing and one that sends nothing. Lines of the JSON log are objects; the `ready` line
    holds the addresses.
    """
    up = start_up(*SMALL, "--log-format", "json")
    assert json.loads(up.line('"ready"'))["urls"] == [f"http://127.0.0.1:{up.port}"]
    with socket.create_connection(("127.0.0.1", up.port)), socket.create_connection(("127.0.0.1", up.port)) as half:
        half.sendall(b"POST /runs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{")
        members = up.family()
        up.signal(signal.SIGINT)
        assert up.wait(30) == 0
        assert gone(members)
    assert up.pid_files() == set()
    assert all(json.loads(line)["event"] for line in up.lines)


def test_second_ctrl_c_ends_up_at_once(start_up: StartUp) -> None:
    """Even while a part hangs."""
    up = start_up(*SMALL)
    up.line("ready:")
    members = up.family()
    up.running("worker-1").suspend()
    up.signal(signal.SIGINT)
    up.line("SIGINT")
    up.signal(signal.SIGINT)
    assert up.wait(30) == 0
    assert gone(members)


def test_frozen_part_is_killed_within_ten_seconds(start_up: StartUp) -> None:
    """Send SIGKILL to parts that ignore their signal, and log that."""
    up = start_up("--web", "1", "--workers", "1")
    up.line("ready:")
    up.running("runner-1").suspend()
    up.running("web-1").suspend()
    members = up.family()
    up.signal(signal.SIGTERM)
    assert up.wait(30) == 0
    assert gone(members)
    assert up.line("web-1      does not end by itself: killed")


def submit(url: str, prompt: str) -> str:
    body = {"type": "start_session", "parameters": {"prompt": prompt}}
    answer = httpx.post(f"{url}/runs", json=body, timeout=30)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["run_id"])


def status(url: str, run_id: str) -> str:
    return str(httpx.get(f"{url}/runs/{run_id}", timeout=30).json()["status"])


def running_commands(up: Up) -> list[psutil.Process]:
    """Return the processes of the demo runner once a run is running that does not end by itself."""
    run_id = submit(up.urls[0], "sleep 60")
    eventually(lambda: status(up.urls[0], run_id) == "running", 60, what="the running run")
    return eventually(lambda: up.running("runner-1").children(recursive=True), what="its process")


def test_commands_of_a_killed_runner_end(shared_up: Up) -> None:
    """A next attempt must not run beside the former process (on Linux, where orphans become the supervisor's)."""
    up = shared_up
    commands = running_commands(up)
    up.running("runner-1").kill()
    eventually(lambda: gone(commands), what="the end of the command")
    assert "killed by SIGKILL" in up.line("runner-1   ended")


def test_ctrl_c_ends_running_commands(start_up: StartUp) -> None:
    """Include grandchildren, each in its own process group."""
    up = start_up("--web", "1", "--workers", "1")
    members = up.family() + running_commands(up)
    up.signal(signal.SIGINT)
    assert up.wait(30) == 0
    assert gone(members)


def test_next_up_after_kill_9_ends_commands_of_the_former_runner(start_up: StartUp) -> None:
    """Leave no work of the former runner beside its own."""
    up = start_up("--web", "1", "--workers", "1")
    commands = running_commands(up)
    up.signal(signal.SIGKILL)
    up.wait()
    assert not gone(commands)
    again = start_up("--web", "1", "--workers", "1")
    assert again.line("ready:")
    assert gone(commands)
