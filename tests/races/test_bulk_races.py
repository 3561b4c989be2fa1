"""Race workers that execute one bulk with each other, with its stop, and with clients and runners."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from models.bulk.chunks import execute_chunk, take_chunk
from models.bulk.jobs import Bulk, StartBulk, StopBulk, start_bulks, stop_bulks
from models.core.callers import ADMIN
from models.core.limits import DEFAULT_LIMITS
from models.core.statuses import BulkAction
from models.runs.search import RunSearch
from models.runs.stop import StopRun, stop_runs
from runtime.postgres import is_retryable
from tests.support.bulks import ledger, prepared, runs_of, started, state, work
from tests.support.contenders import run_in_threads, steppers
from tests.support.db_verbs import DbVerbs, Runner, accepted, start_submission
from tests.support.reports import finished

WORKERS = 8
EACH = 24


def repeatedly(call: Callable[[], Any]) -> Any:
    """Call until no transaction of another contender makes it fail, as a worker does with its next tick."""
    while True:
        try:
            return call()
        except Exception as fault:
            if not is_retryable(fault):
                raise


def drain(db: DbVerbs, bulk_id: str) -> int:
    """Execute chunks until the bulk has ended; return how many runs were changed."""
    changed = 0
    while state(db, bulk_id).state == "running":
        executed = repeatedly(lambda: work(db))
        changed += 0 if executed is None else executed.changed
    return changed


def workers_replay_each_run_once(db: DbVerbs) -> None:
    """Let workers execute one bulk of small chunks at once; then look at the ledger of replays."""
    ended = runs_of(db, [finished(db) for _ in range(EACH)])
    bulk_id = started(db, BulkAction.REPLAY, ended, chunk=1)
    with ThreadPoolExecutor(WORKERS) as threads:
        try:
            changed = sum(threads.map(lambda _: drain(db, bulk_id), range(WORKERS)))
        except IntegrityError as refused:
            raise AssertionError("the progress is wrong: the table refuses it") from refused
    assert ledger(db) == dict.fromkeys(ended, 1), "a run was not replayed once"
    bulk = state(db, bulk_id)
    assert (bulk.state, bulk.done, bulk.changed, changed) == ("completed", EACH, EACH, EACH), "the progress is wrong"


def test_workers_replay_each_run_once(db: DbVerbs) -> None:
    """Use real commits of eight workers."""
    workers_replay_each_run_once(db)


def test_second_worker_passes_over_bulk_in_progress(db: DbVerbs) -> None:
    """Wait for nothing: the next chunk is taken after the commit of the one before."""
    ended = runs_of(db, [finished(db) for _ in range(4)])
    started(db, BulkAction.REPLAY, ended)
    with steppers(db.engine, 2) as (one, other):
        first = one.do(take_chunk).result()
        assert first is not None
        assert other.do(take_chunk).result() is None
        other.rollback()
        one.do(execute_chunk, first, limits=DEFAULT_LIMITS)
        one.commit()
        second = other.do(take_chunk).result()
        assert second is not None
        assert set(second.run_ids) == set(ended) - set(first.run_ids)


def test_repeated_token_starts_one_bulk(db: DbVerbs) -> None:
    """Send it from many clients at once."""
    token = prepared(db, BulkAction.STOP, [[db.start().run_id]])
    results = run_in_threads(WORKERS, lambda _: db.do(start_bulks, [StartBulk(ADMIN, token)])[0])
    assert len({result.bulk_id for result in results if isinstance(result, Bulk)}) == 1
    assert all(isinstance(result, Bulk) for result in results)


def stop_waits_for_the_chunk_in_progress(db: DbVerbs) -> None:
    """Answer with what was done up to the stop, of which nothing is undone and nothing added."""
    ended = runs_of(db, [finished(db) for _ in range(4)])
    bulk_id = started(db, BulkAction.REPLAY, ended)
    with steppers(db.engine, 2) as (worker, client):
        chunk = worker.do(take_chunk).result()
        assert chunk is not None
        stopping = client.do(stop_bulks, [StopBulk(ADMIN, bulk_id)])
        assert client.waits, "the stop did not wait for the chunk"
        worker.do(execute_chunk, chunk, limits=DEFAULT_LIMITS)
        worker.commit()
        (bulk,) = stopping.result()
        client.commit()
    assert isinstance(bulk, Bulk)
    assert (bulk.state, bulk.done, len(ledger(db))) == ("stopped", 2, 2), "the answer is not what was done"
    assert work(db) is None
    assert len(ledger(db)) == 2


def test_stop_waits_for_the_chunk_in_progress(db: DbVerbs) -> None:
    stop_waits_for_the_chunk_in_progress(db)


def test_workers_and_stop_leave_done_and_ledger_equal(db: DbVerbs) -> None:
    """Stop at any moment while workers go on."""
    ended = runs_of(db, [finished(db) for _ in range(EACH)])
    bulk_id = started(db, BulkAction.REPLAY, ended, chunk=1)
    with ThreadPoolExecutor(WORKERS) as threads:
        drains = [threads.submit(drain, db, bulk_id) for _ in range(WORKERS - 1)]
        (bulk,) = repeatedly(lambda: db.do(stop_bulks, [StopBulk(ADMIN, bulk_id)]))
        for each in drains:
            each.result()
    assert isinstance(bulk, Bulk)
    assert bulk.done == state(db, bulk_id).done == len(ledger(db))
    assert set(ledger(db).values()) <= {1}
    assert bulk.state in {"stopped", "completed"}


def test_bulk_and_single_stops_stop_each_run_once(db: DbVerbs) -> None:
    """Write one end for each run, whichever of them stops it."""
    run_ids = [one.run_id for one in (accepted(each) for each in db.submit(*[start_submission() for _ in range(EACH)]))]
    bulk_id = started(db, BulkAction.STOP, run_ids, chunk=4)

    def contend(place: int) -> None:
        if place % 2:
            drain(db, bulk_id)
        else:
            for run_id in run_ids[place::4]:
                repeatedly(lambda run_id=run_id: db.do(stop_runs, [StopRun(ADMIN, run_id)]))

    run_in_threads(4, contend)
    bulk = state(db, bulk_id)
    assert (bulk.state, bulk.done) == ("completed", EACH)
    assert bulk.changed + sum(bulk.skipped.values()) == EACH
    assert db.count("runs", "status = 'stopped'") == EACH


def run_that_starts_meanwhile_is_left_alone(db: DbVerbs) -> None:
    """Claim a run between the dry run for waiting ones and the chunk, whose lock the claim keeps waiting."""
    run_id = db.start().run_id
    runner = db.runner()
    bulk_id = started(db, BulkAction.STOP, [run_id], which=RunSearch(statuses=("pending",)))
    with steppers(db.engine, 2) as (claimer, worker):
        claimer.do(claim_by_hand, run_id, runner)
        executing = worker.do(take_and_execute)
        assert worker.waits, "the chunk did not wait for the claim"
        claimer.commit()
        executing.result()
        worker.commit()
    assert db.run(run_id).status == "claimed", "a run that no longer matches was stopped"
    assert state(db, bulk_id).changed == 0


def test_run_that_starts_meanwhile_is_left_alone(db: DbVerbs) -> None:
    run_that_starts_meanwhile_is_left_alone(db)


def claim_by_hand(connection: Connection, run_id: str, runner: Runner) -> None:
    """Update the row as a claim does."""
    connection.execute(
        text(
            "UPDATE runs SET status = 'claimed', ready = false, claim_token = run_id, runner_id = :r,"
            " registration = :n, claimed_at = now(), delivered_at = now() WHERE run_id = :run"
        ),
        {"r": runner.runner_id, "n": runner.registration, "run": run_id},
    )


def take_and_execute(connection: Connection) -> None:
    chunk = take_chunk(connection)
    assert chunk is not None
    execute_chunk(connection, chunk, limits=DEFAULT_LIMITS)
