"""Break one mechanism of promise 4 in an ending web process on purpose: its scenario must notice."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import IncompleteRead

import httpx
import pytest
from starlette.responses import Response
from starlette.types import Scope

from app import application
from app.lifecycle.drain import Drain
from app.polls.held import Polls
from runtime.settings import Settings
from testkit.feed_follower import Message, open_stream
from tests.support.web import WebInThread, served, until_ready

DRAIN_SECONDS = 1.0


def waiting_clients_are_answered(web: WebInThread) -> None:
    """Begin a poll, a stream and a wait for a run before the process is told to end, and call it meanwhile."""
    runner = web.client.register()
    run_id = web.client.submit(additional_demands={"hostname": "nobody"})["run_id"]
    with open_stream(web.client.url) as stream, httpx.Client(base_url=web.client.url, trust_env=False) as kept:
        stream.until("init")
        poll = web.client.meanwhile(web.client.poll, runner, 30)
        wait = web.client.meanwhile(web.client.get, f"/runs/{run_id}", wait=30)
        web.until_parked()
        kept.get("/health")
        web.leave(DRAIN_SECONDS)
        meanwhile = kept.get("/runs")
        assert meanwhile.status_code == 200
        assert meanwhile.headers.get("connection") == "close", "a client is not told to come back elsewhere"
        last: list[Message] = []
        with suppress(IncompleteRead):
            for message in stream.messages():
                last = [message]
        assert _code(poll.result) == 204, "a poll was cut"
        assert _code(wait.result) == 200, "a wait was cut"
        assert last, "a stream was cut"
        assert last[0].retry is not None, "a stream was cut"


def _code(result: Callable[[float], httpx.Response]) -> int:
    """Return the status of the answer; 0 without an answer."""
    try:
        return result(30).status_code
    except httpx.TransportError:
        return 0


@pytest.fixture
def web(settings: Settings) -> Iterator[WebInThread]:
    with served(settings) as web:
        until_ready(web)
        yield web


def test_all_waiting_clients_are_answered(web: WebInThread) -> None:
    """Run the scenario unbroken: each client is told to come back elsewhere."""
    waiting_clients_are_answered(web)


def test_shutdown_without_drain_is_noticed(web: WebInThread, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting clients would be cut off, untold, when the time is up."""
    monkeypatch.setattr(Drain, "start", lambda *_, **__: None)
    with pytest.raises(AssertionError, match="not told to come back elsewhere"):
        waiting_clients_are_answered(web)


@pytest.fixture
def no_shutdown_response(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer nothing that shutdown cancels: this net below the drain would hide that the drain is broken."""

    def pass_on(_: Scope) -> Response:
        raise asyncio.CancelledError

    monkeypatch.setattr(application, "shutdown_response", pass_on)


@pytest.mark.usefixtures("no_shutdown_response")
def test_drain_that_only_announces_itself_is_noticed(web: WebInThread, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readiness and headers alone end no poll."""
    monkeypatch.setattr(Drain, "_begin", lambda _: None)
    with pytest.raises(AssertionError, match="a poll was cut"):
        waiting_clients_are_answered(web)


@pytest.mark.usefixtures("no_shutdown_response")
def test_polls_that_outlast_the_drain_are_noticed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deployed runner would count each as a failure."""
    monkeypatch.setattr(Polls, "_spread_ends", lambda _: None)
    with served(settings) as web:
        until_ready(web)
        with pytest.raises(AssertionError, match="a poll was cut"):
            waiting_clients_are_answered(web)
