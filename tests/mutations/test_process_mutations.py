"""Promises 2 and 5 of web and worker processes, with a mechanism broken on purpose: its scenario must notice."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from app.http.problems import accepted
from app.polls import parked
from app.writes import attempts
from runtime import wakeups
from runtime.postgres import transaction_async
from runtime.settings import Settings
from tests.support import process_scenarios
from tests.support.db_verbs import DbVerbs
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


def test_what_is_answered_is_committed(db: DbVerbs, web: WebInThread) -> None:
    """Promise 2, with a COMMIT that fails."""
    process_scenarios.what_is_answered_is_committed(db, web)


def test_an_answer_before_the_commit_is_noticed(db: DbVerbs, web: WebInThread, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flush answers when the verb is done, and commits when it finds the time."""
    late: list[asyncio.Task[None]] = []

    async def commit(block: AbstractAsyncContextManager[Any]) -> None:
        # That nobody hears of a failure is what is broken.
        with contextlib.suppress(Exception):
            await block.__aexit__(None, None, None)

    async def answer_first(self: attempts.Attempts, work: Callable[..., Any]) -> Any:
        block = transaction_async(self._engine)
        connection = await block.__aenter__()
        results = await connection.run_sync(work)
        late.append(asyncio.create_task(commit(block)))
        return results

    monkeypatch.setattr(attempts.Attempts, "_together", answer_first)
    with pytest.raises(AssertionError, match="in the database"):
        process_scenarios.what_is_answered_is_committed(db, web)


def test_a_poll_gets_its_run_without_any_worker(db: DbVerbs, web: WebInThread) -> None:
    """Promise 5: slower, never wrong."""
    process_scenarios.work_without_workers_reaches_a_parked_poll(db, web)


def test_a_missing_recheck_is_noticed(db: DbVerbs, web: WebInThread, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost message would cost a whole poll."""

    async def look_away(_: parked.Polls, *, everything: bool) -> None:
        """Nothing."""

    monkeypatch.setattr(parked.Polls, "_recheck", look_away)
    with pytest.raises(AssertionError, match="ended with 204"):
        process_scenarios.work_without_workers_reaches_a_parked_poll(db, web)


@pytest.fixture
def lonely_web(own_postgres: OwnPostgres, redis_url: str) -> Iterator[WebInThread]:
    """A web process on a Postgres that this test may stop."""
    with served(Settings(database_url=own_postgres.url, redis_url=redis_url)) as web:
        until_ready(web)
        yield web


def test_a_poll_outlives_postgres(own_postgres: OwnPostgres, lonely_web: WebInThread) -> None:
    """Promise 5: never 5xx because Postgres is away."""
    process_scenarios.a_poll_outlives_postgres(own_postgres, lonely_web)


def test_a_poll_answered_503_without_postgres_is_noticed(
    own_postgres: OwnPostgres, lonely_web: WebInThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is right for every other request would end a deployed runner's work."""

    async def hand_on(_: parked.Polls, poll: parked.Poll, call: Any) -> Any:
        return accepted(await call)

    monkeypatch.setattr(parked.Polls, "_step", hand_on)
    with pytest.raises(AssertionError, match="a poll was refused"):
        process_scenarios.a_poll_outlives_postgres(own_postgres, lonely_web)


def test_a_commit_that_a_pass_misses_rings_again(db: DbVerbs, context: WorkerContext) -> None:
    """A message that was fetched holds back no ring."""
    process_scenarios.a_commit_that_a_pass_misses_rings_again(db, context)


def test_a_ring_that_is_taken_for_a_message_that_was_fetched_is_noticed(
    db: DbVerbs, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit it tells of may be one that the pass did not see."""
    monkeypatch.setattr(wakeups, "_NOTIFY", wakeups._NOTIFY.replace("redis.call('LPOS', queue, last)", "true"))
    with worker_context(settings, threads=2) as context, pytest.raises(AssertionError, match="swallowed"):
        process_scenarios.a_commit_that_a_pass_misses_rings_again(db, context)
