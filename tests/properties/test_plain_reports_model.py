"""Compare the statement of plain reports with ``report_runs``: all states, reports and tokens, all pairs of the rest."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine

from models.core.plain import NOT_PLAIN
from models.runs.report import ReportResult, report_runs
from models.runs.report_plain import report_plain_runs
from models.schema.sql import sql
from testkit.recorded_events import RECORDED_EVENTS
from tests.properties.plain_report_cases import Case, build, cases, is_plain_for_certain

MOMENTS = ("started_at", "completed_at", "last_sign_at")
BATCH = 400
TABLES = {
    "runs": "run_id",
    "sessions": "session_id",
    "child_results": "child_run_id",
    "stop_commands": "session_id",
    "audit_log": "target",
    "runners": "runner_id",
}


def state(conn: Connection, before: Mapping[Any, Any] | None = None) -> dict[Any, Any]:
    """Return all rows; of moments of the wall clock only that they are new, and of events all but their ids."""
    found: dict[Any, Any] = {}
    for table, key in TABLES.items():
        for row in conn.execute(sql("SELECT $key AS key, to_jsonb(t) AS columns FROM $table t", key=key, table=table)):
            shown = dict(row.columns)
            if before is not None:
                former = before[table, row.key]
                shown |= {name: "new" for name in MOMENTS if name in shown and shown[name] != former[name]}
            found[table, row.key] = shown
    return found


def history(conn: Connection) -> list[Any]:
    """Return the events in order, without the moments that they tell."""
    rows = conn.execute(
        sql(
            """
            SELECT kind, session_id, run_id, owner, event_type,
                regexp_replace(CAST(frame AS text), '"timestamp":"20[^"]+"', '"timestamp":"then"') AS frame
            FROM $recorded ORDER BY id
            """,
            recorded=RECORDED_EVENTS,
        )
    )
    return [tuple(row) for row in rows]


def assert_equal(conn: Connection, batch: Sequence[Case]) -> list[bool]:
    """Require the statement to do to the items that it answers what the verb does; return which it answered."""
    reports = build(conn, batch)
    before = state(conn)
    with conn.begin_nested() as savepoint:
        results = report_plain_runs(conn, reports)
        after, told = state(conn, before), history(conn)
        savepoint.rollback()
    plain = [place for place, result in enumerate(results) if result is not NOT_PLAIN]
    with conn.begin_nested() as savepoint:
        expected: list[ReportResult] = report_runs(conn, [reports[place] for place in plain])
        wanted, telling = state(conn, before), history(conn)
        savepoint.rollback()
    for place, result in zip(plain, expected, strict=True):
        assert results[place] == result, batch[place]
    for key, row in wanted.items():
        place = int("".join(filter(str.isdigit, key[1])) or 0)
        assert after[key] == row, batch[place]
    assert after.keys() == wanted.keys()
    assert told == telling
    return [result is not NOT_PLAIN for result in results]


def test_plain_statement_does_what_the_verb_does(engine: Engine) -> None:
    """Answer the cases that are plain for certain, and do as the verb for all that are answered."""
    every = list(dict.fromkeys(cases()))
    answered = 0
    for begin in range(0, len(every), BATCH):
        batch = every[begin : begin + BATCH]
        with engine.connect() as conn:
            plain = assert_equal(conn, batch)
            conn.rollback()
        answered += sum(plain)
        missing = [case for case, is_plain in zip(batch, plain, strict=True) if is_plain_for_certain(case) > is_plain]
        assert not missing
    assert answered > len(every) / 5
