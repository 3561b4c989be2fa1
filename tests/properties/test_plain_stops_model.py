"""Compare the statements of plain stops with the verbs: all states and callers, all pairs of the rest of one state."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from itertools import combinations, product
from typing import Any

import pytest
from sqlalchemy import Connection, Engine

from models.core.plain import NOT_PLAIN
from models.core.statuses import RunStatus
from models.runs.stop import StopRun, StopSession, stop_runs, stop_sessions
from models.runs.stop_plain import stop_plain_runs, stop_plain_sessions
from models.schema.sql import sql
from tests.properties.plain_report_cases import CALLERS, OTHERS, Case, build
from tests.properties.test_plain_reports_model import BATCH, TABLES, history

DRAWN = (
    *("next", "runner", "process", "stop", "session_parent", "timeout", "earlier", "session_status", "last_outcome"),
    *("bound", "owner", "claimed_by"),
)
MOVING = {"stop_id", "deadline_at"}
# Properties that leave a stop plain, whatever their value.
HARMLESS = set(DRAWN) - {"next", "stop", "bound"}
KINDS: dict[str, tuple[Callable[..., Any], Callable[..., Any], Callable[[Any, int], Any]]] = {
    "session": (stop_plain_sessions, stop_sessions, lambda caller, place: StopSession(caller, f"s{place}")),
    "run": (stop_plain_runs, stop_runs, lambda caller, place: StopRun(caller, f"run{place}")),
}


def cases() -> Iterator[Case]:
    for status, behind, caller in product(RunStatus, ("none", *OTHERS["next"]), CALLERS):
        yield Case(status, next=behind, caller=caller)
    values = [(name, value) for name in DRAWN for value in OTHERS[name]]
    for status, caller, (name, value) in product((RunStatus.CLAIMED, RunStatus.RUNNING), CALLERS, values):
        yield replace(Case(status, caller=caller), **{name: value})
    for (one, first), (other, second) in combinations(values, 2):
        if one != other:
            yield replace(Case(RunStatus.RUNNING), **{one: first, other: second})


def is_plain_for_certain(case: Case) -> bool:
    if case.status not in {RunStatus.CLAIMED, RunStatus.RUNNING} or case.caller != "admin":
        return False
    default = Case(case.status)
    return {
        field.name for field in fields(Case) if getattr(case, field.name) != getattr(default, field.name)
    } <= HARMLESS


def state(conn: Connection) -> dict[Any, Any]:
    """Return all rows; of stops without their numbers, and the moments of the wall clock at which they are given up."""
    found: dict[Any, Any] = {}
    for table, key in TABLES.items():
        for row in conn.execute(sql("SELECT $key AS key, to_jsonb(t) AS columns FROM $table t", key=key, table=table)):
            found[table, row.key] = {name: value for name, value in row.columns.items() if name not in MOVING}
    return found


def assert_equal(conn: Connection, kind: str, batch: Sequence[Case]) -> list[bool]:
    """Require the statement to do to the items that it answers what the verb does; return which it answered."""
    build(conn, batch)
    plainly, verb, item = KINDS[kind]
    items = [item(CALLERS[case.caller], place) for place, case in enumerate(batch)]
    with conn.begin_nested() as savepoint:
        results = plainly(conn, items)
        after, told = state(conn), history(conn)
        savepoint.rollback()
    plain = [place for place, result in enumerate(results) if result is not NOT_PLAIN]
    with conn.begin_nested() as savepoint:
        expected = verb(conn, [items[place] for place in plain])
        wanted, telling = state(conn), history(conn)
        savepoint.rollback()
    for place, result in zip(plain, expected, strict=True):
        assert results[place] == result, batch[place]
        assert results[place].runner_to_notify == result.runner_to_notify, batch[place]
    for key, row in wanted.items():
        place = int("".join(filter(str.isdigit, key[1])) or 0)
        assert after[key] == row, batch[place]
    assert after.keys() == wanted.keys()
    assert told == telling
    return [result is not NOT_PLAIN for result in results]


@pytest.mark.parametrize("kind", KINDS)
def test_plain_statement_does_what_the_verb_does(engine: Engine, kind: str) -> None:
    """Answer the cases that are plain for certain, and do as the verb for all that are answered."""
    every = list(dict.fromkeys(cases()))
    answered = 0
    for begin in range(0, len(every), BATCH):
        batch = every[begin : begin + BATCH]
        with engine.connect() as conn:
            plain = assert_equal(conn, kind, batch)
            conn.rollback()
        answered += sum(plain)
        missing = [case for case, is_plain in zip(batch, plain, strict=True) if is_plain_for_certain(case) > is_plain]
        assert not missing
    assert answered > len(every) / 5
