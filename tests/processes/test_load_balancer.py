"""Balancer of `up --lb`: routing, retries, and streaming without buffering."""

import socket
import subprocess
import sysconfig
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from devserver.load_balancer import balancer, configuration, find_caddy
from devserver.supervisor import CannotServe
from runtime.settings import Settings
from testkit.feed_follower import open_stream
from testkit.ports import own_port
from testkit.waiting import eventually
from tests.support.web import WebClient, served, until_ready

START = {"type": "start_session", "parameters": {"prompt": "hello"}}
StartBalancer = Callable[..., str]


class Replica:
    """HTTP server that records its requests; it can be not ready, and die during a request."""

    def __init__(self) -> None:
        self.ready = True
        self.dies = False
        self.seen: list[str] = []
        replica = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self.path == "/health/ready":
                    self.answer(200 if replica.ready else 503)
                    return
                replica.seen.append(f"{self.command} {self.path}")
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if replica.dies:
                    self.close_connection = True
                else:
                    self.answer(200)

            def do_POST(self) -> None:
                self.do_GET()

            def answer(self, code: int) -> None:
                self.send_response(code)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Write no log."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def replicas() -> Iterator[tuple[Replica, Replica]]:
    pair = Replica(), Replica()
    yield pair
    for replica in pair:
        replica.server.shutdown()
        replica.server.server_close()


@pytest.fixture
def start_balancer(tmp_path: Path) -> Iterator[StartBalancer]:
    """Start Caddy in front of these addresses, as `up` does, and return its address once it answers."""
    with ExitStack() as held:

        def start(*urls: str) -> str:
            listener = held.enter_context(socket.create_server(("127.0.0.1", 0)))
            service = balancer(find_caddy(), tmp_path, listener.fileno(), urls, drain_seconds=10)
            log = held.enter_context((tmp_path / "balancer.log").open("wb"))
            process = subprocess.Popen(
                service.command, env=dict(service.env), pass_fds=service.fds, stdout=log, stderr=log
            )
            held.callback(process.wait, 10)
            held.callback(process.kill)
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            assert httpx.get(f"{url}/health/ready", timeout=30).status_code == 200
            return url

        yield start


def test_sent_post_is_never_sent_again(start_balancer: StartBalancer, replicas: tuple[Replica, Replica]) -> None:
    """Kill the replica, which may have committed it: only the client, which has the key, may repeat it."""
    url = start_balancer(*(replica.url for replica in replicas))
    for replica in replicas:
        replica.dies = True
    for headers in ({}, {"Idempotency-Key": "once"}):
        assert httpx.post(f"{url}/runs", json=START, headers=headers, timeout=30).status_code == 502
    assert len(replicas[0].seen + replicas[1].seen) == 2


def test_get_is_retried_when_its_replica_dies(start_balancer: StartBalancer, replicas: tuple[Replica, Replica]) -> None:
    """Repeat it safely: a poll whose replica died equals one that was never sent."""
    url = start_balancer(*(replica.url for replica in replicas))
    replicas[0].dies = True
    assert [httpx.get(f"{url}/runs", timeout=30).status_code for _ in range(6)] == [200] * 6
    assert replicas[0].seen


def test_unconnected_request_goes_to_another_replica(
    start_balancer: StartBalancer, replicas: tuple[Replica, Replica]
) -> None:
    """Resend even a POST, which no replica has received, before any health check has noticed."""
    url = start_balancer(f"http://127.0.0.1:{own_port()}", replicas[1].url)
    assert [httpx.post(f"{url}/runs", json=START, timeout=30).status_code for _ in range(6)] == [200] * 6
    assert len(replicas[1].seen) == 6


def test_unready_replica_gets_no_requests(start_balancer: StartBalancer, replicas: tuple[Replica, Replica]) -> None:
    """Drain it or give it an old schema; it gets requests again when it is ready."""
    url = start_balancer(*(replica.url for replica in replicas))

    def only_asked(asked: Replica, spared: Replica) -> bool:
        for replica in replicas:
            replica.seen.clear()
        for _ in range(4):
            assert httpx.get(f"{url}/runs", timeout=30).status_code == 200
        return bool(asked.seen) and not spared.seen

    replicas[0].ready = False
    eventually(lambda: only_asked(replicas[1], replicas[0]), what="all at the ready one")
    replicas[0].ready, replicas[1].ready = True, False
    eventually(lambda: only_asked(replicas[0], replicas[1]), what="all at the other one")


def test_poll_of_client_that_hung_up_ends_behind_balancer(start_balancer: StartBalancer, settings: Settings) -> None:
    """Cancel it: held on, it would take a run with it."""
    with served(settings) as web:
        until_ready(web)
        with closing(WebClient(start_balancer(web.client.url))) as client:
            runner = client.register()
            with client.held(f"/runner/runs?runner_id={runner}&wait=600"):
                web.until_parked()
            eventually(lambda: web.parked == 0, what="the end of the poll")


def test_events_are_not_buffered(start_balancer: StartBalancer, settings: Settings) -> None:
    """Pass on the first message and the next while the stream is open; a hang-up ends it on the replica too."""
    with served(settings) as web:
        until_ready(web)
        with open_stream(start_balancer(web.client.url)) as stream:
            stream.until("init")
            web.client.submit()
            assert stream.take(1)[0].event == "session_created"
        eventually(lambda: not web.app.state.web.feed._clients, what="the end of the stream")


@pytest.mark.parametrize("drain", [0.0, 1.0, 10.0, 600.0])
def test_idle_connections_end_within_half_a_drain(tmp_path: Path, drain: float) -> None:
    """Close them before the replica does: it might close one just as a request is sent on it."""
    (kept,) = [
        line.split()[1]
        for line in configuration(3, ["http://127.0.0.1:1"], tmp_path, drain).splitlines()
        if line.split()[:1] == ["keepalive"]
    ]
    assert 0 < float(kept.removesuffix("s")) <= max(0.2, drain / 2)


def test_configuration_is_valid_for_caddy(tmp_path: Path) -> None:
    """Use any name for the data directory."""
    path = tmp_path / "Caddyfile"
    path.write_text(configuration(3, ["http://127.0.0.1:1"], tmp_path / 'a "strange" {place}', 10))
    command = [str(find_caddy()), "adapt", "--validate", "--config", str(path), "--adapter", "caddyfile"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False, env={"HOME": str(tmp_path)})
    assert checked.returncode == 0, checked.stderr
    assert "not formatted" not in checked.stderr


def test_missing_caddy_names_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Print one sentence before any start."""
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotServe, match=r"extra \[lb\]"):
        find_caddy()
