"""Lists of runs and sessions on a real database: newest first, complete, with a cursor that misses nothing."""

from typing import Any

import pytest

from models.core.callers import ADMIN, Caller, Role
from models.core.errors import BadCursor
from models.feed.sequence import read_head, sequence_feed
from models.runs.lists import (
    RunFilter,
    RunPage,
    SessionFilter,
    SessionPage,
    list_runs,
    list_sessions,
    parse_key,
    write_key,
)
from models.state.cursors import parse_cursor
from testkit.recorded_events import RECORDED_EVENTS
from tests.support.db_verbs import DbVerbs, start_submission
from tests.support.reports import claimed, running


def runs(db: DbVerbs, which: RunFilter | None = None, *, caller: Caller = ADMIN, **values: Any) -> RunPage:
    found = db.do(list_runs, caller, which or RunFilter(), **{"limit": 100, **values})
    assert isinstance(found, RunPage), found
    return found


def sessions(db: DbVerbs, which: SessionFilter | None = None, *, caller: Caller = ADMIN, **values: Any) -> SessionPage:
    found = db.do(list_sessions, caller, which or SessionFilter(), **{"limit": 100, **values})
    assert isinstance(found, SessionPage), found
    return found


def ids(page: RunPage) -> set[str]:
    return {run.run_id for run in page.runs}


def test_empty_list_has_feed_position(db: DbVerbs) -> None:
    """Let a client start its feed there."""
    assert (runs(db).runs, runs(db).next_cursor) == ([], None)
    assert parse_cursor(runs(db).feed_cursor) is not None
    assert sessions(db).sessions == []


def test_runs_and_sessions_are_newest_first(db: DbVerbs) -> None:
    """Sort by creation time."""
    made = [db.start() for _ in range(3)]
    assert [run.run_id for run in runs(db).runs] == [submitted.run_id for submitted in reversed(made)]
    assert [session.session_id for session in sessions(db).sessions] == [
        session.session_id for session in reversed(made)
    ]


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6])
def test_walk_through_pages_of_runs_sees_each_once(db: DbVerbs, limit: int) -> None:
    """Include runs made in one transaction, at the same moment."""
    made = [submitted.run_id for submitted in db.accept(*[start_submission() for _ in range(5)])]
    seen: list[str] = []
    seen_sessions: list[str] = []
    cursor = other = None
    for _ in range(6):
        page = runs(db, limit=limit, after=cursor)
        seen += [run.run_id for run in page.runs]
        more = sessions(db, limit=limit, after=other)
        seen_sessions += [session.session_id for session in more.sessions]
        assert (page.next_cursor is None) == (more.next_cursor is None)
        if page.next_cursor is None:
            break
        cursor, other = page.next_cursor, more.next_cursor
    assert sorted(seen) == sorted(made)
    assert len(set(seen_sessions)) == len(seen_sessions) == 5


def test_rows_made_during_walk_do_not_disturb_it(db: DbVerbs) -> None:
    """Put newer rows before the first page."""
    made = [db.start() for _ in range(4)]
    first = runs(db, limit=2)
    db.start()
    second = runs(db, limit=2, after=first.next_cursor)
    assert [run.run_id for run in second.runs] == [made[1].run_id, made[0].run_id]
    assert second.next_cursor is None


def test_runs_are_found_by_each_filter(db: DbVerbs) -> None:
    """Apply each filter alone, and all together."""
    working = running(db, agent_name="writer", labels={"team": "a", "kind": "x"})
    waiting = db.start(agent_name="reader", labels={"team": "a"})
    assert ids(runs(db, RunFilter(statuses=("running",)))) == {working.run_id}
    assert ids(runs(db, RunFilter(statuses=("running", "pending")))) == {working.run_id, waiting.run_id}
    assert ids(runs(db, RunFilter(session_id=waiting.session_id))) == {waiting.run_id}
    assert ids(runs(db, RunFilter(runner_id=working.runner_id))) == {working.run_id}
    assert ids(runs(db, RunFilter(agent_name="reader"))) == {waiting.run_id}
    assert ids(runs(db, RunFilter(labels={"team": "a"}))) == {working.run_id, waiting.run_id}
    assert ids(runs(db, RunFilter(labels={"team": "a", "kind": "x"}))) == {working.run_id}
    assert ids(runs(db, RunFilter(statuses=("pending",), labels={"kind": "x"}))) == set()


@pytest.mark.parametrize("statuses", [("unknown",), ("RUNNING",), ("",)])
def test_unknown_status_finds_nothing(db: DbVerbs, statuses: tuple[str, ...]) -> None:
    """Return an empty list, as deployed clients expect."""
    db.start()
    assert runs(db, RunFilter(statuses=statuses)).runs == []
    assert sessions(db, SessionFilter(statuses=statuses)).sessions == []


def test_sessions_are_found_by_status_and_parent(db: DbVerbs) -> None:
    parent = running(db)
    child = db.start(parent_session_id=parent.session_id)
    found = sessions(db, SessionFilter(parent_session_id=parent.session_id)).sessions
    assert [(session.session_id, session.depth) for session in found] == [(child.session_id, 1)]
    found = sessions(db, SessionFilter(statuses=("running",))).sessions
    assert [session.session_id for session in found] == [parent.session_id]


def test_callers_see_own_rows_and_admins_all(db: DbVerbs) -> None:
    ann, bob = Caller(Role.USER, "ann"), Caller(Role.USER, "bob")
    anns, bobs = db.start(caller=ann), db.start(caller=bob)
    assert ids(runs(db, caller=ann)) == {anns.run_id}
    assert [session.session_id for session in sessions(db, caller=bob).sessions] == [bobs.session_id]
    assert ids(runs(db)) == {anns.run_id, bobs.run_id}
    assert runs(db, caller=Caller(Role.USER, None)).runs == []


def test_feed_from_list_position_leaves_no_hole(db: DbVerbs) -> None:
    """Follow with everything that the snapshot does not show: it comes after its position, or is not numbered yet."""
    claimed(db)
    db.do(sequence_feed)
    db.start()
    page = runs(db)
    assert page.feed_cursor == db.do(read_head).cursor
    position = parse_cursor(page.feed_cursor)
    assert position is not None
    later = db.start()
    db.do(sequence_feed)
    rows = db.rows("SELECT session_id FROM events WHERE feed_pos > :p", p=position.position)
    assert {row.session_id for row in rows} >= {later.session_id}
    assert db.count(RECORDED_EVENTS, "feed_pos IS NULL") == 0


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "bm9uc2Vuc2U", "WyIyMDI2LTAxLTAxIiwgMV0", "WzEsIDJd", "W10", "é", "\x00", "/w", "W" * 5000, "v1.a.1"],
)
def test_malformed_list_cursor_is_refused(db: DbVerbs, cursor: str) -> None:
    """Reject it before the database reads any of it."""
    assert db.do(list_runs, ADMIN, RunFilter(), limit=1, after=cursor) == BadCursor(cursor)
    assert db.do(list_sessions, ADMIN, SessionFilter(), limit=1, after=cursor) == BadCursor(cursor)


@pytest.mark.parametrize("row_id", ["run_1", "ses:ä€", "x" * 128])
def test_list_cursor_keeps_microseconds(db: DbVerbs, row_id: str) -> None:
    moment = db.one("SELECT clock_timestamp()")
    assert parse_key(write_key(moment, row_id)) == (moment, row_id)


def test_page_is_bounded_in_bytes_and_walk_sees_each_once(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Return at least one row a page, however large it is."""
    monkeypatch.setattr("models.runs.lists.PAGE_BYTES", 2000)
    made = {submitted.run_id for submitted in db.accept(*[start_submission() for _ in range(5)])}
    seen: list[str] = []
    page = runs(db, limit=100)
    while page.next_cursor is not None:
        assert 1 <= len(page.runs) <= 4
        seen += [run.run_id for run in page.runs]
        page = runs(db, limit=100, after=page.next_cursor)
    seen += [run.run_id for run in page.runs]
    assert (set(seen), len(seen)) == (made, 5)
