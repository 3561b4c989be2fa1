"""Break one mechanism of promise 4 in an ending web process on purpose: its scenario must notice."""

from collections.abc import Iterator

import pytest
from starlette.types import Receive, Scope, Send

from app.lifecycle.drain import Drain
from app.polls.parked import Polls
from app.shutdown_response import ShutdownResponse
from runtime.settings import Settings
from tests.support.drain_scenarios import waiting_clients_are_answered
from tests.support.web import WebInThread, served, until_ready


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

    async def pass_on(self: ShutdownResponse, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    monkeypatch.setattr(ShutdownResponse, "__call__", pass_on)


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
