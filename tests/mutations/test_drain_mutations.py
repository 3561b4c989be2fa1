"""Promise 4 of a web process that ends, with one of its mechanisms broken on purpose: the scenario must notice."""

from collections.abc import Iterator

import pytest
from starlette.types import Receive, Scope, Send

from app.lifecycle.drain import Drain
from app.polls.parked import Polls
from app.shutdown_response import ShutdownResponse
from runtime.settings import Settings
from tests.support.drain_scenarios import everybody_who_waits_is_answered
from tests.support.web import WebInThread, served, until_ready


@pytest.fixture
def web(settings: Settings) -> Iterator[WebInThread]:
    with served(settings) as web:
        until_ready(web)
        yield web


def test_everybody_who_waits_is_answered(web: WebInThread) -> None:
    """Whole, and told to come back elsewhere."""
    everybody_who_waits_is_answered(web)


def test_an_end_without_a_drain_is_noticed(web: WebInThread, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is told; what waits is cut when the time is up."""
    monkeypatch.setattr(Drain, "start", lambda *_, **__: None)
    with pytest.raises(AssertionError, match="not told to come back elsewhere"):
        everybody_who_waits_is_answered(web)


@pytest.fixture
def no_farewell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing answers what is cut at the end: that is the net below the drain, and would hide that it is broken."""

    async def pass_on(self: ShutdownResponse, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    monkeypatch.setattr(ShutdownResponse, "__call__", pass_on)


@pytest.mark.usefixtures("no_farewell")
def test_a_drain_that_only_says_so_is_noticed(web: WebInThread, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readiness and headers alone end no poll."""
    monkeypatch.setattr(Drain, "_begin", lambda _: None)
    with pytest.raises(AssertionError, match="a poll was cut"):
        everybody_who_waits_is_answered(web)


@pytest.mark.usefixtures("no_farewell")
def test_polls_that_do_not_give_up_are_noticed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deployed runner would count each as a failure."""
    monkeypatch.setattr(Polls, "_spread_ends", lambda _: None)
    with served(settings) as web:
        until_ready(web)
        with pytest.raises(AssertionError, match="a poll was cut"):
            everybody_who_waits_is_answered(web)
