"""Timelines of runs, ends of their logs, and trees of sessions."""

from typing import Any

from models.core.callers import ADMIN, Caller, Role
from models.core.errors import BadCursor, NotFound
from models.feed.run_timeline import RunTimeline, run_timeline
from models.feed.timeline import EventPage, list_events
from models.runs.release import ReleaseRun, release_runs
from models.sessions.tree import Tree, session_tree
from runtime.settings import Settings
from tests.support.answer_models import check_fields
from tests.support.clocks import fall_silent, tick
from tests.support.db_verbs import DbVerbs
from tests.support.numbering import number_all
from tests.support.parents import child_of
from tests.support.reports import accepted, claimed, running, stop
from tests.support.retention import grow_old, retire
from tests.support.web import served, until_ready


def timeline(db: DbVerbs, run_id: str, caller: Caller = ADMIN) -> RunTimeline:
    found = db.do(run_timeline, caller, run_id)
    assert isinstance(found, RunTimeline), found
    return found


def shown(found: RunTimeline) -> list[tuple[int | None, list[tuple[str, str | None]]]]:
    return [(attempt.attempt, [(step.what, step.detail) for step in attempt.steps]) for attempt in found.attempts]


def test_timeline_shows_every_attempt_and_what_ended_it(db: DbVerbs) -> None:
    """Give a claim back, lose a runner, stop the third attempt; number and frames before and after numbering."""
    run = claimed(db, max_attempts=3)
    given_back = ReleaseRun(
        run.run_id, reason="no disk", runner_id=run.runner_id or "", claim_token=run.claim_token or ""
    )
    db.do(release_runs, [given_back])
    second = db.runner()
    (again,) = db.claim(second)
    accepted(db, again, "started")
    number_all(db)
    fall_silent(db, second, 3600)
    tick(db)
    third = db.runner()
    (last,) = db.claim(third)
    accepted(db, last, "started")
    stop(db, run.session_id)
    accepted(db, last, "stopped")

    found = timeline(db, run.run_id)

    lost = found.attempts[1].steps[-1].detail or ""
    assert shown(found) == [
        (None, [("submitted", None), ("claimed", None), ("requeued", "no disk")]),
        (1, [("claimed", None), ("running", None), ("requeued", lost)]),
        (
            2,
            [
                ("claimed", None),
                ("delivered", None),
                ("running", None),
                ("stopping", "A stop was requested"),
                ("stopped", None),
            ],
        ),
    ]
    assert lost.startswith("Runner lost")
    assert [attempt.runner_id for attempt in found.attempts] == [run.runner_id, second.runner_id, third.runner_id]
    assert found.truncated_before is None
    moments = [step.at for attempt in found.attempts for step in attempt.steps]
    assert moments == sorted(moments)
    assert isinstance(db.do(run_timeline, Caller(Role.USER, "ann"), run.run_id), NotFound)


def test_timeline_says_what_is_not_kept(db: DbVerbs) -> None:
    run = running(db)
    number_all(db)
    grow_old(db)
    retire(db)
    accepted(db, run, "completed")
    found = timeline(db, run.run_id)
    assert [step.what for step in found.attempts[0].steps][-1] == "completed"
    assert found.truncated_before is not None


def events_of(db: DbVerbs, session_id: str, **which: Any) -> EventPage:
    page = db.do(list_events, ADMIN, session_id, **which)
    assert isinstance(page, EventPage), page
    return page


def test_events_are_read_from_the_end(db: DbVerbs) -> None:
    """Walk backwards over pages, and between two cursors; what has no position yet is on the first page."""
    runs = [running(db)]
    for _ in range(3):
        accepted(db, runs[-1], "completed")
        runs.append(running_again(db, runs[0]))
    number_all(db)
    accepted(db, runs[-1], "completed")
    whole = events_of(db, runs[0].session_id).events
    assert [event.feed_cursor is None for event in whole][-2:] == [False, True]
    walked, before = [], None
    for _ in range(20):
        page = events_of(db, runs[0].session_id, newest_first=True, before=before, limit=2)
        walked += page.events
        before = page.next_cursor
        if before is None:
            break
    assert walked == whole[::-1]
    assert events_of(db, runs[0].session_id, newest_first=True, limit=1).events == whole[:-3:-1]
    own = [event for event in whole if event.run_id == runs[1].run_id]
    assert events_of(db, runs[0].session_id, newest_first=True, run_id=runs[1].run_id).events == own[::-1]
    bounds = {"after": whole[1].feed_cursor, "before": whole[4].feed_cursor}
    assert events_of(db, runs[0].session_id, **bounds).events == whole[2:4]
    assert events_of(db, runs[0].session_id, newest_first=True, **bounds).events == whole[2:4][::-1]
    assert isinstance(db.do(list_events, ADMIN, runs[0].session_id, before="v1.x.1"), BadCursor)


def running_again(db: DbVerbs, first: Any) -> Any:
    db.resume(first.session_id)
    (run,) = db.claim(db.runner())
    accepted(db, run, "started")
    return run


def test_tree_holds_sessions_by_level_within_its_bounds(db: DbVerbs) -> None:
    """Count runs and children, also of what is not shown."""
    root = running(db)
    children = [child_of(db, root.session_id) for _ in range(3)]
    grandchild = child_of(db, children[0].session_id)
    names = [root.session_id, *(child.session_id for child in children), grandchild.session_id]

    def tree(**bounds: Any) -> Tree:
        found = db.do(session_tree, ADMIN, root.session_id, **{"depth": 5, "limit": 100} | bounds)
        assert isinstance(found, Tree), found
        return found

    whole = tree()
    assert [node.session.session_id for node in whole.nodes] == names
    assert [node.children for node in whole.nodes] == [3, 1, 0, 0, 0]
    assert whole.nodes[0].runs == {"running": 1}
    assert whole.truncated is False
    assert [node.session.session_id for node in tree(depth=1).nodes] == names[:4]
    assert [node.session.session_id for node in tree(limit=2).nodes] == names[:2]
    assert tree(depth=1).truncated is tree(limit=2).truncated is tree(depth=0).truncated is True
    assert isinstance(db.do(session_tree, Caller(Role.USER, "ann"), root.session_id, depth=5, limit=5), NotFound)


def test_timeline_tail_and_tree_over_http(settings: Settings, db: DbVerbs) -> None:
    run = running(db)
    with served(settings) as web:
        until_ready(web)
        session = f"/sessions/{run.session_id}"
        for endpoint, path in (
            ("GET /runs/{run_id}/timeline", f"/runs/{run.run_id}/timeline"),
            ("GET /sessions/{session_id}/tree", f"{session}/tree?depth=2&limit=5"),
            ("GET /sessions/{session_id}/events", f"{session}/events?run_id={run.run_id}&order=desc&limit=1"),
        ):
            answer = web.client.http.get(path)
            assert answer.status_code == 200, answer.text
            check_fields(endpoint, 200, answer.json())
        newest = web.client.http.get(f"{session}/events?order=desc&limit=1").json()["events"]
        assert newest == web.client.http.get(f"{session}/events").json()["events"][-1:]
        for path in ("tree?depth=21", "tree?limit=0", "tree?unknown=1", "tree?depth=1&depth=2", "events?order=newest"):
            assert web.client.http.get(f"{session}/{path}").status_code == 422
        assert web.client.http.get(f"{session}/events?before=x").status_code == 400
