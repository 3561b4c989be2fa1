"""Dispatch is rung for whom it may serve: a poll that waits, wherever it does."""

import asyncio
from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from app.writes import dispatch_wakeups
from app.writes.attempts import Attempts
from app.writes.dispatch_wakeups import DispatchWakeups
from runtime.metrics import WAKEUPS
from runtime.names import Actor
from runtime.postgres import async_engine
from runtime.settings import Settings
from tests.support.db_verbs import DbVerbs
from tests.support.in_process_worker import working
from tests.support.parking import CLAIM, FIND_NOTHING, LOOK, PARK, SUBMIT, is_noticed, orders
from tests.support.ports import own_port
from tests.support.waiting import eventually, eventually_async
from tests.support.web import WebInThread, served, until_ready

ROUNDS = 25


@pytest.fixture
def db(engine: Engine) -> DbVerbs:
    return DbVerbs(engine)


def notified() -> Callable[[], float]:
    """How often dispatch has been rung since."""
    counters = [WAKEUPS.labels(Actor.DISPATCH, outcome) for outcome in ("sent", "coalesced")]
    before = sum(counter._value.get() for counter in counters)
    return lambda: sum(counter._value.get() for counter in counters) - before


@pytest.mark.parametrize("order", orders((FIND_NOTHING, PARK, CLAIM), (SUBMIT, LOOK)), ids=" | ".join)
def test_no_order_of_commits_leaves_a_poll_and_a_run_alone(db: DbVerbs, order: tuple[str, ...]) -> None:
    """Either the poll finds the run in its second claim, or the look behind the submission's commit finds the poll."""
    assert is_noticed(db, order)


def test_a_submission_rings_when_a_poll_waits_in_another_process_and_only_then(
    settings: Settings, db: DbVerbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looks follow one another, so what the first one rang would have been counted when the second one has rung."""
    monkeypatch.setattr(dispatch_wakeups, "LOOK_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(dispatch_wakeups, "WAITING_SECONDS", 3600.0)
    times = notified()
    with served(settings) as web:
        until_ready(web)
        web.client.submit()
        poll = db.park(db.runner(executor_type="another"), instance="web-2")
        _submit_and_expect(web, times, 1)

        db.give_up(poll)
        # It was seen to wait a moment ago: rung at once, and looked for again.
        _submit_and_expect(web, times, 2)
        eventually(lambda: web.app.state.web._dispatch_wakeups._waiting_until < 0, what="a look that finds nobody")
        web.client.submit()

        db.park(db.runner(executor_type="another"), instance="web-2")
        _submit_and_expect(web, times, 3)


def _submit_and_expect(web: WebInThread, times: Callable[[], float], count: int) -> None:
    web.client.submit()
    eventually(lambda: times() >= count, what="a ring")
    assert times() == count


def test_polls_and_submissions_that_meet_all_come_together(settings: Settings) -> None:
    """Sent at the same moment to two processes that never re-check, beside a worker that sweeps never: each poll ends
    with the run, by its second claim or because dispatch was rung.
    """
    slow = settings.model_copy(update={"recheck_seconds": 3600.0})
    with served(slow) as one, served(slow) as other, working(slow):
        for web in (one, other):
            until_ready(web)
            eventually(lambda web=web: web.app.state.web.subscription.connected, what="the mailbox")
        runner = other.client.register()
        for _ in range(ROUNDS):
            poll = other.client.meanwhile(other.client.poll, runner, 30)
            submitted = one.client.submit()
            assert poll.result(40).json()["run"]["run_id"] == submitted["run_id"]


async def test_a_look_that_fails_rings(settings: Settings) -> None:
    """A ring in vain costs a worker a moment, a missing one costs a runner seconds."""
    port = own_port()
    away = settings.model_copy(update={"database_url": f"postgresql+psycopg://127.0.0.1:{port}/none"})
    engine = async_engine(away)
    heard: list[Actor] = []
    ringing = DispatchWakeups(Attempts(engine), heard.append, lambda: False)
    looking = asyncio.create_task(ringing.look_forever())

    ringing.notify(Actor.DISPATCH)
    ringing.notify(Actor.BROADCAST)

    async def both() -> bool:
        return len(heard) == 2

    await eventually_async(both)
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
    await engine.dispose()
    assert heard == [Actor.BROADCAST, Actor.DISPATCH]


async def test_who_holds_a_poll_rings_without_a_look(settings: Settings) -> None:
    """Nothing looks here: what rings does not wait for it."""
    engine = async_engine(settings)
    heard: list[Actor] = []

    DispatchWakeups(Attempts(engine), heard.append, lambda: True).notify(Actor.DISPATCH)

    assert heard == [Actor.DISPATCH]
    await engine.dispose()
