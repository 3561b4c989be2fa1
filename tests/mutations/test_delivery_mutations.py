"""Break one mechanism of promises 1 and 2 for lost, late or unread answers on purpose: its scenario must notice."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import pytest
from starlette.requests import Request

from app.lifecycle import hangup
from app.polls.recheck import Recheck
from app.writes import queues
from models.claims.claim import Ask
from models.claims.delivery import Claim, release_claims
from models.claims.polls import answer_polls
from models.core.ids import new_id, uuid7
from models.feed.append import append_events
from models.runs.submit import submit_runs
from models.state.runs import Run, read_runs
from runtime.settings import Settings
from testkit.waiting import eventually
from tests.support.cut_calls import call_bytes, hold
from tests.support.db_verbs import DbVerbs
from tests.support.dispatch_pass import dispatch_waiting
from tests.support.parking import CLAIM, FIND_NOTHING, LOOK, PARK, SUBMIT, Step, is_noticed
from tests.support.postgres_proxy import PostgresProxy, postgres_proxy
from tests.support.web import WebInThread, served, until_ready

TIMESTAMP = "2026-01-01T00:00:00Z"


def old_message_delivers_nothing(db: DbVerbs, web: WebInThread) -> None:
    """Give a thawed process a message about a claim that has ended (promise 1).

    The re-check must be off: nothing else serves the poll here.
    """
    early, late = web.client.register("early"), web.client.register("late")
    poll = web.client.meanwhile(web.client.poll, early, 3)
    web.until_parked()
    run_id = web.client.submit()["run_id"]
    (assignments,) = db.do(dispatch_waiting).by_instance.values()
    db.do(release_claims, [Claim(one.run_id, one.claim_token) for one in assignments])
    assert web.client.claim(late)["run_id"] == run_id
    polls = web.app.state.web.polls
    web.app.state.web.drain._loop.call_soon_threadsafe(polls.deliver, [asdict(one) for one in assignments])
    answer = poll.result(30)
    assert answer.status_code == 204, "handed out twice"


def submission_with_lost_answer_makes_one_run(db: DbVerbs, web: WebInThread, proxy: PostgresProxy) -> None:
    """The web repeats it by itself, without a key of the client (promise 2)."""
    proxy.lose("INSERT INTO runs")
    run_id = web.client.submit()["run_id"]
    assert proxy.lost == 1
    stored = [row.run_id for row in db.rows("SELECT run_id FROM runs")]
    assert stored == [run_id], "stored twice"


def claim_with_lost_answer_takes_one_run(db: DbVerbs, web: WebInThread, proxy: PostgresProxy) -> None:
    """The repeat finds the first try's claim for the poll (promise 1)."""
    runner = web.client.register()
    for _ in range(2):
        web.client.submit()
    proxy.lose("SET status = 'claimed'")
    run_id = web.client.claim(runner)["run_id"]
    assert proxy.lost == 1
    claimed = [row.run_id for row in db.rows("SELECT run_id FROM runs WHERE status = 'claimed'")]
    assert claimed == [run_id], "claimed for an unknown poll"


def event_with_lost_answer_is_stored_once(db: DbVerbs, web: WebInThread, proxy: PostgresProxy) -> None:
    """Send it without a key of the client."""
    session_id = web.client.submit()["session_id"]
    proxy.lose("INSERT INTO events")
    event = {"event_type": "message", "session_id": session_id, "timestamp": TIMESTAMP}
    assert web.client.post(f"/sessions/{session_id}/events", event).status_code == 201
    assert proxy.lost == 1
    assert db.told_kinds(session_id).count("event") == 1, "stored twice"


def disconnected_client_takes_no_run(db: DbVerbs, web: WebInThread) -> None:
    """Disconnect a client while its poll is parked: a run submitted then goes to the next poll at once (promise 1)."""
    hasty, patient = web.client.register("hasty"), web.client.register("patient")

    async def poll_and_go() -> None:
        call = await hold(web.client.url, call_bytes(web.client.url, "GET", f"/runner/runs?runner_id={hasty}&wait=30"))
        await asyncio.to_thread(web.until_parked)
        assert not await call.hang_up()

    asyncio.run(poll_and_go())
    run_id = web.client.submit()["run_id"]
    # Ended by its own process, or claimed for by its re-check.
    eventually(lambda: not db.waiting(), 20, what="the end of the first poll")
    taken = db.run(run_id).runner_id
    answer = web.client.poll(patient, 3)
    assert answer.status_code == 200, f"taken along by {taken}"
    assert answer.json()["run"]["run_id"] == run_id


@pytest.fixture
def proxy(settings: Settings) -> Iterator[PostgresProxy]:
    with postgres_proxy(settings.database_url) as proxy:
        yield proxy


@pytest.fixture
def web_on(settings: Settings, proxy: PostgresProxy) -> Iterator[Callable[[], WebInThread]]:
    """Serve behind the proxy from this call on: a web process reads its patched parts at its start."""
    serving: list[Any] = []

    def serve() -> WebInThread:
        own = {"database_url": proxy.url, "prepare_statements": False, "fast_paths": False}
        context = served(settings.model_copy(update=own))
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
    old_message_delivers_nothing(db, web_on())


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
        old_message_delivers_nothing(db, web_on())


def test_event_with_lost_answer_is_stored_once(
    db: DbVerbs, web_on: Callable[[], WebInThread], proxy: PostgresProxy
) -> None:
    """tests/crashes checks submissions and claims."""
    event_with_lost_answer_is_stored_once(db, web_on(), proxy)


def test_new_run_ids_for_the_repeat_are_noticed(
    db: DbVerbs, web_on: Callable[[], WebInThread], proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try has stored the run under another id."""
    fresh = {"run_id": lambda: new_id("run_"), "new_session_id": lambda: new_id("ses_")}
    monkeypatch.setattr(queues, "submit_runs", renewed(submit_runs, **fresh))
    with pytest.raises(AssertionError, match="stored twice"):
        submission_with_lost_answer_makes_one_run(db, web_on(), proxy)


def test_new_poll_ids_for_the_repeat_are_noticed(
    db: DbVerbs, web_on: Callable[[], WebInThread], proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try's run is claimed for a poll that no client holds."""

    def answer_others(conn: Any, asks: Sequence[Ask], **kwargs: Any) -> Any:
        return answer_polls(conn, [replace(ask, poll_id=new_id("poll_")) for ask in asks], **kwargs)

    monkeypatch.setattr(queues, "answer_polls", answer_others)
    with pytest.raises(AssertionError, match="claimed for an unknown poll"):
        claim_with_lost_answer_takes_one_run(db, web_on(), proxy)


def test_new_event_ids_for_the_repeat_are_noticed(
    db: DbVerbs, web_on: Callable[[], WebInThread], proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing identifies the repeated event."""
    monkeypatch.setattr(queues, "append_events", renewed(append_events, event_uid=uuid7))
    with pytest.raises(AssertionError, match="stored twice"):
        event_with_lost_answer_is_stored_once(db, web_on(), proxy)


def test_disconnected_client_takes_no_run(db: DbVerbs, web_on: Callable[[], WebInThread]) -> None:
    """Its poll stops claiming at once."""
    disconnected_client_takes_no_run(db, web_on())


def test_ignored_disconnect_is_noticed(
    db: DbVerbs, web_on: Callable[[], WebInThread], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a BaseHTTPMiddleware: the poll continues and takes a run for no client."""

    def suspended(self: hangup.Client, request: Request) -> None:
        listen(self, request)
        self._is_closing = self.gone.done

    listen = hangup.Client.__init__
    monkeypatch.setattr(hangup.Client, "leave", lambda _: None)
    monkeypatch.setattr(hangup.Client, "__init__", suspended)
    with pytest.raises(AssertionError, match="taken along"):
        disconnected_client_takes_no_run(db, web_on())


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
