"""Break a mechanism of bulks and replays on purpose: the scenario that guards it must notice."""

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import Connection

from models.bulk import actions, chunks
from models.core.callers import ADMIN
from models.core.limits import DEFAULT_LIMITS
from models.core.statuses import BulkAction
from models.runs import submit
from models.runs.delete import DeleteSession, delete_sessions
from models.runs.search import RunSearch
from models.state.locks import lock_runs
from tests.races.test_bulk_races import (
    run_that_starts_meanwhile_is_left_alone,
    stop_waits_for_the_chunk_in_progress,
    workers_replay_each_run_once,
)
from tests.support.bulks import ledger, runs_of, started, state, work, work_all
from tests.support.db_verbs import DbVerbs
from tests.support.mutation import break_statement, notices
from tests.support.reports import finished

LOCK = "\n    FOR UPDATE OF j SKIP LOCKED"


def test_bulk_that_is_not_locked_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers would take the same chunk."""
    break_statement(monkeypatch, chunks, "_TAKE", {LOCK: ""})
    notices(workers_replay_each_run_once, db, by="not replayed once|progress is wrong")


def test_stop_beside_an_unlocked_bulk_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    break_statement(monkeypatch, chunks, "_TAKE", {LOCK: ""})
    notices(stop_waits_for_the_chunk_in_progress, db, by="did not wait")


def worker_that_dies_before_its_commit_changes_nothing(db: DbVerbs) -> None:
    """Roll a chunk back after its act; the next worker repeats it."""
    ended = runs_of(db, [finished(db) for _ in range(2)])
    bulk_id = started(db, BulkAction.REPLAY, ended)
    connection = db.engine.connect()
    transaction = connection.begin()
    chunk = chunks.take_chunk(connection)
    assert chunk is not None
    chunks.execute_chunk(connection, chunk, limits=DEFAULT_LIMITS)
    transaction.rollback()
    connection.close()
    work_all(db)
    assert ledger(db) == dict.fromkeys(ended, 1), "the runs of the chunk were lost"
    assert state(db, bulk_id).done == 2


def test_worker_that_dies_before_its_commit_changes_nothing(db: DbVerbs) -> None:
    worker_that_dies_before_its_commit_changes_nothing(db)


def test_chunk_deleted_by_another_transaction_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Delete the chunk before its act is committed: a worker that dies loses its runs."""
    taken = chunks.take_chunk

    def take(conn: Connection) -> Any:
        chunk = taken(conn)
        if chunk is not None:
            db.rows("DELETE FROM bulk_chunks WHERE chunk_id = :c", c=chunk.chunk_id)
        return chunk

    monkeypatch.setattr(chunks, "take_chunk", take)
    notices(worker_that_dies_before_its_commit_changes_nothing, db, by="were lost")


def test_chunk_that_stays_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep it after its act: every run would be replayed again and again."""

    def scenario(db: DbVerbs) -> None:
        ended = runs_of(db, [finished(db)])
        started(db, BulkAction.REPLAY, ended)
        for _ in range(2):
            work(db)
        assert ledger(db) == dict.fromkeys(ended, 1), "a run was replayed twice"

    scenario(db)
    break_statement(monkeypatch, chunks, "_DONE", {"chunk_id = :chunk_id": "chunk_id = :chunk_id AND false"})
    db.rows("UPDATE runs SET replay_of = NULL")
    notices(scenario, db, by="replayed twice")


def test_filter_checked_before_the_lock_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that a runner takes meanwhile would be stopped although it matches no more."""
    monkeypatch.setattr(actions, "lock_runs", _lock_after_look(actions._left, lock_runs, monkeypatch))
    notices(run_that_starts_meanwhile_is_left_alone, db, by="no longer matches was stopped|did not wait")


def _lock_after_look(left: Any, lock: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a lock of runs that finds the runs left by the filter first, which the real check is then told of."""

    def lock_late(conn: Connection, run_ids: Sequence[str]) -> Any:
        found = left(conn, ADMIN, run_ids, RunSearch(statuses=("pending",)), actions.Acted())
        monkeypatch.setattr(actions, "_left", lambda *_: found)
        return lock(conn, run_ids)

    return lock_late


def test_delete_of_pending_runs_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bulk of deletes would stop what has not run yet."""

    def scenario(db: DbVerbs) -> None:
        session = finished(db)
        db.resume(session)
        started(db, BulkAction.DELETE, runs_of(db, [session])[:1])
        work_all(db)
        assert db.count("runs", "status = 'pending'") == 1, "a pending run was deleted"
        db.rows("UPDATE runs SET status = 'stopped', ready = false, completed_at = now() WHERE status = 'pending'")

    def delete_all(conn: Connection, items: Sequence[DeleteSession]) -> Any:
        return delete_sessions(conn, [DeleteSession(item.caller, item.session_id) for item in items])

    scenario(db)
    monkeypatch.setattr(actions, "delete_sessions", delete_all)
    notices(scenario, db, by="was deleted")


def test_replay_without_its_origin_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger itself must see what it counts."""
    break_statement(monkeypatch, submit, "_INSERT_RUNS", {"n.replay_of": "CAST(NULL AS text)"})
    notices(workers_replay_each_run_once, db, by="not replayed once")
