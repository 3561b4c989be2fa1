"""Chunks of bulks that fail: what is tried again, what becomes an error of the bulk, and when a bulk is given up."""

from models.bulk.chunks import MOST_FAULTS, set_chunk_aside, take_chunk
from models.core.statuses import BulkAction
from tests.support.bulks import pending, started, state, work, work_all
from tests.support.clocks import pass_time
from tests.support.db_verbs import DbVerbs


def test_chunk_that_fails_is_halved_until_its_run_is_alone(db: DbVerbs) -> None:
    """Act on the others; the one to blame is an error of the bulk."""
    run_ids = pending(db, 5)
    bulk_id = started(db, BulkAction.STOP, run_ids, chunk=5)
    bad = run_ids[3]
    for _ in range(20):
        with db.engine.begin() as connection:
            chunk = take_chunk(connection)
        if chunk is None:
            break
        if bad in chunk.run_ids:
            db.do(set_chunk_aside, chunk, "broken", is_passing=False)
        else:
            work(db)
    bulk = state(db, bulk_id)
    assert (bulk.state, bulk.done, bulk.changed, bulk.errors) == (
        "completed",
        5,
        4,
        [{"run_id": bad, "error": "broken"}],
    )
    assert db.run(bad).status == "pending"


def test_passing_fault_is_tried_again(db: DbVerbs) -> None:
    """Wait a second before each further attempt; give up after five."""
    bulk_id = started(db, BulkAction.STOP, pending(db, 1))
    for attempt in range(5):
        with db.engine.begin() as connection:
            chunk = take_chunk(connection)
        assert chunk is not None
        assert chunk.attempts == attempt
        db.do(set_chunk_aside, chunk, "locked", is_passing=True)
        pass_time(db, "bulk_jobs", "due_at", 4)
    assert [error["error"] for error in state(db, bulk_id).errors] == ["locked"]


def test_bulk_whose_runs_all_fail_is_given_up(db: DbVerbs) -> None:
    bulk_id = started(db, BulkAction.STOP, pending(db, MOST_FAULTS + 3), chunk=1)
    for _ in range(MOST_FAULTS):
        with db.engine.begin() as connection:
            chunk = take_chunk(connection)
        assert chunk is not None
        db.do(set_chunk_aside, chunk, "broken", is_passing=False)
    bulk = state(db, bulk_id)
    assert (bulk.state, bulk.done, len(bulk.errors)) == ("failed", MOST_FAULTS, MOST_FAULTS)
    assert (work(db), db.count("bulk_chunks")) == (None, 0)


def test_chunk_that_was_done_meanwhile_is_not_set_aside(db: DbVerbs) -> None:
    bulk_id = started(db, BulkAction.STOP, pending(db, 1))
    with db.engine.begin() as connection:
        chunk = take_chunk(connection)
    assert chunk is not None
    work_all(db)
    db.do(set_chunk_aside, chunk, "late", is_passing=False)
    assert (state(db, bulk_id).done, state(db, bulk_id).errors) == (1, [])
