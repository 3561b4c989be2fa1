"""Break one mechanism of promises 2 and 5 in web and worker processes on purpose: its scenario must notice."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, closing
from dataclasses import replace
from typing import Any

import dramatiq
import pytest

from app.polls.held import Polls
from app.polls.poll import Poll
from app.polls.recheck import Recheck
from app.writes import attempts
from runtime import wakeups
from runtime.names import Actor
from runtime.postgres import transaction_async
from runtime.settings import Settings
from testkit.servers import OwnPostgres
from testkit.waiting import eventually
from tests.support.db_verbs import DbVerbs
from tests.support.mutation import break_statement
from tests.support.web import PROMPT, WebInThread, served, until_ready
from workers.actors import declare_actors
from workers.broker import WakingBroker
from workers.context import WorkerContext, worker_context
from workers.duties import duties_of

START = {"type": "start_session", "parameters": PROMPT}

# Fail at COMMIT, when the verb is done: the last moment at which it can fail.
_REFUSE_COMMITS = """
    CREATE FUNCTION refuse_commit() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN RAISE serialization_failure; END';
    CREATE CONSTRAINT TRIGGER refuse_commits AFTER INSERT ON runs DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION refuse_commit();
"""


def acknowledged_submission_is_committed(db: DbVerbs, web: WebInThread) -> None:
    """Acknowledge no submission whose COMMIT fails: every run of a 201 is in the database (promise 2)."""
    for commits in (True, False):
        if not commits:
            db.rows(_REFUSE_COMMITS)
        answer = web.client.post("/runs", START)
        there = db.count("runs", "run_id = :r", r=answer.json().get("run_id", ""))
        assert (answer.status_code == 201) == bool(there), f"answered {answer.status_code}, {there} in the database"
        assert (answer.status_code == 201) == commits


def work_without_workers_reaches_parked_poll(db: DbVerbs, web: WebInThread) -> None:
    """Run no worker and send no message: the re-check finds the run within ~2 s (promise 5)."""
    runner = web.client.register()
    poll = web.client.meanwhile(web.client.poll, runner, 6)
    web.until_parked()
    run_id = web.client.submit()["run_id"]
    answer = poll.result(30)
    assert answer.status_code == 200, f"the poll ended with {answer.status_code}"
    assert answer.json()["run"]["run_id"] == run_id
    assert db.run(run_id).status == "claimed"


def poll_outlives_postgres(postgres: OwnPostgres, web: WebInThread) -> None:
    """Answer polls parked before and sent during an outage with 204; a 5xx would make deployed runners kill their work
    (promise 5).
    """
    runner = web.client.register()
    parked = web.client.meanwhile(web.client.poll, runner, 3)
    web.until_parked()
    postgres.stop()
    try:
        answers = [web.client.poll(runner, 0.5), parked.result(30)]
        assert [answer.status_code for answer in answers] == [204, 204], "a poll was refused"
    finally:
        postgres.start()
    eventually(lambda: web.client.poll(runner, 0).status_code == 204, what="polls as before")


def commit_missed_by_a_pass_sends_another_wakeup(db: DbVerbs, context: WorkerContext) -> None:
    """Commit and notify when a pass of dispatch has read but is not over: another message follows."""
    (duty,) = [duty for duty in duties_of(context) if duty.actor == Actor.DISPATCH]
    poll = db.park(db.runner())
    runs: list[str] = []
    notified: list[bool] = []

    def dispatch_while_a_client_submits() -> None:
        duty.on_message()
        if not runs:
            runs.append(db.start().run_id)
            notified.append(bool(context.wakeups.send(Actor.DISPATCH)))

    broker = WakingBroker(context.settings.redis_url)
    declare_actors(broker, [replace(duty, on_message=dispatch_while_a_client_submits)])
    worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=100)
    worker.start()
    with closing(broker):
        try:
            assert context.wakeups.send(Actor.DISPATCH), "the first wake-up"
            eventually(lambda: notified, what="the first pass")
            assert notified == [True], "the second wake-up was swallowed"
            eventually(lambda: db.run(runs[0]).claim_poll_id == poll.poll_id, what="the second pass")
        finally:
            worker.stop(timeout=5000)


@pytest.fixture
def web(settings: Settings) -> Iterator[WebInThread]:
    with served(settings.model_copy(update={"fast_paths": False})) as web:
        until_ready(web)
        yield web


@pytest.fixture
def context(settings: Settings) -> Iterator[WorkerContext]:
    with worker_context(settings, threads=2) as context:
        yield context


def test_acknowledged_submission_is_committed(db: DbVerbs, web: WebInThread) -> None:
    """Let a COMMIT fail (promise 2)."""
    acknowledged_submission_is_committed(db, web)


def test_answer_before_the_commit_is_noticed(db: DbVerbs, web: WebInThread, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer when the verb is done, and commit later."""
    late: list[asyncio.Task[None]] = []

    async def commit(block: AbstractAsyncContextManager[Any]) -> None:
        # Swallowing the failure is the mutation.
        with contextlib.suppress(Exception):
            await block.__aexit__(None, None, None)

    async def answer_first(self: attempts.Attempts, work: Callable[..., Any]) -> Any:
        block = transaction_async(self._engine)
        connection = await block.__aenter__()
        results = await connection.run_sync(work)
        late.append(asyncio.create_task(commit(block)))
        return results

    monkeypatch.setattr(attempts.Attempts, "_in_transaction", answer_first)
    with pytest.raises(AssertionError, match="in the database"):
        acknowledged_submission_is_committed(db, web)


def test_poll_gets_its_run_without_any_worker(db: DbVerbs, web: WebInThread) -> None:
    """Slower, never wrong (promise 5)."""
    work_without_workers_reaches_parked_poll(db, web)


def test_missing_recheck_is_noticed(db: DbVerbs, web: WebInThread, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost message would cost a whole poll."""

    async def skip_look(_: Recheck, *, everything: bool) -> None:
        pass

    monkeypatch.setattr(Recheck, "look", skip_look)
    with pytest.raises(AssertionError, match="ended with 204"):
        work_without_workers_reaches_parked_poll(db, web)


@pytest.fixture
def web_on_own_postgres(own_postgres: OwnPostgres, redis_url: str) -> Iterator[WebInThread]:
    """Serve on a Postgres that this test may stop."""
    with served(Settings(database_url=own_postgres.url, redis_url=redis_url)) as web:
        until_ready(web)
        yield web


def test_poll_outlives_postgres(own_postgres: OwnPostgres, web_on_own_postgres: WebInThread) -> None:
    """Answer no 5xx because Postgres is away (promise 5)."""
    poll_outlives_postgres(own_postgres, web_on_own_postgres)


def test_poll_answered_503_without_postgres_is_noticed(
    own_postgres: OwnPostgres, web_on_own_postgres: WebInThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The right answer to every other request would end a deployed runner's work."""

    async def hand_on(_: Polls, poll: Poll, call: Awaitable[Any]) -> None:
        poll.note(await call)

    monkeypatch.setattr(Polls, "_call", hand_on)
    with pytest.raises(AssertionError, match="a poll was refused"):
        poll_outlives_postgres(own_postgres, web_on_own_postgres)


def test_commit_missed_by_a_pass_sends_another_wakeup(db: DbVerbs, context: WorkerContext) -> None:
    """A fetched message suppresses no wake-up."""
    commit_missed_by_a_pass_sends_another_wakeup(db, context)


def test_wakeup_merged_with_a_fetched_message_is_noticed(
    db: DbVerbs, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pass may have missed the commit that the wake-up announces."""
    break_statement(monkeypatch, wakeups, "_NOTIFY", {"redis.call('LPOS', queue, last)": "true"})
    with worker_context(settings, threads=2) as context, pytest.raises(AssertionError, match="swallowed"):
        commit_missed_by_a_pass_sends_another_wakeup(db, context)
