"""Lists of runs and sessions on a real database: newest first, whole, with a cursor that misses nothing."""

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
from tests.support.reports import claimed, running
from tests.support.truth import Truth, starting


def runs(truth: Truth, which: RunFilter | None = None, *, caller: Caller = ADMIN, **values: Any) -> RunPage:
    found = truth.do(list_runs, caller, which or RunFilter(), **{"limit": 100, **values})
    assert isinstance(found, RunPage), found
    return found


def sessions(truth: Truth, which: SessionFilter | None = None, *, caller: Caller = ADMIN, **values: Any) -> SessionPage:
    found = truth.do(list_sessions, caller, which or SessionFilter(), **{"limit": 100, **values})
    assert isinstance(found, SessionPage), found
    return found


def ids(page: RunPage) -> set[str]:
    return {run.run_id for run in page.runs}


def test_an_empty_list_has_a_position_too(truth: Truth) -> None:
    """A client begins its feed there."""
    assert (runs(truth).runs, runs(truth).next_cursor) == ([], None)
    assert parse_cursor(runs(truth).feed_cursor) is not None
    assert sessions(truth).sessions == []


def test_runs_and_sessions_come_newest_first(truth: Truth) -> None:
    """By the time they were made."""
    made = [truth.start() for _ in range(3)]
    assert [run.run_id for run in runs(truth).runs] == [one.run_id for one in reversed(made)]
    assert [one.session_id for one in sessions(truth).sessions] == [one.session_id for one in reversed(made)]


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6])
def test_a_walk_through_pages_sees_each_once(truth: Truth, limit: int) -> None:
    """Also those made in one transaction, at the same moment."""
    made = [one.run_id for one in truth.accept(*[starting() for _ in range(5)])]
    seen: list[str] = []
    seen_sessions: list[str] = []
    cursor = other = None
    for _ in range(6):
        page = runs(truth, limit=limit, after=cursor)
        seen += [run.run_id for run in page.runs]
        more = sessions(truth, limit=limit, after=other)
        seen_sessions += [one.session_id for one in more.sessions]
        assert (page.next_cursor is None) == (more.next_cursor is None)
        if page.next_cursor is None:
            break
        cursor, other = page.next_cursor, more.next_cursor
    assert sorted(seen) == sorted(made)
    assert len(set(seen_sessions)) == len(seen_sessions) == 5


def test_what_is_made_while_somebody_walks_is_not_in_his_way(truth: Truth) -> None:
    """Newer ones stand before the first page."""
    made = [truth.start() for _ in range(4)]
    first = runs(truth, limit=2)
    truth.start()
    second = runs(truth, limit=2, after=first.next_cursor)
    assert [run.run_id for run in second.runs] == [made[1].run_id, made[0].run_id]
    assert second.next_cursor is None


def test_runs_are_found_by_what_they_are(truth: Truth) -> None:
    """Each filter alone, and together."""
    working = running(truth, agent_name="writer", labels={"team": "a", "kind": "x"})
    waiting = truth.start(agent_name="reader", labels={"team": "a"})
    assert ids(runs(truth, RunFilter(statuses=("running",)))) == {working.run_id}
    assert ids(runs(truth, RunFilter(statuses=("running", "pending")))) == {working.run_id, waiting.run_id}
    assert ids(runs(truth, RunFilter(session_id=waiting.session_id))) == {waiting.run_id}
    assert ids(runs(truth, RunFilter(runner_id=working.runner_id))) == {working.run_id}
    assert ids(runs(truth, RunFilter(agent_name="reader"))) == {waiting.run_id}
    assert ids(runs(truth, RunFilter(labels={"team": "a"}))) == {working.run_id, waiting.run_id}
    assert ids(runs(truth, RunFilter(labels={"team": "a", "kind": "x"}))) == {working.run_id}
    assert ids(runs(truth, RunFilter(statuses=("pending",), labels={"kind": "x"}))) == set()


@pytest.mark.parametrize("statuses", [("unknown",), ("RUNNING",), ("",)])
def test_an_unknown_status_finds_nothing(truth: Truth, statuses: tuple[str, ...]) -> None:
    """As deployed clients know it."""
    truth.start()
    assert runs(truth, RunFilter(statuses=statuses)).runs == []
    assert sessions(truth, SessionFilter(statuses=statuses)).sessions == []


def test_sessions_are_found_by_status_and_parent(truth: Truth) -> None:
    """PROTOCOL, GET /sessions."""
    parent = running(truth)
    child = truth.start(parent_session_id=parent.session_id)
    found = sessions(truth, SessionFilter(parent_session_id=parent.session_id)).sessions
    assert [(one.session_id, one.depth) for one in found] == [(child.session_id, 1)]
    found = sessions(truth, SessionFilter(statuses=("running",))).sessions
    assert [one.session_id for one in found] == [parent.session_id]


def test_everybody_sees_his_own(truth: Truth) -> None:
    """An admin sees all."""
    ann, bob = Caller(Role.USER, "ann"), Caller(Role.USER, "bob")
    hers, his = truth.start(caller=ann), truth.start(caller=bob)
    assert ids(runs(truth, caller=ann)) == {hers.run_id}
    assert [one.session_id for one in sessions(truth, caller=bob).sessions] == [his.session_id]
    assert ids(runs(truth)) == {hers.run_id, his.run_id}
    assert runs(truth, caller=Caller(Role.USER, None)).runs == []


def test_a_feed_from_the_lists_position_leaves_no_hole(truth: Truth) -> None:
    """What the snapshot does not show comes after its position, or is not numbered yet."""
    claimed(truth)
    truth.do(sequence_feed)
    truth.start()
    page = runs(truth)
    assert page.feed_cursor == truth.do(read_head).cursor
    position = parse_cursor(page.feed_cursor)
    assert position is not None
    later = truth.start()
    truth.do(sequence_feed)
    rows = truth.rows("SELECT session_id FROM events WHERE feed_pos > :p", p=position.position)
    assert {row.session_id for row in rows} >= {later.session_id}
    assert truth.count("events", "feed_pos IS NULL") == 0


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "bm9uc2Vuc2U", "WyIyMDI2LTAxLTAxIiwgMV0", "WzEsIDJd", "W10", "é", "\x00", "/w", "W" * 5000, "v1.a.1"],
)
def test_a_malformed_cursor_is_refused(truth: Truth, cursor: str) -> None:
    """It is ours alone to read, and none of it reaches the database."""
    assert truth.do(list_runs, ADMIN, RunFilter(), limit=1, after=cursor) == BadCursor(cursor)
    assert truth.do(list_sessions, ADMIN, SessionFilter(), limit=1, after=cursor) == BadCursor(cursor)


@pytest.mark.parametrize("row_id", ["run_1", "ses:ä€", "x" * 128])
def test_a_cursor_is_read_as_it_was_written(truth: Truth, row_id: str) -> None:
    """To the microsecond."""
    moment = truth.one("SELECT clock_timestamp()")
    assert parse_key(write_key(moment, row_id)) == (moment, row_id)


def test_a_page_ends_after_so_many_bytes_and_a_walk_still_sees_each_once(
    truth: Truth, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At least one row a page, however large it is."""
    monkeypatch.setattr("models.runs.lists.PAGE_BYTES", 2000)
    made = {one.run_id for one in truth.accept(*[starting() for _ in range(5)])}
    seen: list[str] = []
    page = runs(truth, limit=100)
    while page.next_cursor is not None:
        assert 1 <= len(page.runs) <= 4
        seen += [run.run_id for run in page.runs]
        page = runs(truth, limit=100, after=page.next_cursor)
    seen += [run.run_id for run in page.runs]
    assert (set(seen), len(seen)) == (made, 5)
