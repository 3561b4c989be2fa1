"""Web process inside the test's own: the real application behind the real server, and a client that knows the wire."""

import asyncio
import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from app.main import create_app
from app.polls.poll import PollState
from runtime.settings import Settings
from server.http_server import BoundedHttp, Server
from testkit.ports import own_port
from testkit.waiting import eventually

JSON = {"Content-Type": "application/json"}
PROMPT = {"prompt": "hello"}


@dataclass
class WebClient:
    """Calls as deployed clients and runners make them; methods return the raw response unless they say otherwise."""

    url: str
    token: str = ""
    http: httpx.Client = field(init=False)
    _threads: ThreadPoolExecutor = field(init=False)

    def __post_init__(self) -> None:
        limits = httpx.Limits(max_connections=100)
        shown = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        self.http = httpx.Client(base_url=self.url, headers=shown, timeout=60, limits=limits, trust_env=False)
        self._threads = ThreadPoolExecutor(16)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.http.close()

    def get(self, path: str, **query: Any) -> httpx.Response:
        return self.http.get(path, params=query)

    def post(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        # Write ASCII: lone surrogates can be sent as escapes only.
        return self.http.post(path, content=json.dumps(body).encode(), headers={**JSON, **headers})

    def raw(self, path: str, body: bytes, method: str = "POST") -> httpx.Response:
        return self.http.request(method, path, content=body, headers=JSON)

    def submit(self, **fields: Any) -> dict[str, Any]:
        """Submit a run that must be accepted; return it."""
        body = {"type": "start_session", "parameters": PROMPT} | fields
        return self._good(self.post("/runs", body), 201)

    def resume(self, session_id: str, **fields: Any) -> dict[str, Any]:
        return self.submit(type="resume_session", session_id=session_id, **fields)

    def register(self, name: str = "host", **fields: Any) -> str:
        """Register a runner that must be accepted; return its id."""
        return str(self._good(self.try_register(name, **fields), 200)["runner_id"])

    def try_register(self, name: str = "host", **fields: Any) -> httpx.Response:
        body = {"hostname": name, "project_dir": "/p", "executor_profile": "e", "executor": {"type": "autonomous"}}
        return self.post("/runner/register", body | fields)

    def poll(self, runner_id: str, wait: float = 0, **query: Any) -> httpx.Response:
        return self.get("/runner/runs", runner_id=runner_id, wait=wait, **query)

    def claim(self, runner_id: str) -> dict[str, Any]:
        """Poll and return the run."""
        run: dict[str, Any] = self._good(self.poll(runner_id, 10), 200)["run"]
        return run

    def report(self, run: dict[str, Any], runner_id: str, outcome: str, **fields: Any) -> httpx.Response:
        body = {"runner_id": runner_id, "claim_token": run.get("claim_token")} | fields
        return self.post(f"/runner/runs/{run['run_id']}/{outcome}", body)

    def started(self, runner_id: str, **fields: Any) -> dict[str, Any]:
        """Submit, claim and start a run at this runner; return it."""
        self.submit(**fields)
        run = self.claim(runner_id)
        self._good(self.report(run, runner_id, "started"), 200)
        return run

    def finished(self, runner_id: str, **fields: Any) -> dict[str, Any]:
        """Submit, claim and complete a run; return it."""
        run = self.started(runner_id, **fields)
        self._good(self.report(run, runner_id, "completed"), 200)
        return run

    def status(self, run_id: str) -> str:
        return str(self.get(f"/runs/{run_id}").json()["status"])

    def meanwhile(self, call: Any, *arguments: Any, **fields: Any) -> "Future[httpx.Response]":
        """Make a call that is held, in another thread."""
        return self._threads.submit(call, *arguments, **fields)

    @contextmanager
    def held(self, path: str) -> Iterator[None]:
        """Send a GET that waits for its answer until the end of the block, then disconnect."""
        host, _, port = self.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            yield

    @staticmethod
    def _good(response: httpx.Response, status: int) -> dict[str, Any]:
        assert response.status_code == status, response.text
        answer: dict[str, Any] = response.json()
        return answer


@dataclass
class WebInThread:
    """Served application; ``client`` calls it, ``app.state.web`` is its inside."""

    app: FastAPI
    server: Server
    thread: threading.Thread
    client: WebClient

    @property
    def parked(self) -> int:
        """Return the number of polls it holds."""
        return len(self.app.state.web.polls)

    def until_parked(self, number: int = 1) -> None:
        """Wait until it holds so many parked polls."""
        polls = self.app.state.web.polls

        def parked() -> bool:
            return len([poll for poll in list(polls._polls.values()) if poll.state is PollState.WAITING]) >= number

        eventually(parked, what=f"{number} parked polls")

    def recheck(self) -> None:
        """Make it re-check all its parked polls soon."""
        self._loop.call_soon_threadsafe(self.app.state.web.polls.recheck.nudge)

    def rechecked(self, condition: Callable[[], bool]) -> bool:
        """Return the condition, after requesting another re-check."""
        self.recheck()
        return condition()

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        loop: asyncio.AbstractEventLoop = self.app.state.drain._loop
        return loop

    def drain(self, seconds: float) -> None:
        self.app.state.drain.start(seconds)

    def leave(self, seconds: float) -> None:
        """End the process as SIGTERM does, with this drain."""
        self.app.state.drain.seconds = seconds
        self.server.handle_exit(signal.SIGTERM, None)


@contextmanager
def served(settings: Settings, port: int | None = None) -> Iterator[WebInThread]:
    """Serve the application on this or a free port until the end of the block."""
    app = create_app(settings)
    port = own_port() if port is None else port
    config = uvicorn.Config(
        app,
        http=BoundedHttp,
        loop="uvloop",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        port=port,
        timeout_graceful_shutdown=1,
    )
    started = threading.Event()
    server = Server(
        config, drain=app.state.drain, is_ready=lambda: True, tell_ready=started.set, instance=app.state.instance
    )
    # Run a loop of its own: the test's thread blocks in calls.
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    client = WebClient(f"http://127.0.0.1:{port}")
    try:
        eventually(lambda: started.is_set() or not thread.is_alive(), what="the server")
        yield WebInThread(app, server, thread, client)
    finally:
        client.close()
        app.state.drain.start(0)
        server.should_exit = True
        thread.join(30)


def until_ready(web: WebInThread) -> None:
    """Wait until it has seen the database."""
    eventually(lambda: web.client.get("/health/ready").status_code == 200, what="readiness")
