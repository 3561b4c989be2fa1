"""Break one mechanism of promises 1 and 2 for lost, late or unread answers on purpose: its scenario must notice."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from starlette.requests import Request

from app.lifecycle import hangup
from app.polls.recheck import Recheck
from app.writes import queues
from models.claims.claim import Ask
from models.claims.delivery import Claim
from models.claims.polls import answer_polls
from models.core.ids import new_id, uuid7
from models.feed.append import append_events
from models.runs.submit import submit_runs
from models.state.runs import Run, read_runs
from runtime.settings import Settings
from tests.support import delivery_scenarios
from tests.support.db_verbs import DbVerbs
from tests.support.parking import CLAIM, FIND_NOTHING, LOOK, PARK, SUBMIT, Step, is_noticed
from tests.support.postgres_proxy import PostgresProxy, postgres_proxy
from tests.support.web import WebInThread, served, until_ready


@pytest.fixture
def proxy(settings: Settings) -> Iterator[PostgresProxy]:
    with postgres_proxy(settings.database_url) as proxy:
        yield proxy


@pytest.fixture
def web_on(settings: Settings, proxy: PostgresProxy) -> Iterator[Callable[[], WebInThread]]:
    """Serve behind the proxy from this call on: a web process reads its patched parts at its start."""
    serving: list[Any] = []

    def serve() -> WebInThread:
        context = served(settings.model_copy(update={"database_url": proxy.url, "prepare_statements": False}))
        web = context.__enter__()
        serving.append(context)
        until_ready(web)
        return web

    yield serve
    for context in serving:
        context.__exit__(None, None, None)


async def skip_look(_: Recheck, *, everything: bool) -> None:
    """Replace the re-check by nothing."""


def renewed(verb: Callable[..., Any], **fresh: Callable[[], Any]) -> Callable[..., Any]:
    """Wrap the verb so that each execution has new ids, as if they were made in it and not before the first try."""

    def with_new_ids(conn: Any, items: Sequence[Any], **kwargs: Any) -> Any:
        return verb(conn, [replace(item, **{name: make() for name, make in fresh.items()}) for item in items], **kwargs)

    return with_new_ids


def test_old_message_delivers_nothing(
    db: DbVerbs, web_on: Callable[[], WebInThread], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Confirm every assignment of a worker before its delivery."""
    monkeypatch.setattr(Recheck, "look", skip_look)
    delivery_scenarios.old_message_delivers_nothing(db, web_on())


def test_delivery_without_confirmation_is_noticed(
    db: DbVerbs, web_on: Callable[[], WebInThread], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trust the message."""

    def believe(conn: Any, items: Sequence[Claim], **_: Any) -> list[Run]:
        found = read_runs(conn, [item.run_id for item in items])
        return [found[item.run_id] for item in items]

    monkeypatch.setattr(Recheck, "look", skip_look)
    monkeypatch.setattr(queues, "confirm_deliveries", believe)
    with pytest.raises(AssertionError, match="handed out twice"):
        delivery_scenarios.old_message_delivers_nothing(db, web_on())


def test_event_with_lost_answer_is_stored_once(
    db: DbVerbs, web_on: Callable[[], WebInThread], proxy: PostgresProxy
) -> None:
    """tests/crashes checks submissions and claims."""
    delivery_scenarios.event_with_lost_answer_is_stored_once(db, web_on(), proxy)


def test_new_run_ids_for_the_repeat_are_noticed(
    db: DbVerbs, web_on: Callable[[], WebInThread], proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try has stored the run under another id."""
    fresh = {"run_id": lambda: new_id("run_"), "new_session_id": lambda: new_id("ses_")}
    monkeypatch.setattr(queues, "submit_runs", renewed(submit_runs, **fresh))
    with pytest.raises(AssertionError, match="stored twice"):
        delivery_scenarios.submission_with_lost_answer_makes_one_run(db, web_on(), proxy)


def test_new_poll_ids_for_the_repeat_are_noticed(
    db: DbVerbs, web_on: Callable[[], WebInThread], proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try's run is claimed for a poll that no client holds."""

    def answer_others(conn: Any, asks: Sequence[Ask], **kwargs: Any) -> Any:
        return answer_polls(conn, [replace(ask, poll_id=new_id("poll_")) for ask in asks], **kwargs)

    monkeypatch.setattr(queues, "answer_polls", answer_others)
    with pytest.raises(AssertionError, match="claimed for an unknown poll"):
        delivery_scenarios.claim_with_lost_answer_takes_one_run(db, web_on(), proxy)


def test_new_event_ids_for_the_repeat_are_noticed(
    db: DbVerbs, web_on: Callable[[], WebInThread], proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing identifies the repeated event."""
    monkeypatch.setattr(queues, "append_events", renewed(append_events, event_uid=uuid7))
    with pytest.raises(AssertionError, match="stored twice"):
        delivery_scenarios.event_with_lost_answer_is_stored_once(db, web_on(), proxy)


def test_disconnected_client_takes_no_run(db: DbVerbs, web_on: Callable[[], WebInThread]) -> None:
    """Its poll stops claiming at once."""
    delivery_scenarios.disconnected_client_takes_no_run(db, web_on())


def test_ignored_disconnect_is_noticed(
    db: DbVerbs, web_on: Callable[[], WebInThread], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a BaseHTTPMiddleware: the poll continues and takes a run for no client."""

    async def deaf(*_: Any) -> None:
        pass

    def suspended(self: hangup.Client, request: Request) -> None:
        listen(self, request)
        self._is_closing = self.gone.done

    listen = hangup.Client.__init__
    monkeypatch.setattr(hangup, "_watch", deaf)
    monkeypatch.setattr(hangup.Client, "__init__", suspended)
    with pytest.raises(AssertionError, match="taken along"):
        delivery_scenarios.disconnected_client_takes_no_run(db, web_on())


@pytest.mark.parametrize(
    "order",
    [
        pytest.param((LOOK, FIND_NOTHING, PARK, CLAIM, SUBMIT), id="a look before the commit"),
        pytest.param((FIND_NOTHING, SUBMIT, LOOK, PARK), id="no second claim"),
    ],
)
def test_dispatch_without_wakeup_is_noticed(db: DbVerbs, order: tuple[Step, ...]) -> None:
    """A poll would wait beside a run without a wake-up."""
    assert not is_noticed(db, order)
