"""Dispatch from the wake-up to the instance that holds the poll, and recovery when a step is lost."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Engine

from models.claims.delivery import Claim, confirm_deliveries
from models.state.runs import Run
from runtime.names import Actor, hint_key, queue_key
from runtime.pubsub import MessageHandlers, Subscription
from runtime.settings import Settings
from runtime.wakeups import ActorWakeups
from testkit.ports import own_port
from testkit.waiting import eventually, eventually_async
from tests.support.db_verbs import DbVerbs, start_submission
from tests.support.in_process_worker import running_worker
from workers.context import WorkerContext, worker_context
from workers.dispatch import dispatch

# Kill point of a worker: between the commit of its claims and the message about them.
KILLED = """
import os, signal, sys
import workers.dispatch
from runtime.settings import Settings
from workers.context import worker_context

workers.dispatch.publish_assignments = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
with worker_context(Settings(database_url=sys.argv[1], redis_url=sys.argv[2]), threads=1) as context:
    workers.dispatch.dispatch(context)
"""


@pytest.fixture
def db(engine: Engine) -> DbVerbs:
    return DbVerbs(engine)


async def test_wakeup_assigns_run_to_instance_of_poll(settings: Settings, db: DbVerbs) -> None:
    """Send what confirms the delivery to that instance only."""
    received: list[dict[str, str]] = []
    others: list[dict[str, str]] = []
    heads: list[int] = []
    rechecks: list[str] = []
    confirmed: list[str] = []
    poll = db.park(db.runner(), instance="web-1")
    boxes = [
        Subscription(
            settings,
            "web-1",
            MessageHandlers(
                received.extend, heads.append, rechecks.extend, lambda _: None, lambda: confirmed.append("web-1")
            ),
        ),
        Subscription(
            settings,
            "web-2",
            MessageHandlers(
                others.extend, heads.append, rechecks.extend, lambda _: None, lambda: confirmed.append("web-2")
            ),
        ),
    ]
    wakeups = ActorWakeups(settings)
    with running_worker(settings):
        for box in boxes:
            await box.start()
        await wakeups.start()
        await eventually_async(lambda: _true(len(confirmed) == 2))
        submitted = db.start()
        wakeups.notify(Actor.DISPATCH)
        await eventually_async(lambda: _true(bool(received)))
        await wakeups.stop()
        for box in boxes:
            await box.stop()

    (assignment,) = received
    assert not others
    assert (assignment["poll_id"], assignment["run_id"]) == (poll.poll_id, submitted.run_id)
    claim = Claim(assignment["run_id"], assignment["claim_token"])
    (run,) = db.do(confirm_deliveries, [claim])
    assert isinstance(run, Run)
    assert run.run_id == submitted.run_id


async def _true(value: bool) -> bool:  # noqa: FBT001 a condition of eventually_async
    return value


def test_full_pass_requests_another_pass(settings: Settings, db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Assign every run after one wake-up, whatever fits into a pass."""
    monkeypatch.setattr("workers.dispatch.POLLS_A_PASS", 2)
    for _ in range(7):
        db.park(db.runner())
    db.accept(*(start_submission() for _ in range(7)))
    with worker_context(settings, threads=1) as context, running_worker(settings):
        context.wakeups.send(Actor.DISPATCH)
        eventually(lambda: db.count("runs", "status = 'claimed'") == 7)


@pytest.mark.parametrize("pages", [1, 2, 9])
def test_one_wakeup_reaches_poll_behind_a_page_of_polls(
    settings: Settings, db: DbVerbs, monkeypatch: pytest.MonkeyPatch, pages: int
) -> None:
    """Go on in the next pass where this one stopped; the re-check of the poll's own instance is off."""
    monkeypatch.setattr("workers.dispatch.POLLS_A_PAGE", 2)
    monkeypatch.setattr("workers.dispatch.PAGES_A_PASS", pages)
    for _ in range(6):
        db.park(db.runner(executor_type="other"))
    poll = db.park(db.runner())
    run_id = db.start().run_id
    with worker_context(settings, threads=1) as context:
        passes = passes_until_quiet(context)

    assert db.run(run_id).claim_poll_id == poll.poll_id
    assert passes == {1: 4, 2: 2, 9: 1}[pages]


def test_passes_end_when_no_run_is_ready_for_large_fleet(
    settings: Settings, db: DbVerbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read more parked polls than a pass takes: passes follow one another to the last page, then stop."""
    monkeypatch.setattr("workers.dispatch.POLLS_A_PAGE", 2)
    monkeypatch.setattr("workers.dispatch.PAGES_A_PASS", 1)
    for _ in range(5):
        db.park(db.runner())
    with worker_context(settings, threads=1) as context:
        assert passes_until_quiet(context) == 3


def passes_until_quiet(context: WorkerContext) -> int:
    passes = 1
    dispatch(context)
    while context.redis.delete(hint_key(Actor.DISPATCH)):
        context.redis.delete(queue_key("dispatch"))
        passes += 1
        assert passes < 20
        dispatch(context)
    return passes


def test_assignment_with_lost_message_is_found_by_recheck(settings: Settings, db: DbVerbs) -> None:
    """Lose Redis when the worker publishes; the poll's instance finds the claim by itself."""
    poll = db.park(db.runner())
    submitted = db.start()
    away = settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{own_port()}/0"})
    with worker_context(away, threads=1) as context:
        dispatch(context)

    (answer,) = db.recheck(poll)
    assert [run.run_id for run in answer.runs] == [submitted.run_id]


def test_worker_killed_between_commit_and_message_loses_nothing(settings: Settings, db: DbVerbs) -> None:
    """Find the claim in Postgres, where the poll is too."""
    poll = db.park(db.runner())
    # No re-check runs while the process starts, which may take longer than a parked poll stays valid.
    db.rows("UPDATE waiting_polls SET seen_at = now() + interval '1 hour'")
    submitted = db.start()
    arguments = [sys.executable, "-c", KILLED, settings.database_url, settings.redis_url]

    ended = subprocess.run(arguments, check=False, timeout=60, cwd=Path(__file__).parents[2])

    assert ended.returncode == -signal.SIGKILL
    assert db.run(submitted.run_id).status == "claimed"
    (answer,) = db.recheck(poll)
    assert [run.run_id for run in answer.runs] == [submitted.run_id]


def test_pass_without_assignment_sends_nothing(settings: Settings, db: DbVerbs) -> None:
    db.park(db.runner())
    with worker_context(settings, threads=1) as context:
        dispatch(context)
        assert not context.redis.exists(hint_key(Actor.DISPATCH))
        assert not context.redis.llen(queue_key("dispatch"))
    assert len(db.waiting()) == 1
