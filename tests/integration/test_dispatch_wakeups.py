"""Wake-ups of dispatch: sent after a submission if any poll is parked, on whatever instance."""

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
from testkit.ports import own_port
from testkit.waiting import eventually, eventually_async
from tests.support.db_verbs import DbVerbs
from tests.support.in_process_worker import running_worker
from tests.support.parking import CLAIM, FIND_NOTHING, LOOK, PARK, SUBMIT, is_noticed, orders
from tests.support.web import WebInThread, served, until_ready

ROUNDS = 25


@pytest.fixture
def db(engine: Engine) -> DbVerbs:
    return DbVerbs(engine)


def notified() -> Callable[[], float]:
    """Return a function that counts the wake-ups of dispatch since now."""
    counters = [WAKEUPS.labels(Actor.DISPATCH, outcome) for outcome in ("sent", "coalesced")]
    before = sum(counter._value.get() for counter in counters)
    return lambda: sum(counter._value.get() for counter in counters) - before


@pytest.mark.parametrize("order", orders((FIND_NOTHING, PARK, CLAIM), (SUBMIT, LOOK)), ids=" | ".join)
def test_run_and_poll_meet_in_every_order_of_commits(db: DbVerbs, order: tuple[str, ...]) -> None:
    """Find the run by the poll's second claim, or the poll by the look after the submission's commit."""
    assert is_noticed(db, order)


def test_submission_wakes_dispatch_only_while_poll_waits_elsewhere(
    settings: Settings, db: DbVerbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rely on the order of looks: a wake-up of the first is counted when the second has sent its own."""
    monkeypatch.setattr(dispatch_wakeups, "LOOK_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(dispatch_wakeups, "WAITING_SECONDS", 3600.0)
    times = notified()
    with served(settings) as web:
        until_ready(web)
        web.client.submit()
        poll = db.park(db.runner(executor_type="another"), instance="web-2")
        _submit_and_expect(web, times, 1)

        db.give_up(poll)
        # A parked poll was seen a moment ago: wake at once, and look again.
        _submit_and_expect(web, times, 2)
        eventually(lambda: web.app.state.web._dispatch_wakeups._waiting_until < 0, what="a look that finds no poll")
        web.client.submit()

        db.park(db.runner(executor_type="another"), instance="web-2")
        _submit_and_expect(web, times, 3)


def _submit_and_expect(web: WebInThread, times: Callable[[], float], count: int) -> None:
    web.client.submit()
    eventually(lambda: times() >= count, what="a wake-up")
    assert times() == count


def test_concurrent_polls_and_submissions_all_meet(settings: Settings) -> None:
    """Send both at once to two processes without re-checks, beside a worker without periodic passes.

    Each poll ends with the run, by its second claim or by dispatch.
    """
    slow = settings.model_copy(update={"recheck_seconds": 3600.0})
    with served(slow) as submitting, served(slow) as polling, running_worker(slow):
        for web in (submitting, polling):
            until_ready(web)
            eventually(lambda web=web: web.app.state.web.subscription.connected, what="the subscription")
        runner = polling.client.register()
        for _ in range(ROUNDS):
            poll = polling.client.meanwhile(polling.client.poll, runner, 30)
            submitted = submitting.client.submit()
            assert poll.result(40).json()["run"]["run_id"] == submitted["run_id"]


async def test_failed_look_wakes_dispatch(settings: Settings) -> None:
    """Prefer a useless wake-up, which costs a worker little, to a missing one, which costs a runner seconds."""
    port = own_port()
    away = settings.model_copy(update={"database_url": f"postgresql+psycopg://127.0.0.1:{port}/none"})
    engine = async_engine(away)
    heard: list[Actor] = []
    wakeups = DispatchWakeups(Attempts(engine), heard.append, lambda: False)
    looking = asyncio.create_task(wakeups.look_forever())

    wakeups.notify(Actor.DISPATCH)
    wakeups.notify(Actor.BROADCAST)

    async def both() -> bool:
        return len(heard) == 2

    await eventually_async(both)
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
    await engine.dispose()
    assert heard == [Actor.BROADCAST, Actor.DISPATCH]


async def test_instance_with_parked_poll_wakes_dispatch_without_look(settings: Settings) -> None:
    """Run no look at all here."""
    engine = async_engine(settings)
    heard: list[Actor] = []

    DispatchWakeups(Attempts(engine), heard.append, lambda: True).notify(Actor.DISPATCH)

    assert heard == [Actor.DISPATCH]
    await engine.dispose()
