"""Import a file of the replaced coordinator: what comes, how it answers over HTTP, and repeats."""

import json
from pathlib import Path
from typing import Any

import pytest

from cli.database import operator
from models.auth.audit import newest_acts
from models.core.callers import ADMIN
from models.feed.timeline import EventPage, list_events
from models.overview.rollup import roll_up
from models.runs.delete import DeleteSession, delete_sessions
from models.transfer import old_file
from models.transfer.write import NO_MATCH_SECONDS
from testkit.feed_follower import open_stream
from tests.support.db_verbs import DbVerbs
from tests.support.numbering import assert_dense
from tests.support.old_database import OldDatabase, at, imported, refusals
from tests.support.reports import accepted
from tests.support.web import WebClient

SESSION = "ses_0123456789ab"
TABLES = ("sessions", "runs", "events")
NO_AUDIT = {"sessions": "", "runs": "", "events": " WHERE kind <> 'audit'"}


@pytest.fixture
def old(tmp_path: Path) -> OldDatabase:
    return OldDatabase(tmp_path / "observability.db")


def two_results(old: OldDatabase) -> None:
    """Write a session with two runs, each with a result; times of events decide which is whose."""
    old.session(agent_name="writer", project_dir="/p", executor_profile="e", last_resumed_at=at(10))
    old.run("run_00000000000b", type="resume_session", created_at=at(10), started_at=at(11), completed_at=at(19))
    old.run("run_00000000000a", agent_name="writer", scope='{"team":"sky"}', runner_id="lnch_0123456789ab")
    old.event(timestamp=at(12), event_type="result", result_text="second", result_data='{"n": 2}')
    old.event(timestamp=at(5), event_type="result", result_text="first")
    old.event(timestamp=at(3), content='[{"type": "text", "text": "b"}]', role="assistant")
    old.event(timestamp=at(3), content='[{"type": "text", "text": "c \\u0000 \\ud800"}]')
    old.event(timestamp=at(1), event_type="run_start", exit_code=0)


def rows_of(db: DbVerbs) -> list[Any]:
    """Return all that an import writes but what is new each time."""
    return [
        db.rows("SELECT session_id, status, depth, owner, created_at, next_run FROM sessions ORDER BY session_id"),
        db.rows("SELECT run_id, status, session_seq, owner, created_at, completed_at FROM runs ORDER BY run_id"),
        db.rows(
            "SELECT session_id, kind, run_id, CAST(frame AS text) FROM events WHERE kind <> 'audit' ORDER BY session_id, id"
        ),
    ]


def test_history_is_served_with_its_ids_times_and_order(old: OldDatabase, db: DbVerbs, client: WebClient) -> None:
    two_results(old)
    report = imported(db.engine, old)
    assert (report.sessions, report.runs, report.events, refusals(report)) == (1, 2, 5, {})
    session = client.get(f"/sessions/{SESSION}").json()["session"]
    assert (session["status"], session["created_at"], session["last_resumed_at"]) == ("finished", at(0), at(10))
    assert (session["agent_name"], session["project_dir"], session["owner"]) == ("writer", "/p", None)
    events = client.get(f"/sessions/{SESSION}/events").json()["events"]
    assert [(event["event_type"], event["timestamp"], event["run_id"][-1]) for event in events] == [
        ("run_start", at(1), "a"),
        ("message", at(3), "a"),
        ("message", at(3), "a"),
        ("result", at(5), "a"),
        ("result", at(12), "b"),
    ]
    assert events[0]["exit_code"] == 0
    assert [event["content"][0]["text"] for event in events[1:3]] == ["b", "c \0 \ud800"]
    assert client.get("/runs/run_00000000000a/result").json() == {"result_text": "first", "result_data": None}
    assert client.get("/runs/run_00000000000b/result").json()["result_data"] == {"n": 2}
    assert client.get(f"/sessions/{SESSION}/result").json()["result_text"] == "second"
    runs = client.get("/runs").json()["runs"]
    assert [(run["run_id"][-1], run["created_at"], run["status"]) for run in runs] == [
        ("b", at(10), "completed"),
        ("a", at(1), "completed"),
    ]
    assert (runs[1]["runner_id"], runs[1]["completed_at"]) == ("lnch_0123456789ab", at(9))
    timeline = client.get("/runs/run_00000000000a/timeline")
    assert timeline.status_code == 200


def test_feed_has_the_history_from_its_beginning_and_goes_on(old: OldDatabase, db: DbVerbs, client: WebClient) -> None:
    """Follow from position 0: positions are dense, and what was committed before the import comes before it."""
    before = client.submit()["session_id"]
    two_results(old)
    imported(db.engine, old)
    assert_dense(db)
    epoch = db.one("SELECT epoch FROM feed_head")
    with open_stream(client.url, {"last_event_id": f"v1.{epoch}.0"}) as stream:
        messages = stream.take(7)
        client.submit(session_id="later")
        messages += stream.take(1)
    assert [message.event for message in messages] == ["session_created"] * 2 + ["event"] * 5 + ["session_created"]
    created = [json.loads(message.data)["session"] for message in messages if message.event == "session_created"]
    assert [session["session_id"] for session in created] == [before, SESSION, "later"]


def test_active_runs_are_mapped(old: OldDatabase, db: DbVerbs) -> None:
    """Claimed is pending, running failed, stopping stopped; idle sessions are finished."""
    for number, status in enumerate(("claimed", "running", "stopping", "pending", "completed")):
        session_id = old.session(f"ses_{number:012x}", "running" if number < 3 else "idle")
        values: dict[str, object] = {} if status == "completed" else {"completed_at": None}
        old.run(f"run_{number:012x}", session_id, status=status, runner_id="lnch_1", **values)
    report = imported(db.engine, old)
    found = db.rows(
        "SELECT status, error, runner_id, completed_at > now() - interval '1 hour' AS now FROM runs ORDER BY run_id"
    )
    assert [tuple(row) for row in found] == [
        ("pending", None, None, None),
        ("failed", "Coordinator restarted during execution", "lnch_1", True),
        ("stopped", None, "lnch_1", True),
        ("pending", None, None, None),
        ("completed", None, "lnch_1", False),
    ]
    statuses = [row.status for row in db.rows("SELECT status FROM sessions ORDER BY session_id")]
    assert statuses == ["pending", "failed", "stopped", "pending", "finished"]
    assert report.changes["runs running -> failed"] == 1
    assert report.changes["sessions idle -> finished"] == 1


def test_pending_run_is_claimed_with_its_demands_and_scope(old: OldDatabase, db: DbVerbs) -> None:
    old.session(status="pending")
    demands = json.dumps({"hostname": None, "executor_profile": "gpu", "tags": ["b", "a"]})
    values = {"agent_name": "writer", "scope": '{"team": "sky"}', "resolved_agent_blueprint": '{"name": "writer"}'}
    old.run("run_00000000000a", status="pending", demands=demands, completed_at=None, **values)
    old.run("run_00000000000b", status="pending", type="resume_session", created_at=at(2), completed_at=None)
    imported(db.engine, old)
    assert db.claim(db.runner()) == []
    runner = db.runner(executor_profile="gpu", tags=["a", "b"])
    (run,) = db.claim(runner)
    assert (run.run_id, run.scope, json.loads(run.demands)["executor_type"]) == (
        "run_00000000000a",
        '{"team": "sky"}',
        "autonomous",
    )
    assert run.blueprint == '{"name": "writer"}'
    assert db.run("run_00000000000b").ready is False
    assert db.run("run_00000000000b").no_match_timeout_seconds == NO_MATCH_SECONDS


def test_finished_session_is_resumed(old: OldDatabase, db: DbVerbs) -> None:
    two_results(old)
    imported(db.engine, old)
    resumed = db.resume(SESSION)
    runner = db.runner(executor_profile="e")
    (run,) = db.claim(runner)
    assert (run.run_id, run.agent_name, run.scope) == (resumed.run_id, "writer", '{"team":"sky"}')
    accepted(db, run, "started")
    accepted(db, run, "completed")
    assert db.session(SESSION).status == "finished"
    assert db.session(SESSION).next_run == 4


def test_rollup_does_not_count_imported_ends_as_activity_of_now(old: OldDatabase, db: DbVerbs) -> None:
    """Count what happens to an imported run from now on, and nothing of its past."""
    two_results(old)
    old.session("ses_00000000000c", "pending")
    old.run("run_00000000000c", "ses_00000000000c", status="pending", completed_at=None)
    imported(db.engine, old)
    while db.do(roll_up):
        pass
    assert db.count("run_totals") == 0
    (run,) = db.claim(db.runner())
    accepted(db, run, "started")
    accepted(db, run, "completed")
    assert_dense(db)
    while db.do(roll_up):
        pass
    counted = db.rows("SELECT measure, number FROM run_totals WHERE step = 60 AND grouped_by = 'all' ORDER BY measure")
    assert {row.measure: row.number for row in counted} == {"claimed": 1, "completed": 1, "duration": 1, "wait": 1}


def test_repeat_imports_nothing_twice_and_completes_what_is_missing(old: OldDatabase, db: DbVerbs) -> None:
    """Repeat at once, and after a session was resumed here and another one was added to the file."""
    old.fill(3, 2)
    imported(db.engine, old)
    before = rows_of(db)
    again = imported(db.engine, old)
    assert (again.sessions, again.events, again.already_there, refusals(again)) == (0, 0, 3, {})
    assert rows_of(db) == before
    old.session("ses_new")
    db.resume("ses_000000000001")
    again = imported(db.engine, old)
    assert (again.sessions, again.already_there, refusals(again)) == (1, 3, {})


def test_session_that_changed_in_the_file_since_is_refused(old: OldDatabase, db: DbVerbs) -> None:
    old.fill(2, 1)
    imported(db.engine, old)
    old.event("ses_000000000001")
    report = imported(db.engine, old)
    assert (report.already_there, refusals(report)) == (1, {("session", "changed_since_import"): 1})
    assert db.count("events", "kind = 'event'") == 2


def deleted_session_is_imported_anew(db: DbVerbs, path: Path) -> None:
    """Delete it, which leaves its events to upkeep, and repeat the import: they are not shown again."""
    old = OldDatabase(path)
    old.fill(1, 2)
    imported(db.engine, old)
    db.do(delete_sessions, [DeleteSession(ADMIN, "ses_000000000000")])
    assert imported(db.engine, old).sessions == 1
    page = db.do(list_events, ADMIN, "ses_000000000000")
    assert isinstance(page, EventPage)
    assert len(page.events) == 2, "events of the deleted session are shown"


def test_deleted_session_is_imported_anew(db: DbVerbs, tmp_path: Path) -> None:
    deleted_session_is_imported_anew(db, tmp_path / "old.db")


def test_ids_that_are_taken_here_are_refused(old: OldDatabase, db: DbVerbs) -> None:
    """Refuse a session whose id, or one of whose runs' ids, something else has here."""
    run = db.start(session_id="ses_000000000000")
    old.fill(3, 1)
    old.execute("UPDATE runs SET run_id = ? WHERE run_id = 'run_000000000001'", run.run_id)
    report = imported(db.engine, old)
    assert (report.sessions, refusals(report)) == (1, {("session", "id_taken"): 2})
    assert db.count("runs") == 2


def test_dry_run_reports_the_same_and_writes_nothing(old: OldDatabase, db: DbVerbs) -> None:
    two_results(old)
    old.session("ses_bad", created_at="yesterday")
    old.event("ses_gone")
    dry = imported(db.engine, old, dry_run=True)
    assert [db.count(table) for table in (*TABLES, "demand_profiles")] == [0, 0, 0, 0]
    assert db.one("SELECT last_pos FROM feed_head") == 0
    assert imported(db.engine, old) == dry


def test_dry_run_knows_the_sessions_of_earlier_groups(
    old: OldDatabase, db: DbVerbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Put each session into a group of its own; children of refused ones alone become roots."""
    monkeypatch.setattr(old_file, "MOST_SESSIONS", 1)
    monkeypatch.setattr(old_file, "MOST_EVENTS", 1)
    old.session("root")
    old.session("child", parent_session_id="root")
    old.session("grandchild", parent_session_id="child")
    old.session("refused", "unheard-of")
    old.session("of_refused", parent_session_id="refused")
    old.session("refused_late")
    for content in ("[]", "[]", "{"):
        old.event("refused_late", content=content)
    old.session("of_refused_late", parent_session_id="refused_late")
    dry = imported(db.engine, old, dry_run=True)
    assert imported(db.engine, old) == dry
    assert dry.changes == {"sessions without their parents, which were not imported": 2}
    assert imported(db.engine, old, dry_run=True).already_there == dry.sessions


def test_child_that_does_not_fit_into_memory_comes_after_its_parent(
    old: OldDatabase, db: DbVerbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(old_file, "MOST_EVENTS", 2)
    old.session("root")
    old.session("child", parent_session_id="root")
    for _ in range(3):
        old.event("child")
    assert imported(db.engine, old).changes == {}
    assert db.one("SELECT depth FROM sessions WHERE parent_session_id = 'root'") == 1


def test_children_are_below_their_parents(old: OldDatabase, db: DbVerbs) -> None:
    """Store depths, though the child is older; a child of a refused or unknown parent becomes a root."""
    old.session("child", parent_session_id="parent", created_at=at(0))
    old.session("parent", parent_session_id="root", created_at=at(1))
    old.session("root", created_at=at(2))
    old.session("orphan", parent_session_id="gone")
    old.session("of_refused", parent_session_id="refused")
    old.session("refused", "unheard-of")
    old.session("a", parent_session_id="b")
    old.session("b", parent_session_id="a")
    report = imported(db.engine, old)
    assert refusals(report) == {("session", "parent_cycle"): 2, ("session", "unknown_status"): 1}
    found = db.rows("SELECT session_id, parent_session_id, depth FROM sessions ORDER BY depth, session_id")
    assert [tuple(row) for row in found] == [
        ("of_refused", None, 0),
        ("orphan", None, 0),
        ("root", None, 0),
        ("parent", "root", 1),
        ("child", "parent", 2),
    ]


def test_owner_is_given_to_all_rows_and_import_is_recorded_once(
    old: OldDatabase, db: DbVerbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(old_file, "MOST_SESSIONS", 1)
    old.fill(2, 1)
    for _ in range(2):
        imported(db.engine, old, "ann")
    (act,) = db.do(newest_acts, 10)
    assert (act.act, act.by, act.target, act.owner) == ("history_imported", operator(), "observability.db", "ann")
    assert {row.owner for table in TABLES for row in db.rows(f"SELECT owner FROM {table}{NO_AUDIT[table]}")} == {"ann"}


@pytest.mark.parametrize("most", [1, 3])
def test_session_that_does_not_fit_into_memory_comes_whole(
    old: OldDatabase, db: DbVerbs, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """Stream its events from the file; a fault in the last one leaves nothing of it."""
    old.fill(3, 5)
    imported(db.engine, old)
    expected = rows_of(db)
    for table in ("events", "runs", "sessions"):
        db.rows(f"DELETE FROM {table}")
    db.rows("UPDATE feed_head SET last_pos = 0")
    monkeypatch.setattr(old_file, "MOST_EVENTS", most)
    old.session("ses_bad")
    for content in ("[]", "[]", "[]", "[]", "{"):
        old.event("ses_bad", content=content)
    report = imported(db.engine, old)
    assert (report.sessions, report.events, refusals(report)) == (3, 15, {("session", "bad_json"): 1})
    assert rows_of(db) == expected
    assert_dense(db)
