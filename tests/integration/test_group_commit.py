"""Group commit against a real Postgres: which items share a transaction, and which fail when one is bad."""

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


def test_lone_item_flushes_at_once_and_later_ones_share_next_flush(
    settings: Settings, engine: Engine, table: str
) -> None:
    """Allow one flush at a time; items that arrive meanwhile go with the next, in order, each with its own result."""

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


def test_bulk_queue_does_not_linger(settings: Settings, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a linger longer than the time limit of the test."""
    monkeypatch.setattr(group_commit, "SHORTEST_LINGER_SECONDS", 3600.0)
    monkeypatch.setattr(group_commit, "LONGEST_LINGER_SECONDS", 3600.0)

    async def scenario(attempts: Attempts, _: AsyncEngine) -> None:
        verb = Writer()
        queue = GroupCommit(attempts, verb, linger=None, max_items=2)
        assert await queue.many((n, 0) for n in range(5)) == list(range(5))
        assert [len(batch) for batch in verb.batches] == [2, 2, 1]

    run(settings, scenario)


def test_batch_is_bounded_in_items_and_bytes(settings: Settings, table: str) -> None:
    """Lower the defaults of 256 items and 4 MiB. An item larger than a batch goes alone."""

    async def scenario(attempts: Attempts, _: AsyncEngine) -> None:
        by_items, by_bytes = Writer(), Writer()
        await GroupCommit(attempts, by_items, max_items=10).many((n, 0) for n in range(25))
        assert max(map(len, by_items.batches)) == 10
        await GroupCommit(attempts, by_bytes, max_bytes=100).many((n, 40) for n in range(5))
        assert max(map(len, by_bytes.batches)) == 2
        assert await GroupCommit(attempts, by_bytes, max_bytes=100).one(7, 4000) == 7

    run(settings, scenario)


def test_answer_leaves_after_commit(settings: Settings, engine: Engine, table: str) -> None:
    """Promise 2: read the acknowledged row over another connection."""

    async def scenario(attempts: Attempts, web: AsyncEngine) -> None:
        queue = GroupCommit(attempts, Writer())

        async def submit_and_look(n: int) -> None:
            await queue.one(n)
            async with web.connect() as connection:
                assert (await connection.execute(text("SELECT 1 FROM written WHERE n = :n"), {"n": n})).first()

        await asyncio.gather(*(submit_and_look(n) for n in range(50)))

    run(settings, scenario)


def test_only_faulty_item_fails(settings: Settings, engine: Engine, table: str) -> None:
    """Bisect a data error: 99 items commit, one is refused; a verb's own errors are ordinary results."""

    async def scenario(attempts: Attempts, _: AsyncEngine) -> None:
        queue = GroupCommit(attempts, Writer())
        results = await queue.many((n, 0) for n in [*range(50), 5000, *range(50, 99), -1])
        assert results[:50] == list(range(50))
        assert isinstance(results[50], Unstorable)
        assert results[51:100] == list(range(50, 99))
        assert results[100] == NotFound("run", "-1")

    run(settings, scenario)
    assert written(engine) == [-1, *range(99)]


def test_blocked_item_does_not_delay_others(settings: Settings, engine: Engine, table: str) -> None:
    """Answer the item behind a locked row with 503; items behind it are unaffected."""
    quick = settings.model_copy(update={"lock_timeout_seconds": 0.2})

    under_way = asyncio.Event()

    def verb(conn: Connection, items: Sequence[int]) -> list[int]:
        under_way.set()
        conn.execute(text("SELECT n FROM written WHERE n = ANY(:n) ORDER BY n FOR UPDATE"), {"n": list(items)})
        return list(items)

    async def scenario(attempts: Attempts, _: AsyncEngine) -> None:
        queue = GroupCommit(attempts, verb)
        blocked_call = asyncio.gather(*(queue.one(n) for n in range(20)), return_exceptions=True)
        await under_way.wait()
        assert await queue.one(30) == 30
        assert not blocked_call.done(), "it waited for the blocked one"
        results = await blocked_call
        assert [n for n, result in enumerate(results) if isinstance(result, Unavailable)] == [7]
        assert [result for n, result in enumerate(results) if n != 7] == [n for n in range(20) if n != 7]

    with engine.begin() as connection:
        connection.execute(text("INSERT INTO written SELECT generate_series(0, 30)"))
    with engine.begin() as connection:
        connection.execute(text("SELECT 1 FROM written WHERE n = 7 FOR UPDATE"))
        run(quick, scenario)


class Ordered(Writer):
    """Verb that delays item 0, alone, after the database has refused a batch."""

    def __call__(self, conn: Connection, items: Sequence[int]) -> list[int | CoordinatorError]:
        if list(items) == [0]:
            conn.execute(text("SELECT pg_sleep(0.3)"))
        return super().__call__(conn, items)


def committed_around(settings: Settings, engine: Engine, faulty: int) -> list[int]:
    """Return numbers in the order of their commits: nine of one request, one of them refused, and 7 to 9 of another."""

    async def scenario(attempts: Attempts, _: AsyncEngine) -> None:
        queue = GroupCommit(attempts, Ordered(), max_items=4)
        items = [0, 10, 20, 30, 40, 50, 60, 70, 80]
        items[faulty] = 5000
        request = asyncio.create_task(queue.many((n, 0) for n in items))
        others = asyncio.create_task(queue.many((n, 0) for n in (7, 8, 9)))
        results = await request
        assert [n for n, result in zip(items, results, strict=True) if result != n] == [5000]
        assert await others == [7, 8, 9]

    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE written (n int PRIMARY KEY CHECK (n < 1000), place serial)"))
    run(settings, scenario)
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT n FROM written ORDER BY place")).scalars())


@pytest.mark.parametrize("faulty", [1, 2, 3])
def test_items_of_request_commit_in_order_despite_bisection(settings: Settings, engine: Engine, faulty: int) -> None:
    """Hold the request's later batches and halves until the faulty item is done; items of others go on."""
    stored = committed_around(settings, engine, faulty)
    own = [n for n in stored if n % 10 == 0]
    assert len(own) == 8
    assert own == sorted(own)
    assert stored.index(7) < stored.index(0), "another request's items waited"


def test_check_notices_batches_that_overtake_bisected_one(
    settings: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "_requests", lambda _: set())
    own = [n for n in committed_around(settings, engine, 3) if n % 10 == 0]
    assert own != sorted(own)


def test_lost_connection_repeats_same_items_once(settings: Settings, engine: Engine, table: str) -> None:
    """Use pg_terminate_backend in the middle: the batch is repeated unnoticed."""

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


def test_item_of_cancelled_request_still_commits(settings: Settings, engine: Engine, table: str) -> None:
    """Commit although the request is cancelled: its item may be unacknowledged, but is not lost."""

    async def scenario(attempts: Attempts, _: AsyncEngine) -> None:
        queue = GroupCommit(attempts, Writer())
        leaving = asyncio.create_task(queue.one(1))
        staying = asyncio.create_task(queue.one(2))
        await asyncio.sleep(0)
        leaving.cancel()
        assert await staying == 2

    run(settings, scenario)
    assert written(engine) == [1, 2]


def test_bug_in_verb_reaches_its_callers_only(settings: Settings, table: str) -> None:
    """Go on with the queue after any exception."""

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


def test_verb_that_loses_result_fails_its_whole_batch(settings: Settings, table: str) -> None:
    """Join results by ordinal: one too few is an error for all, and the queue goes on."""

    def verb(_: Connection, items: Sequence[int]) -> list[int]:
        return list(items)[1:] if len(items) > 1 else list(items)

    async def scenario(attempts: Attempts, _: AsyncEngine) -> None:
        queue = GroupCommit(attempts, verb)
        with pytest.raises(RuntimeError):
            await queue.many((n, 0) for n in range(3))
        assert await queue.one(7) == 7

    run(settings, scenario)


def test_notifier_is_called_after_each_commit_with_results(settings: Settings, table: str) -> None:
    """Notify after commits, never after failures."""
    told: list[Sequence[Any]] = []

    async def scenario(attempts: Attempts, _: AsyncEngine) -> None:
        queue = GroupCommit(attempts, Writer(), after=lambda _, results: told.append(results))
        await queue.one(1)
        await queue.one(5000)

    run(settings, scenario)
    assert told == [[1]]


def test_absent_postgres_is_unavailable_soon(settings: Settings) -> None:
    """Raise Unavailable after one repeat of a refused connection."""
    nowhere = settings.model_copy(update={"database_url": "postgresql+psycopg://x:y@127.0.0.1:9/z"})

    async def scenario(attempts: Attempts, _: AsyncEngine) -> None:
        with pytest.raises(Unavailable):
            await GroupCommit(attempts, Writer()).one(1)
        with pytest.raises(Unavailable):
            await attempts.read(lambda connection: connection.execute(text("SELECT 1")).scalar_one())

    run(nowhere, scenario)


def test_retried_call_is_repeated_until_postgres_is_back(settings: Settings, table: str) -> None:
    """Keep a report, which a runner sends once, through a short outage."""
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


def test_retried_call_gives_up_at_shutdown(settings: Settings) -> None:
    """Answer 503 to reports that outlast the drain."""
    asked, over = asyncio.Event(), asyncio.Event()

    async def call() -> str:
        asked.set()
        raise Unavailable

    async def scenario() -> None:
        waiting = asyncio.create_task(retry_until(call, 600, over))
        await asked.wait()
        over.set()
        with pytest.raises(Unavailable):
            await asyncio.wait_for(waiting, 30)

    asyncio.run(scenario())
