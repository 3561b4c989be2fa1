"""Group commit against a real Postgres: who rides with whom, and who pays when something goes wrong."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.writes import group_commit
from app.writes.attempts import Attempts, Unavailable
from app.writes.group_commit import GroupCommit
from app.writes.retries import retry_until
from models.core.errors import CoordinatorError, NotFound, Unstorable
from runtime.settings import Settings
from tests.support.batches import Writer, run


@pytest.fixture
def table(engine: Engine) -> str:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE written (n int PRIMARY KEY CHECK (n < 1000))"))
    return "written"


def written(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT n FROM written ORDER BY n")).scalars())


def test_a_lone_item_waits_for_nothing_and_the_rest_ride_together(
    settings: Settings, engine: Engine, table: str
) -> None:
    """One flush in flight; whoever arrives meanwhile rides in the next, in order, with his own result."""

    async def scenario(attempts: Attempts, _: AsyncEngine) -> None:
        verb = Writer()
        queue = GroupCommit(attempts, verb)
        results = await asyncio.gather(*(queue.one(n) for n in range(100)))
        assert results == list(range(100))
        assert len(verb.batches[0]) in {1, 100}
        assert len(verb.batches) <= 3
        assert [n for batch in verb.batches for n in batch] == list(range(100))

    run(settings, scenario)
    assert written(engine) == list(range(100))


def test_what_comes_many_at_a_time_waits_for_no_company(
    settings: Settings, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were it to gather, this test would run out of time."""
    monkeypatch.setattr(group_commit, "SHORTEST_GATHER_SECONDS", 3600.0)
    monkeypatch.setattr(group_commit, "LONGEST_GATHER_SECONDS", 3600.0)

    async def scenario(attempts: Attempts, _: AsyncEngine) -> None:
        verb = Writer()
        queue = GroupCommit(attempts, verb, linger=None, max_items=2)
        assert await queue.many((n, 0) for n in range(5)) == list(range(5))
        assert [len(batch) for batch in verb.batches] == [2, 2, 1]

    run(settings, scenario)


def test_a_batch_has_at_most_so_many_items_and_bytes(settings: Settings, table: str) -> None:
    """256 items or 4 MiB by default; here smaller. One item larger than a batch rides alone."""

    async def scenario(attempts: Attempts, _: AsyncEngine) -> None:
        by_items, by_bytes = Writer(), Writer()
        await GroupCommit(attempts, by_items, max_items=10).many((n, 0) for n in range(25))
        assert max(map(len, by_items.batches)) == 10
        await GroupCommit(attempts, by_bytes, max_bytes=100).many((n, 40) for n in range(5))
        assert max(map(len, by_bytes.batches)) == 2
        assert await GroupCommit(attempts, by_bytes, max_bytes=100).one(7, 4000) == 7

    run(settings, scenario)


def test_an_answer_leaves_after_the_commit(settings: Settings, engine: Engine, table: str) -> None:
    """Promise 2: whoever got an answer finds his row, on any other connection."""

    async def scenario(attempts: Attempts, web: AsyncEngine) -> None:
        queue = GroupCommit(attempts, Writer())

        async def one(n: int) -> None:
            await queue.one(n)
            async with web.connect() as connection:
                assert (await connection.execute(text("SELECT 1 FROM written WHERE n = :n"), {"n": n})).first()

        await asyncio.gather(*(one(n) for n in range(50)))

    run(settings, scenario)


def test_only_the_guilty_item_fails(settings: Settings, engine: Engine, table: str) -> None:
    """A data error is bisected: 99 items commit, one is refused; a verb's own errors are results like others."""

    async def scenario(attempts: Attempts, _: AsyncEngine) -> None:
        queue = GroupCommit(attempts, Writer())
        results = await queue.many((n, 0) for n in [*range(50), 5000, *range(50, 99), -1])
        assert results[:50] == list(range(50))
        assert isinstance(results[50], Unstorable)
        assert results[51:100] == list(range(50, 99))
        assert results[100] == NotFound("run", "-1")

    run(settings, scenario)
    assert written(engine) == [-1, *range(99)]


def test_a_blocked_item_does_not_hold_up_the_others(settings: Settings, engine: Engine, table: str) -> None:
    """A lock that somebody holds costs its own item 503, and those behind it nothing."""
    quick = settings.model_copy(update={"lock_timeout_seconds": 0.2})

    under_way = asyncio.Event()

    def verb(conn: Connection, items: Sequence[int]) -> list[int]:
        under_way.set()
        conn.execute(text("SELECT n FROM written WHERE n = ANY(:n) ORDER BY n FOR UPDATE"), {"n": list(items)})
        return list(items)

    async def scenario(attempts: Attempts, _: AsyncEngine) -> None:
        queue = GroupCommit(attempts, verb)
        crowd = asyncio.gather(*(queue.one(n) for n in range(20)), return_exceptions=True)
        await under_way.wait()
        assert await queue.one(30) == 30
        assert not crowd.done(), "it waited for the blocked one"
        results = await crowd
        assert [n for n, result in enumerate(results) if isinstance(result, Unavailable)] == [7]
        assert [result for n, result in enumerate(results) if n != 7] == [n for n in range(20) if n != 7]

    with engine.begin() as connection:
        connection.execute(text("INSERT INTO written SELECT generate_series(0, 30)"))
    with engine.begin() as connection:
        connection.execute(text("SELECT 1 FROM written WHERE n = 7 FOR UPDATE"))
        run(quick, scenario)


class Ordered(Writer):
    """Takes its time for 0, by itself, after the database has refused a batch."""

    def __call__(self, conn: Connection, items: Sequence[int]) -> list[int | CoordinatorError]:
        if list(items) == [0]:
            conn.execute(text("SELECT pg_sleep(0.3)"))
        return super().__call__(conn, items)


def committed_around(settings: Settings, engine: Engine, guilty: int) -> list[int]:
    """Numbers in the order of their commits: nine of one request, one of them refused, and 7 to 9 of another."""

    async def scenario(attempts: Attempts, _: AsyncEngine) -> None:
        queue = GroupCommit(attempts, Ordered(), max_items=4)
        items = [0, 10, 20, 30, 40, 50, 60, 70, 80]
        items[guilty] = 5000
        mine = asyncio.create_task(queue.many((n, 0) for n in items))
        others = asyncio.create_task(queue.many((n, 0) for n in (7, 8, 9)))
        results = await mine
        assert [n for n, result in zip(items, results, strict=True) if result != n] == [5000]
        assert await others == [7, 8, 9]

    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE written (n int PRIMARY KEY CHECK (n < 1000), place serial)"))
    run(settings, scenario)
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT n FROM written ORDER BY place")).scalars())


@pytest.mark.parametrize("guilty", [1, 2, 3])
def test_items_of_a_request_are_committed_in_its_order_although_a_batch_is_bisected(
    settings: Settings, engine: Engine, guilty: int
) -> None:
    """Its later batches and halves wait for the guilty item; those of others do not."""
    stored = committed_around(settings, engine, guilty)
    mine = [n for n in stored if n % 10 == 0]
    assert len(mine) == 8
    assert mine == sorted(mine)
    assert stored.index(7) < stored.index(0), "another request's items waited"


def test_batches_that_do_not_wait_for_a_bisected_one_of_their_request_are_noticed(
    settings: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if each item came by itself."""
    monkeypatch.setattr(group_commit, "_requests", lambda _: set())
    mine = [n for n in committed_around(settings, engine, 3) if n % 10 == 0]
    assert mine != sorted(mine)


def test_a_lost_connection_repeats_the_same_items_once(settings: Settings, engine: Engine, table: str) -> None:
    """pg_terminate_backend in the middle: the batch is done again and nobody notices."""

    def verb(conn: Connection, items: Sequence[int]) -> list[int]:
        tries.append(list(items))
        if len(tries) == 1:
            conn.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        conn.execute(text("INSERT INTO written SELECT unnest(CAST(:n AS int[]))"), {"n": list(items)})
        return list(items)

    tries: list[list[int]] = []

    async def scenario(attempts: Attempts, _: AsyncEngine) -> None:
        assert await GroupCommit(attempts, verb).many((n, 0) for n in range(3)) == [0, 1, 2]

    run(settings, scenario)
    assert tries == [[0, 1, 2], [0, 1, 2]]
    assert written(engine) == [0, 1, 2]


def test_an_item_whose_caller_has_left_still_commits(settings: Settings, engine: Engine, table: str) -> None:
    """A cancelled request is no rollback: its item may have been acknowledged to nobody, but is not lost either."""

    async def scenario(attempts: Attempts, _: AsyncEngine) -> None:
        queue = GroupCommit(attempts, Writer())
        leaving = asyncio.create_task(queue.one(1))
        staying = asyncio.create_task(queue.one(2))
        await asyncio.sleep(0)
        leaving.cancel()
        assert await staying == 2

    run(settings, scenario)
    assert written(engine) == [1, 2]


def test_a_bug_in_a_verb_reaches_its_callers_and_not_the_next_ones(settings: Settings, table: str) -> None:
    """The queue goes on after any exception."""

    def verb(_: Connection, items: Sequence[Any]) -> list[Any]:
        if "bad" in items:
            raise ZeroDivisionError
        return list(items)

    async def scenario(attempts: Attempts, _: AsyncEngine) -> None:
        queue = GroupCommit(attempts, verb)
        with pytest.raises(ZeroDivisionError):
            await queue.one("bad")
        assert await queue.one("good") == "good"

    run(settings, scenario)


def test_a_verb_that_loses_a_result_answers_nobody_with_anothers(settings: Settings, table: str) -> None:
    """Results are joined by ordinal: one too few is an error of all, and the queue goes on."""

    def verb(_: Connection, items: Sequence[int]) -> list[int]:
        return list(items)[1:] if len(items) > 1 else list(items)

    async def scenario(attempts: Attempts, _: AsyncEngine) -> None:
        queue = GroupCommit(attempts, verb)
        with pytest.raises(RuntimeError):
            await queue.many((n, 0) for n in range(3))
        assert await queue.one(7) == 7

    run(settings, scenario)


def test_the_bell_is_told_after_each_commit_with_the_results(settings: Settings, table: str) -> None:
    """Rings follow commits, never failures."""
    told: list[Sequence[Any]] = []

    async def scenario(attempts: Attempts, _: AsyncEngine) -> None:
        queue = GroupCommit(attempts, Writer(), after=told.append)
        await queue.one(1)
        await queue.one(5000)

    run(settings, scenario)
    assert told == [[1]]


def test_postgres_away_is_unavailable_soon(settings: Settings) -> None:
    """Refused connections end in Unavailable after one repeat, not in an exception nobody knows."""
    nowhere = settings.model_copy(update={"database_url": "postgresql+psycopg://x:y@127.0.0.1:9/z"})

    async def scenario(attempts: Attempts, _: AsyncEngine) -> None:
        with pytest.raises(Unavailable):
            await GroupCommit(attempts, Writer()).one(1)
        with pytest.raises(Unavailable):
            await attempts.read(lambda connection: connection.execute(text("SELECT 1")).scalar_one())

    run(nowhere, scenario)


def test_a_held_call_is_repeated_until_postgres_is_back(settings: Settings, table: str) -> None:
    """A runner that reports once must not lose its report to a short outage."""
    tries = 0

    async def call() -> str:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise Unavailable
        return "done"

    async def scenario() -> None:
        assert await retry_until(call, 20, asyncio.Event()) == "done"

    asyncio.run(scenario())
    assert tries == 4


def test_a_held_call_gives_up_when_the_process_must_end(settings: Settings) -> None:
    """Held reports that the drain cannot wait for get 503."""
    asked, over = asyncio.Event(), asyncio.Event()

    async def call() -> str:
        asked.set()
        raise Unavailable

    async def scenario() -> None:
        waiting = asyncio.create_task(retry_until(call, 600, over))
        await asked.wait()
        over.set()
        with pytest.raises(Unavailable):
            await asyncio.wait_for(waiting, 5)

    asyncio.run(scenario())
