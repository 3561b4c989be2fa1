"""Group commit with a statement of the plain case in front of the verb: each item is applied once, by one of both."""

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.writes.attempts import Attempts, Unavailable
from app.writes.group_commit import GroupCommit
from models.core.errors import CoordinatorError, NotFound, Unstorable
from models.core.plain import NOT_PLAIN, NotPlain
from runtime.settings import Settings
from tests.support.batches import run

INSERT = text("INSERT INTO written SELECT n, :how FROM unnest(CAST(:items AS int[])) AS n ON CONFLICT DO NOTHING")


class EvenPlainly:
    """Statement that writes the even numbers that are not written yet, and remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __call__(self, conn: Connection, items: Sequence[int]) -> list[int | CoordinatorError | NotPlain]:
        self.batches.append(list(items))
        rows = conn.execute(
            text("""
                INSERT INTO written SELECT n, 'plain' FROM unnest(CAST(:items AS int[])) AS n WHERE n % 2 = 0
                ON CONFLICT DO NOTHING RETURNING n
            """),
            {"items": list(items)},
        )
        done = set(rows.scalars())
        return [n if n in done else NOT_PLAIN for n in items]


class Rest:
    """Verb that writes any number once, and remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __call__(self, conn: Connection, items: Sequence[int]) -> list[int | CoordinatorError]:
        self.batches.append(list(items))
        conn.execute(INSERT, {"items": list(items), "how": "verb"})
        return [NotFound("run", str(n)) if n < 0 else n for n in items]


@pytest.fixture
def table(engine: Engine) -> str:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE written (n int PRIMARY KEY CHECK (n < 1000), how text NOT NULL)"))
    return "written"


def written(engine: Engine) -> dict[int, str]:
    with engine.connect() as connection:
        return {row.n: row.how for row in connection.execute(text("SELECT n, how FROM written"))}


def test_verb_applies_what_statement_left(settings: Settings, engine: Engine, table: str) -> None:
    plain, rest = EvenPlainly(), Rest()
    told: list[Sequence[Any]] = []

    async def scenario(attempts: Attempts, _: AsyncEngine) -> None:
        queue = GroupCommit(attempts, rest, plain=plain, after=lambda _, results: told.append(results))
        assert await queue.many((n, 0) for n in [2, 1, 4, -1, 6]) == [2, 1, 4, NotFound("run", "-1"), 6]

    run(settings, scenario)
    assert plain.batches == [[2, 1, 4, -1, 6]]
    assert rest.batches == [[1, -1]]
    assert told == [[2, 4, 6], [1, NotFound("run", "-1")]]
    assert written(engine) == {2: "plain", 4: "plain", 6: "plain", 1: "verb", -1: "verb"}


def test_batch_of_plain_items_opens_no_transaction(settings: Settings, table: str) -> None:
    rest = Rest()

    async def scenario(attempts: Attempts, _: AsyncEngine) -> None:
        assert await GroupCommit(attempts, rest, plain=EvenPlainly()).many((n, 0) for n in [2, 4]) == [2, 4]

    run(settings, scenario)
    assert rest.batches == []


def test_faulty_item_among_plain_ones_fails_alone(settings: Settings, engine: Engine, table: str) -> None:
    """Leave the whole batch to the verb, which finds the item by bisection, when the statement fails."""
    plain, rest = EvenPlainly(), Rest()

    async def scenario(attempts: Attempts, _: AsyncEngine) -> None:
        queue = GroupCommit(attempts, rest, plain=plain)
        results = await queue.many((n, 0) for n in [2, 1, 5000, 4])
        assert [results[0], results[1], results[3]] == [2, 1, 4]
        assert isinstance(results[2], Unstorable)
        assert isinstance(await queue.one(6000), Unstorable)
        assert await queue.one(6) == 6

    run(settings, scenario)
    assert plain.batches == [[2, 1, 5000, 4], [6000], [6]]
    assert written(engine) == {2: "verb", 1: "verb", 4: "verb", 6: "plain"}


def test_faulty_item_among_rest_leaves_plain_ones_committed(settings: Settings, engine: Engine, table: str) -> None:
    rest = Rest()

    async def scenario(attempts: Attempts, _: AsyncEngine) -> None:
        results = await GroupCommit(attempts, rest, plain=EvenPlainly()).many((n, 0) for n in [2, 1, 5001, 3, 4])
        assert [results[0], results[1], *results[3:]] == [2, 1, 3, 4]
        assert isinstance(results[2], Unstorable)

    run(settings, scenario)
    assert rest.batches[0] == [1, 5001, 3]
    assert written(engine) == {2: "plain", 4: "plain", 1: "verb", 3: "verb"}


def test_verb_answers_item_whose_plain_commit_was_not_heard_of(settings: Settings, engine: Engine, table: str) -> None:
    """Lose the connection behind the statement's own commit: the repeat finds nothing plain to do."""
    plain, rest = EvenPlainly(), Rest()

    def dying(conn: Connection, items: Sequence[int]) -> list[int | CoordinatorError | NotPlain]:
        results = plain(conn, items)
        if len(plain.batches) == 1:
            conn.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        return results

    async def scenario(attempts: Attempts, _: AsyncEngine) -> None:
        assert await GroupCommit(attempts, rest, plain=dying).many((n, 0) for n in [2, 3]) == [2, 3]

    run(settings, scenario)
    assert plain.batches == [[2, 3], [2, 3]]
    assert rest.batches == [[2, 3]]
    assert written(engine) == {2: "plain", 3: "verb"}


def test_lone_item_waits_for_locked_row_once(settings: Settings, engine: Engine, table: str) -> None:
    quick = settings.model_copy(update={"lock_timeout_seconds": 0.2})
    rest = Rest()

    def blocked(conn: Connection, items: Sequence[int]) -> list[int | CoordinatorError | NotPlain]:
        conn.execute(text("SELECT n FROM written WHERE n = ANY(:n) FOR UPDATE"), {"n": list(items)})
        return list(items)

    async def scenario(attempts: Attempts, _: AsyncEngine) -> None:
        with pytest.raises(Unavailable):
            await GroupCommit(attempts, rest, plain=blocked).one(2)

    with engine.begin() as connection:
        connection.execute(text("INSERT INTO written VALUES (2, 'before')"))
    with engine.begin() as connection:
        connection.execute(text("SELECT 1 FROM written WHERE n = 2 FOR UPDATE"))
        run(quick, scenario)
    assert rest.batches == []


def test_bug_in_statement_reaches_its_callers_only(settings: Settings, table: str) -> None:
    rest = Rest()

    def plain(_: Connection, items: Sequence[int]) -> list[int | CoordinatorError | NotPlain]:
        if 7 in items:
            raise ZeroDivisionError
        return [NOT_PLAIN for _ in items]

    async def scenario(attempts: Attempts, _: AsyncEngine) -> None:
        queue = GroupCommit(attempts, rest, plain=plain)
        with pytest.raises(ZeroDivisionError):
            await queue.one(7)
        assert await queue.one(9) == 9

    run(settings, scenario)
    assert rest.batches == [[9]]
