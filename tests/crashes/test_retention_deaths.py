"""Kill a worker within retention: oldest position and rows agree, and the next worker continues (promises 2 and 3)."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from models.feed.sequence import read_head
from runtime.settings import Settings
from testkit.waiting import eventually
from tests.support.db_verbs import DbVerbs
from tests.support.numbering import assert_dense
from tests.support.reports import finished
from tests.support.retention import all_grows_old, old_history, result, retire
from workers.context import worker_context
from workers.retention import retire_due

# Kill it when it is about to send a statement or to commit; it commits once more for its duty.
KILLED = """
import os, signal, sys
import models.feed.retention
import workers.retention
from functools import partial
from runtime.settings import Settings
from sqlalchemy import event
from workers.context import worker_context

workers.retention.retire_events = partial(models.feed.retention.retire_events, most=4)
settings = Settings(database_url=sys.argv[1], redis_url=sys.argv[2], retention_days=30)
with worker_context(settings, threads=1) as context:
    passes = 0

    @event.listens_for(context.engine, "before_cursor_execute")
    def die(connection, cursor, statement, *rest):
        global passes
        if statement.strip().startswith(sys.argv[3]):
            passes += 1
        if passes == int(sys.argv[4]):
            os.kill(os.getpid(), signal.SIGKILL)

    @event.listens_for(context.engine, "commit")
    def die_before_the_commit(connection):
        global passes
        if sys.argv[3] == "commit":
            passes += 1
        if passes == int(sys.argv[4]) + 1:
            os.kill(os.getpid(), signal.SIGKILL)

    workers.retention.retire_due(context, 0)
"""


def killed(settings: Settings, db: DbVerbs, moment: str, time: int = 2) -> None:
    """Kill a worker when it reaches that moment for the given time; wait until Postgres has rolled back its
    transaction.
    """
    command = [sys.executable, "-c", KILLED, settings.database_url, settings.redis_url, moment, str(time)]
    process = subprocess.run(command, cwd=Path(__file__).parents[2], check=False)
    assert process.returncode == -signal.SIGKILL
    its_own = "datname = current_database() AND application_name = 'coordinator worker'"
    eventually(lambda: db.count("pg_stat_activity", its_own) == 0, what="the end of its transactions")


@pytest.mark.parametrize("moment", ["INSERT INTO kept_results", "DELETE FROM events", "UPDATE feed_head", "commit"])
def test_oldest_position_and_rows_agree_wherever_a_worker_was_killed(
    settings: Settings, db: DbVerbs, moment: str
) -> None:
    """A committed pass counts; an uncommitted one has left nothing."""
    old_history(db, 10)
    killed(settings, db, moment)
    assert db.do(read_head).floor == 4
    assert_dense(db)
    assert retire(db) == 6
    assert_dense(db)


def test_session_is_removed_wholly_or_not_at_all(settings: Settings, db: DbVerbs) -> None:
    """Kill the worker while it removes sessions; the next worker's duty removes the rest."""
    for _ in range(3):
        result(db, finished(db), "kept")
    all_grows_old(db)
    retire(db)
    killed(settings, db, "DELETE FROM sessions", 1)
    assert [db.count(table) for table in ("sessions", "runs", "kept_results")] == [3, 3, 3]
    assert db.count("events") == 0
    with worker_context(settings.model_copy(update={"retention_days": 30.0}), threads=1) as context:
        assert retire_due(context, 0)
    assert [db.count(table) for table in ("sessions", "runs", "kept_results")] == [0, 0, 0]
    assert db.count("events", "kind = 'session_deleted'") == 3
