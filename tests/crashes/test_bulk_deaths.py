"""Kill a worker while it executes a bulk: the next one acts on every run once."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
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

# For each number read, fork a worker, since imports take longer than all its steps. Kill it before the statement or
# commit of that number; print its exit code, and before that its number of steps if it came to the end.
KILLED = """
import os, signal, sys, traceback
from runtime.settings import Settings
from sqlalchemy import event
from workers.bulk import execute_bulks
from workers.context import worker_context

def work(moment):
    seen = 0

    def count(_, *rest):
        nonlocal seen
        seen += 1
        if seen == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    with worker_context(Settings(database_url=sys.argv[1], redis_url=sys.argv[2]), threads=1) as context:
        event.listen(context.engine, "commit", count)
        event.listen(context.engine, "before_cursor_execute", count)
        execute_bulks(context)
    print(seen, flush=True)

for line in sys.stdin:
    pid = os.fork()
    if not pid:
        try:
            work(int(line))
            os._exit(0)
        except Exception:
            traceback.print_exc()
            os._exit(1)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
ITS_OWN = "datname = current_database() AND application_name = 'coordinator worker'"
CHUNKS = 2
RunWorker = Callable[[int], int]


@pytest.fixture
def run_worker(settings: Settings) -> Iterator[RunWorker]:
    """Return a function that executes bulks and is killed at a step; it returns the exit code, for step 0 the steps."""
    command = [sys.executable, "-c", KILLED, settings.database_url, settings.redis_url]
    with subprocess.Popen(
        command, cwd=Path(__file__).parents[2], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin
        assert process.stdout
        lines, answers = process.stdin, process.stdout

        def answered() -> int:
            """Pass over the lines of the worker's log."""
            line = answers.readline()
            while not re.fullmatch(r"-?\d+\n", line):
                assert line, "the workers have ended"
                line = answers.readline()
            return int(line)

        def run(moment: int) -> int:
            lines.write(f"{moment}\n")
            lines.flush()
            first = answered()
            if moment == 0:
                assert answered() == 0
            return first

        yield run
        lines.close()


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
