"""Kill a worker while it executes a bulk: the next one acts on every run once."""

import signal
from collections.abc import Iterator

import pytest

from models.core.statuses import BulkAction
from runtime.settings import Settings
from testkit.waiting import eventually
from tests.support.bulks import ledger, runs_of, started, state
from tests.support.db_verbs import DbVerbs
from tests.support.killed_workers import ITS_OWN, RunWorker, killed_workers
from tests.support.reports import finished
from workers.bulk import execute_bulks
from workers.context import worker_context

CHUNKS = 2


@pytest.fixture
def run_worker(settings: Settings) -> Iterator[RunWorker]:
    with killed_workers(settings, "workers.bulk", "execute_bulks") as run_worker:
        yield run_worker


def steps_of(run_worker: RunWorker, db: DbVerbs, action: BulkAction) -> int:
    """Return how many statements and commits a whole bulk takes."""
    started(db, action, runs_of(db, [finished(db) for _ in range(2 * CHUNKS)]))
    return run_worker(0)


@pytest.mark.parametrize("action", [BulkAction.REPLAY, BulkAction.DELETE])
def test_killed_worker_leaves_every_run_to_be_acted_on_once(
    settings: Settings, db: DbVerbs, run_worker: RunWorker, action: BulkAction
) -> None:
    """Kill a worker at each step of a bulk, all on one bulk; the next one finishes it."""
    steps = steps_of(run_worker, db, action)
    before = ledger(db)
    ended = runs_of(db, [finished(db) for _ in range(steps)])
    bulk_id = started(db, action, ended, chunk=1)
    for moment in range(1, steps // CHUNKS + 3):
        assert run_worker(moment) == -signal.SIGKILL
        eventually(lambda: db.count("pg_stat_activity", ITS_OWN) == 0, what="the end of its transactions")
    assert state(db, bulk_id).state == "running"
    with worker_context(settings, threads=1) as context:
        while state(db, bulk_id).state == "running":
            execute_bulks(context)
    bulk = state(db, bulk_id)
    assert (bulk.state, bulk.done, bulk.changed) == ("completed", len(ended), len(ended))
    if action is BulkAction.REPLAY:
        assert {run_id: number for run_id, number in ledger(db).items() if run_id not in before} == dict.fromkeys(
            ended, 1
        )
    else:
        assert db.count("runs", "run_id = ANY(:r)", r=ended) == 0
