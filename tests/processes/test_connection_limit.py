"""More clients than a web process has connections for: the surplus waits in the backlog, neither reset nor refused."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import httpx
import uvicorn

from app.main import create_app
from runtime.settings import Settings
from server.http_server import BoundedHttp, Server
from testkit.cluster import Cluster, Process
from testkit.waiting import eventually

MOST = 20
CLIENTS = 60
_REQUEST = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Crowd:
    """Clients that all send a request at once, each on a connection that it keeps after the answer."""

    def __init__(self, url: str, held: ExitStack, number: int = CLIENTS) -> None:
        address = urlsplit(url)
        self.waiting = [
            held.enter_context(socket.create_connection((str(address.hostname), address.port or 0), timeout=30))
            for _ in range(number)
        ]
        self.answered: list[socket.socket] = []
        for connection in self.waiting:
            connection.sendall(_REQUEST)
            connection.setblocking(False)

    def look(self) -> int:
        """Return the number of answers so far. Fail if one is not 200, or a connection was cut."""
        for connection in self.waiting[:]:
            try:
                answer = connection.recv(65_536)
            except BlockingIOError:
                continue
            except OSError as error:
                raise AssertionError(f"a client was cut: {error}") from None
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n"), f"a client was answered {answer[:40]!r}"
            self.waiting.remove(connection)
            self.answered.append(connection)
        return len(self.answered)

    def until_answered(self, number: int) -> None:
        """Wait for so many answers."""
        eventually(lambda: self.look() >= number, what=f"{number} answers")

    def leave(self, number: int) -> None:
        """Close the first so many answered connections."""
        for connection in self.answered[:number]:
            connection.close()


def surplus_clients_wait(url: str) -> None:
    """Serve only as many as the limit allows; the others wait, and are served as these leave."""
    before = pauses(url)
    with ExitStack() as held:
        crowd = Crowd(url, held)
        for served_now in range(MOST, CLIENTS + 1, MOST):
            crowd.until_answered(served_now)
            assert crowd.look() == served_now, "more were accepted than there is room for"
            crowd.leave(served_now)
    assert pauses(url) - before >= CLIENTS // MOST, "it did not pause"


def pauses(url: str) -> float:
    """Return how often the process stopped accepting, from its metrics."""
    lines = httpx.get(f"{url}/metrics", headers={"Connection": "close"}, timeout=30).text.splitlines()
    return float(next(line for line in lines if line.startswith("coordinator_accepting_paused_total")).split()[1])


@contextmanager
def server_with_few_connections(settings: Settings) -> Iterator[str]:
    """Serve in a thread of this process, on the loop of the real server, at most MOST connections; return the URL."""
    app = create_app(settings)
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = uvicorn.Config(app, http=BoundedHttp, loop="uvloop", ws="none", lifespan="on", log_config=None)
    server = Server(
        config, drain=app.state.drain, is_ready=lambda: True, tell_ready=lambda: None, most_connections=MOST
    )
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        eventually(lambda: server.started, what="the server")
        yield url
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()


@contextmanager
def shared_socket() -> Iterator[socket.socket]:
    """Open a listening socket as a supervisor does, for `start_on`."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        yield listener


def start_on(cluster: Cluster, listener: socket.socket, *arguments: str, **settings: object) -> Process:
    """Start a web process on a shared socket and wait until it is ready."""
    heard, told = os.pipe()
    process = cluster.start(
        "web",
        ["web", "--fd", str(listener.fileno()), "--ready-fd", str(told), *arguments],
        settings,
        url=f"http://127.0.0.1:{listener.getsockname()[1]}",
        fds=(listener.fileno(), told),
    )
    os.close(told)
    with os.fdopen(heard, "rb", buffering=0) as pipe:
        os.set_blocking(heard, False)
        cluster.wait_until(process, lambda: bool(pipe.read()), "ready")
    return process


def test_surplus_connections_wait_until_others_have_ended(cluster: Cluster) -> None:
    """Refuse none: a deployed runner survives no three resets in a row, and counts a 503 as one."""
    surplus_clients_wait(cluster.start_web(most_connections=MOST).url)


def test_waiting_clients_are_served_during_drain_of_full_process(cluster: Cluster) -> None:
    """Let its clients go one after the other to the end of the drain; waiting ones take their place."""
    web = cluster.start_web(most_connections=MOST, drain_seconds=4)
    with ExitStack() as held:
        crowd = Crowd(web.url, held)
        crowd.until_answered(MOST)
        web.terminate()
        crowd.leave(MOST)
        crowd.until_answered(CLIENTS)
    assert web.wait() == 0


def test_waiting_clients_of_full_process_are_served_by_successor(cluster: Cluster) -> None:
    """Share the socket and so its backlog; the former process accepts no more, though it has free places."""
    with shared_socket() as listener, ExitStack() as held:
        former = start_on(cluster, listener, most_connections=MOST, drain_seconds=20)
        crowd = Crowd(former.url, held)
        crowd.until_answered(MOST)
        successor = start_on(cluster, listener, "--successor", most_connections=CLIENTS)
        former.signal(signal.SIGUSR1)
        crowd.until_answered(CLIENTS)
        crowd.leave(MOST)
        assert former.wait() == 0
        assert httpx.get(successor.url + "/health", timeout=30).status_code == 200
        assert successor.alive


def test_process_with_free_places_accepts_from_shared_socket(cluster: Cluster) -> None:
    """Keep the full process and its clients unaffected."""
    with shared_socket() as listener, ExitStack() as held:
        for _ in range(2):
            start_on(cluster, listener, most_connections=MOST)
        crowd = Crowd(cluster.processes[0].url, held)
        crowd.until_answered(2 * MOST)
        assert crowd.look() == 2 * MOST
        crowd.leave(MOST)
        crowd.until_answered(CLIENTS)
