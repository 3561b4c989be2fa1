"""Break one mechanism of promises 2 and 5 in web and worker processes on purpose: its scenario must notice."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from app.polls.parked import Polls
from app.polls.poll import Poll
from app.polls.recheck import Recheck
from app.writes import attempts
from runtime import wakeups
from runtime.postgres import transaction_async
from runtime.settings import Settings
from tests.support import process_scenarios
from tests.support.db_verbs import DbVerbs
from tests.support.mutation import break_statement
from tests.support.servers import OwnPostgres
from tests.support.web import WebInThread, served, until_ready
from workers.context import WorkerContext, worker_context


@pytest.fixture
def web(settings: Settings) -> Iterator[WebInThread]:
    with served(settings) as web:
        until_ready(web)
        yield web


@pytest.fixture
def context(settings: Settings) -> Iterator[WorkerContext]:
    with worker_context(settings, threads=2) as context:
        yield context


def test_acknowledged_submission_is_committed(db: DbVerbs, web: WebInThread) -> None:
    """Let a COMMIT fail (promise 2)."""
    process_scenarios.acknowledged_submission_is_committed(db, web)


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
        process_scenarios.acknowledged_submission_is_committed(db, web)


def test_poll_gets_its_run_without_any_worker(db: DbVerbs, web: WebInThread) -> None:
    """Slower, never wrong (promise 5)."""
    process_scenarios.work_without_workers_reaches_parked_poll(db, web)


def test_missing_recheck_is_noticed(db: DbVerbs, web: WebInThread, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost message would cost a whole poll."""

    async def skip_look(_: Recheck, *, everything: bool) -> None:
        pass

    monkeypatch.setattr(Recheck, "look", skip_look)
    with pytest.raises(AssertionError, match="ended with 204"):
        process_scenarios.work_without_workers_reaches_parked_poll(db, web)


@pytest.fixture
def web_on_own_postgres(own_postgres: OwnPostgres, redis_url: str) -> Iterator[WebInThread]:
    """Serve on a Postgres that this test may stop."""
    with served(Settings(database_url=own_postgres.url, redis_url=redis_url)) as web:
        until_ready(web)
        yield web


def test_poll_outlives_postgres(own_postgres: OwnPostgres, web_on_own_postgres: WebInThread) -> None:
    """Answer no 5xx because Postgres is away (promise 5)."""
    process_scenarios.poll_outlives_postgres(own_postgres, web_on_own_postgres)


def test_poll_answered_503_without_postgres_is_noticed(
    own_postgres: OwnPostgres, web_on_own_postgres: WebInThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The right answer to every other request would end a deployed runner's work."""

    async def hand_on(_: Polls, poll: Poll, call: Awaitable[Any]) -> None:
        poll.note(await call)

    monkeypatch.setattr(Polls, "_call", hand_on)
    with pytest.raises(AssertionError, match="a poll was refused"):
        process_scenarios.poll_outlives_postgres(own_postgres, web_on_own_postgres)


def test_commit_missed_by_a_pass_sends_another_wakeup(db: DbVerbs, context: WorkerContext) -> None:
    """A fetched message suppresses no wake-up."""
    process_scenarios.commit_missed_by_a_pass_sends_another_wakeup(db, context)


def test_wakeup_merged_with_a_fetched_message_is_noticed(
    db: DbVerbs, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pass may have missed the commit that the wake-up announces."""
    break_statement(monkeypatch, wakeups, "_NOTIFY", {"redis.call('LPOS', queue, last)": "true"})
    with worker_context(settings, threads=2) as context, pytest.raises(AssertionError, match="swallowed"):
        process_scenarios.commit_missed_by_a_pass_sends_another_wakeup(db, context)
