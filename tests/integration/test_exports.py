"""Export a file for the replaced coordinator, and import it again into an empty database."""

import errno
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from models.transfer.export import Exported, export_history
from models.transfer.new_file import Written, write_file
from runtime.postgres import snapshot
from tests.support.db_verbs import DbVerbs
from tests.support.numbering import assert_dense
from tests.support.old_database import OldDatabase, at, imported, refusals
from tests.support.reports import accepted, running
from tests.support.retention import grow_old, result, retire


def exported(db: DbVerbs, path: Path) -> Written:
    with snapshot(db.engine) as connection:
        return write_file(path, export_history(connection))


def rows_of(path: Path) -> dict[str, list[Any]]:
    """Return the rows of the three tables, without the ids of events."""
    queries = {
        "sessions": "SELECT * FROM sessions ORDER BY session_id",
        "runs": "SELECT * FROM runs ORDER BY run_id",
        "events": "SELECT * FROM events ORDER BY session_id, id",
    }
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        found = {name: [dict(row) for row in connection.execute(query)] for name, query in queries.items()}
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    for row in found["events"]:
        del row["id"]
    return found


def empty(db: DbVerbs) -> None:
    for table in ("events", "unnumbered_batches", "kept_results", "runs", "sessions"):
        db.rows(f"DELETE FROM {table}")
    db.rows("UPDATE feed_head SET last_pos = 0, floor = 0")


def test_exported_file_is_imported_as_it_was(db: DbVerbs, tmp_path: Path) -> None:
    """Export a history of ours, import it, export that: both files hold the same."""
    run = running(db, agent_name="writer", project_dir="/p", scope='{"team":"sky"}')
    result(db, run.session_id, "done \0 \ud800")
    accepted(db, run, "completed")
    accepted(db, running(db), "failed", error="no luck")
    db.start(session_id="waits")
    assert_dense(db)
    first = exported(db, tmp_path / "first.db")
    assert (first.sessions, first.runs, first.events) == (3, 3, db.count("events", "kind = 'event'"))
    empty(db)
    report = imported(db.engine, tmp_path / "first.db")
    assert (report.sessions, report.runs, report.events, refusals(report)) == (3, 3, first.events, {})
    assert_dense(db)
    assert exported(db, tmp_path / "second.db") == first
    before, after = rows_of(tmp_path / "first.db"), rows_of(tmp_path / "second.db")
    # Ordered by their timestamps there, and by the feed here.
    assert sorted(after.pop("events"), key=str) == sorted(before.pop("events"), key=str)
    assert after == before


def test_imported_file_is_exported_as_it_was(db: DbVerbs, tmp_path: Path) -> None:
    old = OldDatabase(tmp_path / "old.db")
    old.session(agent_name="writer", hostname="h", last_resumed_at=at(2))
    old.session("child", parent_session_id="ses_0123456789ab")
    old.run(
        "run_a",
        demands='{"executor_type":"autonomous","tags":["gpu"]}',
        scope='{"a": 1}',
        resolved_agent_blueprint='{"name": "a"}',
    )
    old.event(tool_name="bash", tool_input='{"a": 1}', tool_output='"text"', exit_code=3, reason="r", role="user")
    old.event(timestamp=at(4), event_type="result", result_text="t", result_data='{"n": null}', content="[]")
    imported(db.engine, old)
    exported(db, tmp_path / "new.db")
    before, after = rows_of(old.path), rows_of(tmp_path / "new.db")
    assert after["sessions"] == before["sessions"]
    assert after["runs"] == before["runs"]
    before["events"][1]["content"] = None
    assert after["events"] == before["events"]


def test_unnumbered_events_and_kept_results_are_exported(db: DbVerbs, tmp_path: Path) -> None:
    run = running(db)
    result(db, run.session_id, "kept")
    assert_dense(db)
    grow_old(db)
    retire(db)
    accepted(db, run, "completed")
    exported(db, tmp_path / "new.db")
    events = rows_of(tmp_path / "new.db")["events"]
    assert [event["event_type"] for event in events] == ["result", "run_completed"]
    assert json.loads(events[0]["result_data"]) == {"said": "kept"}


def test_existing_file_is_not_overwritten(db: DbVerbs, tmp_path: Path) -> None:
    path = tmp_path / "there.db"
    path.write_text("mine")
    with pytest.raises(FileExistsError):
        exported(db, path)
    assert path.read_text() == "mine"
    assert [found.name for found in tmp_path.iterdir()] == ["there.db"]


def test_number_that_no_float_holds_is_exported_as_text(db: DbVerbs, tmp_path: Path) -> None:
    """Write it as imports accept it: events that came before they refused such numbers may hold one."""
    run = running(db)
    result(db, run.session_id, "done")
    assert_dense(db)
    frame = '{"data": {"session_id": "s", "event_type": "message", "timestamp": "t", "content": [1e400, -1e400]}}'
    db.rows(f"UPDATE events SET frame = '{frame}' WHERE event_type = 'result'")
    exported(db, tmp_path / "new.db")
    (row,) = [row for row in rows_of(tmp_path / "new.db")["events"] if row["event_type"] == "message"]
    assert json.loads(row["content"]) == ["1e400", "-1e400"]
    empty(db)
    assert refusals(imported(db.engine, tmp_path / "new.db")) == {}


def without_links(*_: object) -> None:
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def test_file_is_written_where_there_are_no_hard_links(
    db: DbVerbs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", without_links)
    db.start(session_id="one")
    assert exported(db, tmp_path / "new.db").sessions == 1
    assert [row["session_id"] for row in rows_of(tmp_path / "new.db")["sessions"]] == ["one"]
    assert [found.name for found in tmp_path.iterdir()] == ["new.db"]
    assert (tmp_path / "new.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("links", [True, False])
def test_file_that_appears_meanwhile_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", without_links)
    path = tmp_path / "there.db"

    def pages() -> Iterator[Exported]:
        path.write_text("mine")
        yield from ()

    with pytest.raises(FileExistsError):
        write_file(path, pages())
    assert path.read_text() == "mine"
    assert [found.name for found in tmp_path.iterdir()] == ["there.db"]


def test_name_is_free_again_when_the_file_cannot_be_moved_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", without_links)
    monkeypatch.setattr(Path, "replace", without_links)
    with pytest.raises(PermissionError):
        write_file(tmp_path / "new.db", [])
    assert list(tmp_path.iterdir()) == []


def test_export_sees_one_moment(db: DbVerbs, tmp_path: Path) -> None:
    """Delete and add sessions while a page is written."""
    db.start(session_id="before")
    with snapshot(db.engine) as connection:
        pages = export_history(connection)
        first = next(pages)
        db.start(session_id="later")
        db.rows("DELETE FROM unnumbered_batches")
        assert [row[0] for row in first.sessions] == ["before"]
        assert list(first.events) == []
        assert list(pages) == []
    write_file(tmp_path / "empty.db", [])
    assert (tmp_path / "empty.db").stat().st_mode & 0o777 == 0o600
