"""A submission wakes one parked poll, here or at another instance, which claims by itself: no worker runs here unless a
test starts one, and re-checks are further away than any test is long.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, text

from app.polls import submissions
from app.writes import queues
from models.claims.claim import Ask
from models.claims.polls import Answer, PollAnswer, claim_parked
from models.core.plain import NOT_PLAIN
from runtime.metrics import CLAIMS, SUBMISSION_WAKEUPS
from runtime.names import submissions_channel
from runtime.redis_client import sync_client
from runtime.settings import Settings
from testkit.servers import OwnRedis
from testkit.waiting import eventually
from tests.support.cut_calls import call_bytes, hold
from tests.support.db_verbs import DbVerbs
from tests.support.in_process_worker import running_worker
from tests.support.web import WebInThread, served, until_ready

NEVER = 3600.0
WAIT_SECONDS = 20
HELD_UP = 4712


class Pair:
    """Two web instances on one database and one Redis, and what both counted since the beginning."""

    def __init__(self, here: WebInThread, there: WebInThread) -> None:
        self.here = here
        self.there = there
        given = ("in vain", "none waits", "failed", "not looked for")
        self.dispatches = counted(*(SUBMISSION_WAKEUPS.labels(outcome) for outcome in given))
        self.claims = counted(CLAIMS.labels("woken"))
        self.sent = counted(SUBMISSION_WAKEUPS.labels("sent"))

    def park(self, web: WebInThread, runner_id: str, wait: float | None = None) -> "Future[httpx.Response]":
        before = web.parked
        call = web.client.meanwhile(web.client.poll, runner_id, wait or WAIT_SECONDS)
        web.until_parked(before + 1)
        return call


def counted(*counters: Any) -> Callable[[], float]:
    """Return a function that gives the growth of the counters since now."""

    def total() -> float:
        return float(sum(counter._value.get() for counter in counters))

    before = total()
    return lambda: total() - before


@contextmanager
def pair(settings: Settings) -> Iterator[Pair]:
    patient = settings.model_copy(update={"recheck_seconds": NEVER})
    with served(patient) as here, served(patient) as there:
        for web in (here, there):
            until_ready(web)
            eventually(partial(getattr, web.app.state.web.subscription, "connected"), what="a subscription")
        yield Pair(here, there)


@pytest.fixture
def both(settings: Settings) -> Iterator[Pair]:
    with pair(settings) as both:
        yield both


def run_of(poll: "Future[httpx.Response]") -> str:
    answer = poll.result(30)
    assert answer.status_code == 200, "left without a run"
    return str(answer.json()["run"]["run_id"])


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "elsewhere"])
def test_submission_wakes_parked_poll_without_dispatch(both: Pair, db: DbVerbs, *, elsewhere: bool) -> None:
    """Mark the run delivered by the claim, which needs no confirmation."""
    other = both.park(both.here, both.here.client.register("another", tags=["other"]))
    poll = both.park(both.there if elsewhere else both.here, both.here.client.register(tags=["wanted"]))
    submitted = both.here.client.submit(additional_demands={"tags": ["wanted"]})
    assert run_of(poll) == submitted["run_id"]
    assert db.one("SELECT delivered_at FROM runs") is not None
    assert (both.claims(), both.sent(), both.dispatches()) == (1, elsewhere, 0)
    assert not other.done()


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "elsewhere"])
def test_run_of_a_runners_agent_wakes_the_poll_of_that_runner(both: Pair, *, elsewhere: bool) -> None:
    other = both.park(both.here, both.here.client.register("another"))
    agents = [{"name": "reporter", "command": "report"}]
    runner = both.here.client.register(executor={"type": "procedural"}, agents=agents)
    poll = both.park(both.there if elsewhere else both.here, runner)
    submitted = both.here.client.submit(agent_name="reporter")
    assert run_of(poll) == submitted["run_id"]
    assert (both.claims(), both.dispatches()) == (1, 0)
    assert not other.done()


def test_submissions_and_polls_of_two_instances_meet_without_dispatch(both: Pair, db: DbVerbs) -> None:
    """Give each poll one run, and each run one owner. One by one: claims at the same moment may skip each other's runs."""
    polls = [
        both.park(web, both.here.client.register(f"host-{number}"))
        for number, web in enumerate([both.here, both.there] * 4)
    ]
    submitted: set[str] = set()
    for _ in polls:
        submitted.add(both.here.client.submit()["run_id"])
        eventually(lambda: sum(poll.done() for poll in polls) == len(submitted), WAIT_SECONDS, what="an answer")
    assert {run_of(poll) for poll in polls} == submitted
    assert db.one("SELECT count(DISTINCT claim_poll_id) FROM runs") == len(polls)
    assert (both.claims(), both.dispatches()) == (len(polls), 0)


def test_submissions_at_both_instances_serve_all_polls(both: Pair, settings: Settings) -> None:
    """Have two processes choose each other's polls; dispatch gets the runs for which both chose the same."""
    with running_worker(settings):
        polls = [
            both.park(web, both.here.client.register(f"host-{number}"))
            for number, web in enumerate([both.here, both.there] * 4)
        ]
        calls = [
            web.client.meanwhile(web.client.submit) for web in (both.here, both.there) for _ in range(len(polls) // 2)
        ]
        submitted = {call.result(30)["run_id"] for call in calls}  # type: ignore[index]  # the run, not its response
        assert {run_of(poll) for poll in polls} == submitted


def test_batch_wakes_as_many_polls_as_one_commit_may(
    both: Pair, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leave the rest of a batch to dispatch."""
    monkeypatch.setattr(submissions, "MOST_WOKEN", 2)
    polls = [both.park(both.here, both.here.client.register(f"host-{number}")) for number in range(3)]
    run = {"type": "start_session", "parameters": {"prompt": "hello"}}
    with running_worker(settings):
        assert both.here.client.post("/runs/batch", {"runs": [run] * 5}).status_code == 200
        assert len({run_of(poll) for poll in polls}) == 3
    assert both.claims() == 2
    assert both.dispatches() >= 1


def test_message_about_busy_poll_wakes_another_one(both: Pair, db: DbVerbs) -> None:
    """Deliver two messages that name the same poll, as of two processes that chose it, and of one that has ended."""
    polls = [both.park(both.there, both.here.client.register(f"host-{number}")) for number in range(3)]
    inside = both.there.app.state.web
    named = next(iter(inside.polls._polls))
    runs = [both.here.client.submit(not_before=NEVER)["run_id"] for _ in polls]
    given = both.dispatches()
    db.do(lambda conn: conn.execute(text("UPDATE runs SET ready = true, not_before = NULL")))
    demands = {"executor_type": "autonomous", "tags": []}
    messages = [
        {"poll_id": poll_id, "run_id": run_id, "demands": demands}
        for poll_id, run_id in zip((named, named, "poll_that_has_ended"), runs, strict=True)
    ]
    inside.drain._loop.call_soon_threadsafe(inside._submission_wakeups.received, messages)
    assert {run_of(poll) for poll in polls} == set(runs)
    assert both.dispatches() == given


def test_message_without_poll_that_may_take_the_run_wakes_dispatch(both: Pair, settings: Settings) -> None:
    poll = both.park(both.there, both.here.client.register(tags=["other"]), 2)
    inside = both.there.app.state.web
    message = {"poll_id": "poll_that_has_ended", "run_id": "run_1", "demands": {"tags": ["wanted"]}}
    inside.drain._loop.call_soon_threadsafe(inside._submission_wakeups.received, [message])
    eventually(lambda: both.dispatches() == 1, what="a wake-up of dispatch")
    assert poll.result(30).status_code == 204


def test_woken_poll_that_gets_nothing_wakes_dispatch(both: Pair, settings: Settings) -> None:
    full_runner_leaves_run_to_another(both, settings)
    assert both.claims() == 0
    assert both.dispatches() >= 1


def full_runner_leaves_run_to_another(both: Pair, settings: Settings, wait: float | None = None) -> None:
    """Wake the poll of a runner that has no capacity left, before one that has."""
    full = both.here.client.register("full", capacity=1)
    both.here.client.started(full)
    free_runner = both.here.client.register("free")
    both.park(both.here, full, wait)
    free = both.park(both.here, free_runner, wait)
    with closing(sync_client(settings.redis_url)) as client:
        # Drop the wake-ups of what was done until now.
        client.flushdb()
    with running_worker(settings):
        submitted = both.here.client.submit()
        assert run_of(free) == submitted["run_id"]


def held_up(verb: Callable[..., list[Answer]]) -> Callable[..., list[Answer]]:
    """Delay the end of a verb that found a run: its transaction ends when the test releases the lock."""

    def hold_up(conn: Connection, asks: Sequence[Ask], **limits: Any) -> list[Answer]:
        answers = verb(conn, asks, **limits)
        if any(isinstance(answer, PollAnswer) and answer.runs for answer in answers):
            conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": HELD_UP})
        return answers

    return hold_up


def test_run_of_client_that_hung_up_while_its_poll_was_woken_goes_to_another(
    settings: Settings, db: DbVerbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Disconnect while the woken poll's claim is not committed yet."""
    monkeypatch.setattr(queues, "claim_plain_parked", lambda _, asks, **__: [NOT_PLAIN] * len(asks))
    monkeypatch.setattr(queues, "claim_parked", held_up(claim_parked))
    with pair(settings) as both, running_worker(settings):
        gone = both.here.client.register("gone")

        async def poll_and_go() -> dict[str, Any]:
            url = both.there.client.url
            call = await hold(url, call_bytes(url, "GET", f"/runner/runs?runner_id={gone}&wait=30"))
            await asyncio.to_thread(both.there.until_parked, 1)
            submitted = await asyncio.to_thread(both.here.client.submit)
            await asyncio.to_thread(eventually, lambda: db.rows(_WAITS), what="a claim that is not committed")
            assert not await call.hang_up()
            return submitted

        with db.engine.begin() as holder:
            holder.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": HELD_UP})
            submitted = asyncio.run(poll_and_go())
            other = both.park(both.here, both.here.client.register("other"))
        assert run_of(other) == submitted["run_id"]


_WAITS = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


def test_instance_that_does_not_listen_leaves_run_to_dispatch(both: Pair, settings: Settings, db: DbVerbs) -> None:
    """Choose a poll of an instance that has died, or is of a version that knows no such messages."""
    db.park(db.runner(tags=["wanted"]), instance="web-that-is-gone")
    with running_worker(settings):
        both.here.client.submit(additional_demands={"tags": ["wanted"]})
        eventually(lambda: both.dispatches() == 1, what="a wake-up of dispatch")
    assert both.sent() == 0


def test_sweep_finds_run_whose_message_was_lost(both: Pair, settings: Settings, db: DbVerbs) -> None:
    """Publish it to an instance that hears it and dies."""
    db.park(db.runner(tags=["wanted"]), instance="web-that-dies")
    with closing(sync_client(settings.redis_url)) as client, closing(client.pubsub()) as dying:  # type: ignore[no-untyped-call]  # redis-py
        dying.subscribe(submissions_channel("web-that-dies"))
        eventually(lambda: dying.get_message(timeout=1), what="the subscription")
        submitted = both.here.client.submit(additional_demands={"tags": ["wanted"]})
        eventually(lambda: dying.get_message(timeout=1), what="the message")
    assert both.dispatches() == 0
    poll = both.here.client.meanwhile(both.here.client.poll, both.here.client.register(tags=["wanted"]), WAIT_SECONDS)
    assert run_of(poll) == submitted["run_id"]


def test_poll_here_is_woken_without_redis(settings: Settings, own_redis: OwnRedis) -> None:
    """Need Redis for a poll elsewhere only, whose instance finds the run by its re-check."""
    with pair(settings.model_copy(update={"redis_url": own_redis.url})) as both:
        elsewhere = both.park(both.there, both.here.client.register("elsewhere"))
        poll = both.park(both.here, both.here.client.register("here"))
        own_redis.stop()
        first = both.here.client.submit()
        assert run_of(poll) == first["run_id"]
        second = both.here.client.submit()
        both.there.recheck()
        assert run_of(elsewhere) == second["run_id"]
        own_redis.start()


def test_submission_wakes_dispatch_only_with_fast_paths_off(settings: Settings) -> None:
    with pair(settings.model_copy(update={"fast_paths": False})) as both:
        poll = both.park(both.here, both.here.client.register())
        with running_worker(settings):
            submitted = both.here.client.submit()
            assert run_of(poll) == submitted["run_id"]
    assert (both.claims(), both.sent(), both.dispatches()) == (0, 0, 0)
