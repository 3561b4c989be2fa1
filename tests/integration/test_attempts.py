"""Attempts of a transaction on one pool: tell an outage from slowness."""

import asyncio
import time

import psycopg
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.writes.attempts import Attempts, Unavailable
from app.writes.group_commit import GroupCommit
from runtime.postgres import longest_silence
from runtime.settings import Settings
from tests.support.batches import Writer, run


class Answers(list[bool]):
    """Result of each attempt: did Postgres answer?"""

    def attempts(self, web: AsyncEngine, silence: float) -> Attempts:
        return Attempts(web, self.append, silence=silence)


def test_transaction_slower_than_longest_silence_is_no_outage(settings: Settings) -> None:
    """Let a transaction go on while Postgres answers in it."""
    answers = Answers()

    def slow(conn: Connection) -> int:
        for _ in range(6):
            conn.execute(text("SELECT pg_sleep(0.4)"))
        return 1

    async def scenario(_: Attempts, web: AsyncEngine) -> None:
        assert await answers.attempts(web, 1.0).read(slow) == 1

    run(settings, scenario)
    assert answers == [True]


def test_endless_transaction_is_given_up_and_is_no_outage(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.writes.attempts.LONGEST_ATTEMPT", 2)
    answers = Answers()

    def endless(conn: Connection) -> None:
        while True:
            conn.execute(text("SELECT pg_sleep(0.1)"))

    async def scenario(_: Attempts, web: AsyncEngine) -> None:
        with pytest.raises(Unavailable):
            await answers.attempts(web, 0.5).read(endless)

    run(settings, scenario)
    assert answers == [True]


def test_statement_that_postgres_ends_is_no_outage(settings: Settings) -> None:
    """Count statement and lock timeouts as answers."""
    quick = settings.model_copy(update={"statement_timeout_seconds": 0.3, "lock_timeout_seconds": 0.1})
    answers = Answers()

    async def scenario(_: Attempts, web: AsyncEngine) -> None:
        attempts = answers.attempts(web, longest_silence(quick))
        with pytest.raises(Unavailable):
            await attempts.read(lambda conn: conn.execute(text("SELECT pg_sleep(60)")))
        with pytest.raises(Unavailable):
            await attempts.autocommit(lambda conn: conn.execute(text("SELECT pg_advisory_lock(1)")))
        assert await GroupCommit(attempts, Writer()).one(1) == 1

    with psycopg.connect(settings.database_url.replace("+psycopg", "")) as holder:
        holder.execute("CREATE TABLE written (n int PRIMARY KEY)")
        holder.commit()
        holder.execute("SELECT pg_advisory_lock(1)")
        run(quick, scenario)
    assert answers == [True, True, True]


def test_silence_of_postgres_is_outage(settings: Settings) -> None:
    """Give up a statement that outlives its own time limit: no server is behind it."""
    answers = Answers()

    async def scenario(_: Attempts, web: AsyncEngine) -> None:
        with pytest.raises(Unavailable):
            await answers.attempts(web, 0.3).read(lambda conn: conn.execute(text("SELECT pg_sleep(60)")))

    run(settings, scenario)
    assert answers == [False]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, 12),
        ({"statement_timeout_seconds": 60}, 62),
        ({"statement_timeout_seconds": 1, "pool_timeout_seconds": 4, "connect_timeout_seconds": 6}, 12),
    ],
)
def test_longest_silence_follows_settings(settings: Settings, changed: dict[str, float], expected: float) -> None:
    """Allow more silence than a statement may take, and more than the wait for a connection."""
    assert longest_silence(settings.model_copy(update=changed)) == expected


def test_answer_that_arrived_during_stalled_event_loop_is_no_outage(settings: Settings) -> None:
    """Stall the event loop for longer than the silence."""
    answers = Answers()

    async def scenario(_: Attempts, web: AsyncEngine) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(0.1, time.sleep, 1.0)
        work = answers.attempts(web, 0.5).read(lambda conn: conn.execute(text("SELECT pg_sleep(0.3)")).scalar_one())
        await work

    run(settings, scenario)
    assert answers == [True]
