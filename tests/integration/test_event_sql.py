"""Frames that one statement builds: the same text as those that are built in Python."""

from dataclasses import replace

from sqlalchemy import text

from models.schema.sql import sql
from models.state.event_sql import (
    RECORDED,
    run_failed_frame,
    run_updated_frame,
    session_event_frame,
    session_frame,
)
from models.state.events_outbox import run_failed, run_updated, session_event, session_updated
from models.state.locked_rows import LOCKED_RUN_COLUMNS_OF_R, as_locked_run
from models.state.sessions import SESSION_COLUMNS_OF_S, as_session
from testkit.recorded_events import RECORDED_EVENTS
from tests.support.db_verbs import DbVerbs
from tests.support.reports import accepted, running

AWKWARD = (
    'quote " backslash \\ newline \n tab \t bell \x07 line separator \u2028 umlaut ü lightning ⚡ emoji 😀 </script>'
)


def test_run_frames_are_built_alike(db: DbVerbs) -> None:
    run = running(db)
    accepted(db, run, "failed", error=AWKWARD)
    expressions = {name: f"r.{name}" for name in ("run_id", "session_id", "status", "runner_id", "attempt", "error")}
    failed = run_failed_frame(run_id="r.run_id", session_id="r.session_id", error="r.error")
    event = session_event_frame(
        event_type="'run_completed'", session_id="r.session_id", moment="r.completed_at", exit_code="0", reason="'done'"
    )
    frames = f"{run_updated_frame(**expressions)}, {failed}, {event}"
    with db.engine.connect() as connection:
        *columns, built, built_failed, built_event = connection.execute(
            sql("SELECT $columns, $frames FROM runs r", columns=LOCKED_RUN_COLUMNS_OF_R, frames=frames)
        ).one()
    row = as_locked_run(columns)
    assert built == run_updated(row).frame
    assert built_failed == run_failed(row).frame
    assert built_event == session_event(row, "run_completed", row.completed_at, exit_code=0, reason="done").frame


def test_session_frames_are_built_alike(db: DbVerbs) -> None:
    run = running(db)
    with db.engine.begin() as connection:
        values = {"id": run.session_id, "dir": AWKWARD}
        connection.execute(text("UPDATE sessions SET project_dir = :dir WHERE session_id = :id"), values)
        frames = ", ".join([session_frame("s"), session_frame("s", status="'idle'")])
        *columns, built, idle = connection.execute(
            sql("SELECT $columns, $frames FROM sessions s", columns=SESSION_COLUMNS_OF_S, frames=frames)
        ).one()
    session = as_session(columns)
    assert built == session_updated(session).frame
    assert idle == session_updated(replace(session, status="idle")).frame


def test_recorded_events_keep_their_order(db: DbVerbs) -> None:
    rows = "SELECT i, 'event', 's', '{}', NULL, NULL, CAST(i AS text) FROM generate_series(9, 1, -1) i"
    named = "new_events (place, kind, session_id, frame, owner, run_id, event_type)"
    with db.engine.begin() as connection:
        connection.execute(sql("WITH $named AS ($rows), $recorded SELECT 1", named=named, rows=rows, recorded=RECORDED))
    assert [row.event_type for row in db.rows(f"SELECT event_type FROM {RECORDED_EVENTS} ORDER BY id")] == list(
        "123456789"
    )
