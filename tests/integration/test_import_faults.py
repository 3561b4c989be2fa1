"""Rows that cannot be stored: each refuses its session with the reason, and no other one."""

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.transfer import old_file
from models.transfer.old_file import UnreadableFile, open_old_file
from tests.support.db_verbs import DbVerbs
from tests.support.numbering import assert_dense
from tests.support.old_database import OldDatabase, at, imported, refusals

GOOD, BAD = "ses_good", "ses_bad"
DEEP = "[" * 5000 + "]" * 5000

FAULTS: list[tuple[str, Mapping[str, object], str]] = [
    ("sessions", {"session_id": "a/b"}, "bad_id"),
    ("sessions", {"session_id": None}, "bad_id"),
    ("sessions", {"session_id": b"\xff"}, "bad_id"),
    ("sessions", {"session_id": ".."}, "bad_id"),
    ("sessions", {"status": "lost"}, "unknown_status"),
    ("sessions", {"status": None}, "unknown_status"),
    ("sessions", {"created_at": None}, "missing_value"),
    ("sessions", {"created_at": "yesterday"}, "bad_time"),
    ("sessions", {"created_at": "0001-01-01T00:00:00+23:00"}, "bad_time"),
    ("sessions", {"agent_name": "a\0b"}, "nul"),
    ("sessions", {"hostname": b"bytes"}, "not_text"),
    ("sessions", {"project_dir": "x" * 1025}, "too_long"),
    ("runs", {"run_id": None}, "bad_id"),
    ("runs", {"run_id": "run 1"}, "bad_id"),
    ("runs", {"status": "lost"}, "unknown_status"),
    ("runs", {"type": "restart"}, "unknown_type"),
    ("runs", {"execution_mode": None}, "unknown_type"),
    ("runs", {"parameters": None}, "missing_value"),
    ("runs", {"parameters": "{"}, "bad_json"),
    ("runs", {"parameters": "[]"}, "bad_json"),
    ("runs", {"parameters": '{"a": NaN}'}, "bad_json"),
    ("runs", {"parameters": '{"a": 1e400}'}, "bad_json"),
    ("runs", {"parameters": '{"prompt": "\\u0000"}'}, "nul"),
    ("runs", {"parameters": '{"prompt": "\\ud800"}'}, "not_utf8"),
    ("runs", {"parameters": b"{}"}, "not_text"),
    ("runs", {"parameters": json.dumps({"prompt": "x" * 300_000})}, "too_large"),
    ("runs", {"scope": '"text"'}, "bad_json"),
    ("runs", {"resolved_agent_blueprint": "[]"}, "bad_json"),
    ("runs", {"demands": '{"tags": "gpu"}'}, "bad_demands"),
    ("runs", {"demands": '{"hostname": 5}'}, "bad_demands"),
    ("runs", {"completed_at": "soon"}, "bad_time"),
    ("events", {"event_type": None}, "missing_value"),
    ("events", {"event_type": "x" * 65}, "too_long"),
    ("events", {"event_type": "a\0"}, "nul"),
    ("events", {"timestamp": None}, "missing_value"),
    ("events", {"content": "{'a': 1}"}, "bad_json"),
    ("events", {"content": "[Infinity]"}, "bad_json"),
    ("events", {"content": "[1e400]"}, "bad_json"),
    ("events", {"tool_output": '["\\ud800", -1e400]'}, "bad_json"),
    ("events", {"tool_output": DEEP}, "bad_json"),
    ("events", {"tool_input": b"{}"}, "not_text"),
    ("events", {"error": b"\x00\xff"}, "not_text"),
]


@pytest.fixture
def old(tmp_path: Path) -> OldDatabase:
    return OldDatabase(tmp_path / "observability.db")


def add(old: OldDatabase, session_id: object, run_id: object, **values: Mapping[str, object]) -> None:
    """Add a session with a run and an event, each with the values of its table."""
    session: dict[str, Any] = {"session_id": session_id} | dict(values.get("sessions", {}))
    run: dict[str, Any] = {"run_id": run_id, "session_id": session["session_id"]} | dict(values.get("runs", {}))
    event: dict[str, Any] = {"session_id": session["session_id"]} | dict(values.get("events", {}))
    old.session(**session)
    old.run(**run)
    old.event(**event)


def test_each_fault_refuses_its_session_with_the_reason(old: OldDatabase, db: DbVerbs) -> None:
    """Put all faults into one file, beside a session that comes."""
    add(old, GOOD, "run_good")
    for number, (table, values, _) in enumerate(FAULTS):
        add(old, f"{BAD}{number}", f"run_{number}", **{table: values})
    report = imported(db.engine, old)
    expected: dict[tuple[str, str], int] = {}
    for _, _, reason in FAULTS:
        expected["session", reason] = expected.get(("session", reason), 0) + 1
    # Rows with session_id NULL are of no session, also where a session has none.
    strays = {("run", "no_session"): 1, ("event", "no_session"): 1}
    assert refusals(report) == expected | strays
    assert (report.sessions, report.runs, report.events) == (1, 1, 1)
    assert [db.count(table) for table in ("sessions", "runs")] == [1, 1]
    assert_dense(db)


def test_text_that_is_not_utf8_refuses_its_session(old: OldDatabase, db: DbVerbs) -> None:
    for number, (table, column) in enumerate(
        (("sessions", "agent_name"), ("runs", "error"), ("events", "result_text"))
    ):
        add(old, f"{BAD}{number}", f"run_{number}")
        old.execute(f"UPDATE {table} SET {column} = CAST(x'ff61' AS TEXT) WHERE session_id = ?", f"{BAD}{number}")
    assert refusals(imported(db.engine, old)) == {("session", "not_utf8"): 3}


@pytest.mark.parametrize("most", [4000, 1])
def test_id_that_is_not_utf8_refuses_its_session(
    old: OldDatabase, db: DbVerbs, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """Put it into all three tables, also where its events do not fit into memory."""
    monkeypatch.setattr(old_file, "MOST_EVENTS", most)
    for number in range(3):
        add(old, f"ses_{number}", f"run_{number}")
    old.event("ses_1")
    old.session("child", parent_session_id="ses_1")
    for table in ("events", "runs", "sessions"):
        old.execute(f"UPDATE {table} SET session_id = CAST(x'61ff' AS TEXT) WHERE session_id = 'ses_1'")
    old.execute("UPDATE sessions SET parent_session_id = CAST(x'61ff' AS TEXT) WHERE session_id = 'child'")
    report = imported(db.engine, old)
    assert (report.sessions, report.runs, report.events) == (3, 2, 2)
    assert refusals(report) == {("session", "bad_id"): 1}


def test_rows_without_their_session_are_reported(old: OldDatabase, db: DbVerbs) -> None:
    old.run("run_1", "ses_gone")
    for _ in range(3):
        old.event("ses_gone")
    old.event("ses_other")
    report = imported(db.engine, old)
    assert refusals(report) == {("run", "no_session"): 1, ("event", "no_session"): 4}


def test_examples_of_a_reason_are_bounded_and_printable(old: OldDatabase, db: DbVerbs) -> None:
    for number in range(9):
        add(old, f"{BAD}{number}", f"run_{number}", sessions={"status": "\x1b[31m" + "x" * 10_000})
    (refused,) = imported(db.engine, old).refused.values()
    assert (refused.rows, len(refused.examples)) == (9, 5)
    assert all(example.detail.isprintable() and len(example.detail) < 120 for example in refused.examples)


def test_odd_but_storable_values_come(old: OldDatabase, db: DbVerbs) -> None:
    """Take times without offset as UTC, columns of events as they are, and an end without its time as at its start."""
    add(
        old,
        GOOD,
        "run_good",
        sessions={"created_at": "2025-01-02 03:04:05"},
        runs={
            "completed_at": None,
            "error": "a",
            "demands": "{}",
            "parameters": '{"n": 123456789012345678901234567890}',
        },
        events={"timestamp": "t", "content": '"\\ud800"', "reason": "a\0b", "exit_code": "seven"},
    )
    report = imported(db.engine, old)
    assert (report.sessions, refusals(report)) == (1, {})
    assert db.one("SELECT created_at = TIMESTAMPTZ '2025-01-02T03:04:05Z' FROM sessions") is True
    assert db.one("SELECT completed_at = started_at FROM runs") is True
    frame = json.loads(db.one("SELECT CAST(frame AS text) FROM events WHERE kind = 'event'"))["data"]
    assert (frame["content"], frame["reason"], frame["exit_code"], frame["timestamp"]) == (
        "\ud800",
        "a\0b",
        "seven",
        "t",
    )


@pytest.mark.parametrize("content", [b"", b"x" * 5000, b"SQLite format 3\0" + b"\1" * 5000])
def test_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.db"
    path.write_bytes(content)
    with pytest.raises(UnreadableFile), open_old_file(path):
        pass


def test_file_without_a_table_or_column_is_refused(old: OldDatabase) -> None:
    old.execute("ALTER TABLE runs DROP COLUMN parameters")
    with pytest.raises(UnreadableFile, match="no column parameters in table runs"), open_old_file(old.path):
        pass
    old.execute("DROP TABLE sessions")
    with pytest.raises(UnreadableFile, match="no table sessions"), open_old_file(old.path):
        pass


def test_file_in_use_is_read_as_of_one_moment(old: OldDatabase, db: DbVerbs) -> None:
    """Write in WAL mode while it is read: the log counts up to the beginning, and the directory stays as it was."""
    old.fill(2, 1)
    with closing(sqlite3.connect(old.path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(
            "INSERT INTO sessions (session_id, status, created_at) VALUES ('ses_wal', 'idle', ?)", (at(1),)
        )
        connection.commit()
        with open_old_file(old.path) as file:
            groups = file.groups()
            connection.execute("DELETE FROM sessions")
            connection.commit()
            assert sum(len(group.sessions) for group in groups) == 3
    assert not Path(f"{old.path}-wal").exists()
    assert imported(db.engine, old).sessions == 0
    assert [path.name for path in old.path.parent.iterdir()] == [old.path.name]


def test_file_in_use_is_read_through_a_link(old: OldDatabase, db: DbVerbs, tmp_path: Path) -> None:
    """Follow the link to the log, which is beside the file itself."""
    old.fill(1, 1)
    link = tmp_path / "elsewhere" / "link.db"
    link.parent.mkdir()
    link.symlink_to(old.path)
    with closing(sqlite3.connect(old.path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("UPDATE sessions SET agent_name = 'changed since'")
        connection.execute(
            "INSERT INTO sessions (session_id, status, created_at) VALUES ('ses_wal', 'idle', ?)", (at(1),)
        )
        connection.commit()
        assert imported(db.engine, link).sessions == 2
    assert db.one("SELECT agent_name FROM sessions WHERE session_id <> 'ses_wal'") == "changed since"
    assert [path.name for path in link.parent.iterdir()] == [link.name]


def test_write_that_was_cut_off_is_named_through_a_link(old: OldDatabase, tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(old.path)
    Path(f"{old.path}-journal").touch()
    old.path.write_bytes(old.path.read_bytes()[:100] + b"\1" * 5000)
    with pytest.raises(UnreadableFile, match="a write was cut off"), open_old_file(link):
        pass


texts = st.one_of(st.none(), st.text(max_size=5), st.binary(max_size=3), st.integers(-(2**63), 2**63 - 1), st.floats())
json_texts = st.one_of(st.sampled_from(["{}", "[]", "{", '{"a":1}', '"\\ud800"', '{"a":"\\u0000"}', "1e400"]), texts)
odd_sessions = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("agent_name", "last_resumed_at", "parent_session_id", "status", "hostname"), texts)
)
odd_runs = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("error", "runner_id", "claimed_at", "status", "completed_at"), texts)
    | dict.fromkeys(("parameters", "demands", "scope"), json_texts),
)
odd_events = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("event_type", "timestamp", "error", "exit_code", "role", "result_text"), texts)
    | dict.fromkeys(("content", "tool_input", "result_data"), json_texts),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(odd_sessions, odd_runs, odd_events)
def test_any_row_comes_or_is_refused(
    tmp_path: Path, db: DbVerbs, session: dict[str, Any], run: dict[str, Any], event: dict[str, Any]
) -> None:
    """Import odd values: the report accounts for every session, and a repeat changes nothing."""
    path = tmp_path / "odd.db"
    path.unlink(missing_ok=True)
    for table in ("events", "runs", "sessions"):
        db.rows(f"DELETE FROM {table}")
    old = OldDatabase(path)
    for number in range(2):
        add(
            old,
            f"ses_{number}",
            f"run_{number}",
            **({"sessions": session, "runs": run, "events": event} if number else {}),
        )
    report = imported(db.engine, old)
    assert report.sessions + sum(refusals(report).values()) == 2
    assert db.count("sessions") == report.sessions
    again = imported(db.engine, old)
    assert (again.sessions, again.already_there, refusals(again)) == (0, report.sessions, refusals(report))
