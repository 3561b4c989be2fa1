"""Kill a worker while it executes a bulk: the next one acts on every run once."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from models.core.statuses import BulkAction
from runtime.settings import Settings
from testkit.waiting import eventually
from tests.support.bulks import ledger, runs_of, started, state
from tests.support.db_verbs import DbVerbs
from tests.support.reports import finished
from workers.bulk import execute_bulks
from workers.context import worker_context

# Kill it before the given statement or commit.
KILLED = """
import os, signal, sys
from runtime.settings import Settings
from sqlalchemy import event
from workers.bulk import execute_bulks
from workers.context import worker_context

with worker_context(Settings(database_url=sys.argv[1], redis_url=sys.argv[2]), threads=1) as context:
    seen = 0

    def count(_, *rest):
        global seen
        seen += 1
        if seen == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(context.engine, "commit", count)
    event.listen(context.engine, "before_cursor_execute", count)
    execute_bulks(context)
    print(seen)
"""
ITS_OWN = "datname = current_database() AND application_name = 'coordinator worker'"
CHUNKS = 2


def run_worker(settings: Settings, moment: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", KILLED, settings.database_url, settings.redis_url, str(moment)]
    return subprocess.run(command, cwd=Path(__file__).parents[2], check=False, capture_output=True, text=True)


def steps_of(settings: Settings, db: DbVerbs, action: BulkAction) -> int:
    """Return how many statements and commits a whole bulk takes."""
    started(db, action, runs_of(db, [finished(db) for _ in range(2 * CHUNKS)]))
    done = run_worker(settings, 0)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1])


@pytest.mark.timeout(900)
@pytest.mark.parametrize("action", [BulkAction.REPLAY, BulkAction.DELETE])
def test_killed_worker_leaves_every_run_to_be_acted_on_once(
    settings: Settings, db: DbVerbs, action: BulkAction
) -> None:
    """Kill a worker at each step of a bulk, all on one bulk; the next one finishes it."""
    steps = steps_of(settings, db, action)
    before = ledger(db)
    ended = runs_of(db, [finished(db) for _ in range(steps)])
    bulk_id = started(db, action, ended, chunk=1)
    for moment in range(1, steps // CHUNKS + 3):
        killed = run_worker(settings, moment)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
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
