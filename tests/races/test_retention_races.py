"""Race retention against readers, writers and numbering of history, and against everything that revives a session."""

from collections.abc import Callable
from concurrent.futures import Future
from random import Random

import pytest
from sqlalchemy import Connection

from models.core.callers import ADMIN
from models.core.errors import CoordinatorError, NotFound
from models.feed.append import NewEvent, StoredEvent, append_events
from models.feed.pages import FeedPage, read_feed
from models.feed.retention import Walked, retire_events, retire_sessions
from models.feed.sequence import read_head
from models.runs.delete import Deleted, DeleteSession, delete_sessions, purge_deleted
from models.runs.submission import NewRun, Submitted
from models.runs.submit import submit_runs
from models.state.events_outbox import record_events
from testkit.recorded_events import RECORDED_EVENTS
from tests.support.contenders import interleavings, run_in_threads, steppers
from tests.support.db_verbs import DbVerbs, resume_submission, start_submission
from tests.support.numbering import assert_dense, execute, number_events, row
from tests.support.reports import finished
from tests.support.retention import (
    DAYS,
    all_grows_old,
    grow_old,
    old_history,
    remove_old_sessions,
    result,
    retire,
)


def retire_some(conn: Connection, most: int) -> int:
    """Run one pass over a few events, in an open transaction."""
    return retire_events(conn, older_than_days=DAYS, most=most)


def is_gone(page: FeedPage, after: int) -> bool:
    """Check that a page holds all there was after the position, or says that this is gone; return True if
    it is gone.
    """
    if page.head.floor > after:
        return True
    positions = [event.position for event in page.events]
    expected = list(range(after + 1, page.covers + 1))
    assert positions == expected, f"a reader behind {after} missed events without a word"
    return False


def test_page_read_while_events_are_dropped_is_complete_or_expired(db: DbVerbs) -> None:
    """See all events before the commit, and the new oldest position after it; there is nothing in between."""
    old_history(db, 10)

    def look() -> list[bool]:
        return [is_gone(db.do(read_feed, after, limit=100), after) for after in (0, 3, 6, 9)]

    with steppers(db.engine, 1) as (retirer,):
        assert retirer.do(retire_some, 6).result(30) == 6
        assert look() == [False] * 4
        retirer.commit()
        assert look() == [True, True, False, False]


CROWDS = [2, 8, 32]


def forget_once(conn: Connection) -> Walked:
    return retire_sessions(conn, older_than_days=DAYS)


# history


@pytest.mark.parametrize("each", [1, 3, 8])
def test_readers_of_expiring_history_miss_nothing_unnoticed(db: DbVerbs, each: int) -> None:
    """Run writers, numbering and several passes of retention meanwhile."""
    old_history(db, 400)

    def write(random: Random) -> None:
        db.do(record_events, [row(one) for one in range(random.randint(1, 20))])
        number_events(db)

    def drop(random: Random) -> None:
        db.do(retire_some, random.randint(1, 40))

    def read(random: Random) -> None:
        after = random.randint(0, 500)
        while True:
            page = db.do(read_feed, after, limit=random.randint(1, 60))
            # Continue from the position at which a client is told to begin anew.
            after = page.head.floor if is_gone(page, after) else page.covers
            if after >= page.head.position:
                return

    roles = [role for role in (write, drop, read) for _ in range(each)]

    def play(place: int) -> None:
        random = Random(1000 * each + place)
        for _ in range(15):
            roles[place](random)

    run_in_threads(len(roles), play)
    retire(db)
    assert db.do(read_head).floor == 400
    assert_dense(db)


@pytest.mark.parametrize("contenders", CROWDS)
def test_concurrent_retention_drops_each_event_once(db: DbVerbs, contenders: int) -> None:
    """Nothing waits: a pass that finds the first event locked ends there."""
    old_history(db, 300)
    dropped = sum(run_in_threads(contenders, lambda _: sum(db.do(retire_some, 25) for _ in range(3))))
    assert db.do(read_head).floor == dropped
    assert dropped + retire(db) == 300
    assert_dense(db)


def test_numbering_goes_on_while_events_are_dropped(db: DbVerbs) -> None:
    """Lock the head last: whatever delays the rest of the pass delays no client."""
    session_id = finished(db)
    result(db, session_id, "kept")
    all_grows_old(db)
    db.do(record_events, [row(1)])
    with steppers(db.engine, 2) as (obstacle, retirer):
        obstacle.do(execute, "INSERT INTO kept_results VALUES (:s, 0, '{}')", s=session_id)
        dropping = retirer.do(retire_some, 100)
        assert retirer.waits
        assert number_events(db) == 1
        obstacle.rollback()
        assert dropping.result(30) > 0
        retirer.commit()
    assert_dense(db)


def test_retention_waits_for_a_pass_of_numbering(db: DbVerbs) -> None:
    """Head and oldest position are stored in one row."""
    old_history(db, 5)
    with steppers(db.engine, 2) as (numberer, retirer):
        numberer.do(execute, "UPDATE feed_head SET last_pos = last_pos")
        dropping = retirer.do(retire_some, 3)
        assert retirer.waits
        numberer.commit()
        assert dropping.result(30) == 3
        retirer.commit()
    head = db.do(read_head)
    assert (head.floor, head.position) == (3, 5)


def test_retention_skips_events_that_a_delete_is_removing(db: DbVerbs) -> None:
    """End the prefix before the first of them, and continue behind them the next time."""
    db.do(record_events, [row(0)])
    session_id = db.start().session_id
    db.do(record_events, [row(1)])
    db.do(delete_sessions, [DeleteSession(ADMIN, session_id)])
    all_grows_old(db)
    with steppers(db.engine, 2) as (purger, retirer):
        assert purger.do(purge_deleted).result(30) > 0
        assert retirer.do(retire_some, 100).result(30) == 1
        retirer.commit()
        purger.commit()
    assert db.do(read_head).floor == 1
    retire(db)
    head = db.do(read_head)
    assert head.floor == head.position


# sessions


def old_session(db: DbVerbs) -> str:
    """Create a session past its retention time whose events are gone."""
    session_id = finished(db)
    all_grows_old(db)
    retire(db)
    return session_id


@pytest.mark.parametrize("order", list(interleavings(["go", "commit go"], ["come", "commit come"])), ids="-".join)
def test_resumed_session_is_not_removed(db: DbVerbs, order: list[str]) -> None:
    """The resume is accepted and keeps the session, or is not found: no accepted run is lost."""
    item = resume_submission(old_session(db))
    walked: list[Future[Walked]] = []
    answers: list[Future[list[Submitted | CoordinatorError]]] = []
    with steppers(db.engine, 2) as (goer, comer):
        steps: dict[str, Callable[[], None]] = {
            "go": lambda: walked.append(goer.do(forget_once)),
            "commit go": goer.commit,
            "come": lambda: answers.append(comer.do(submit_runs, [item])),
            "commit come": comer.commit,
        }
        for step in order:
            steps[step]()
        removed, answer = walked[0].result(30).removed, answers[0].result(30)[0]
    accepted = isinstance(answer, Submitted)
    assert accepted or isinstance(answer, NotFound)
    assert removed == (0 if accepted else 1)
    assert db.count("sessions") == db.count("runs", "status = 'pending'") == int(accepted)


@pytest.mark.parametrize("contenders", CROWDS)
@pytest.mark.parametrize("what", ["resume", "child", "event", "delete", "retention"])
def test_expired_session_against_concurrent_writes(db: DbVerbs, what: str, contenders: int) -> None:
    """An accepted write finds the session afterwards; a refused one has left nothing."""
    session_id = old_session(db)

    def contend(place: int) -> object:
        if place == 0 or what == "retention":
            return db.do(forget_once)
        items: dict[str, NewRun] = {
            "resume": resume_submission(session_id),
            "child": start_submission(parent_session_id=session_id),
        }
        if what in items:
            return db.do(submit_runs, [items[what]])[0]
        if what == "event":
            return db.do(append_events, [NewEvent(session_id, ADMIN, "message", '{"data":{}}')])[0]
        return db.do(delete_sessions, [DeleteSession(ADMIN, session_id)])[0]

    results = run_in_threads(contenders, contend)
    removed = sum(one.removed for one in results if isinstance(one, Walked))
    accepted = sum(isinstance(one, Submitted | StoredEvent) for one in results)
    deleted = sum(isinstance(one, Deleted) for one in results)
    there = db.count("sessions", "session_id = :s", s=session_id)
    assert removed + deleted + there == 1
    assert db.count(RECORDED_EVENTS, "kind = 'session_deleted'") == removed + deleted
    if what in {"resume", "event"}:
        assert there == (accepted > 0), "removed although a write was accepted"
    if what == "child":
        assert db.count("sessions", "parent_session_id = :s", s=session_id) == (accepted if there else 0)
    assert db.count("runs") == there + (accepted if what in {"resume", "child"} else 0)


def test_retention_skips_locked_sessions(db: DbVerbs) -> None:
    """Skip a session if it, one of its runs or a child is locked; remove nothing in part."""
    parent = finished(db)
    child = finished(db, parent_session_id=parent)
    all_grows_old(db)
    grow_old(db)
    retire(db)
    for table, column, value in [("sessions", "session_id", parent), ("runs", "session_id", parent)]:
        with steppers(db.engine, 2) as (holder, goer):
            holder.do(execute, f"SELECT 1 FROM {table} WHERE {column} = :v FOR UPDATE", v=value)
            assert goer.do(forget_once).result(30).removed == 1, "the child alone goes"
            goer.rollback()
    with steppers(db.engine, 2) as (holder, goer):
        holder.do(execute, "SELECT 1 FROM sessions WHERE session_id = :v FOR UPDATE", v=child)
        assert goer.do(forget_once).result(30).removed == 0, "its parent would leave it without one"
    assert remove_old_sessions(db) == 2
