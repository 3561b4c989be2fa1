"""Kill a worker while it counts the history: the next one counts every event once."""

import signal
import subprocess
import sys
from pathlib import Path

from models.overview.rollup import roll_up
from runtime.settings import Settings
from testkit.waiting import eventually
from tests.support.db_verbs import DbVerbs
from tests.support.numbering import number_all
from tests.support.overview import counted, history, ledger, rolled_up
from workers.context import worker_context
from workers.stats import roll_up_due

# Let it commit its duty and one batch; kill it before each statement and the commit of the next.
KILLED = """
import os, signal, sys
import models.overview.rollup
import workers.stats
from functools import partial
from runtime.settings import Settings
from sqlalchemy import event
from workers.context import worker_context

workers.stats.roll_up = partial(models.overview.rollup.roll_up, most=10)
workers.stats.MOST_EVENTS = 10
with worker_context(Settings(database_url=sys.argv[1], redis_url=sys.argv[2]), threads=1) as context:
    seen = 0

    def count(_, *rest):
        global seen
        seen += 1
        if seen == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(context.engine, "commit", count)
    event.listen(context.engine, "before_cursor_execute", count)
    workers.stats.roll_up_due(context, 0)
"""
# Of the duty: two statements and a commit; of each batch: three statements and a commit.
MOMENTS = range(8, 12)
ITS_OWN = "datname = current_database() AND application_name = 'coordinator worker'"


def test_killed_worker_counts_nothing_twice(settings: Settings, db: DbVerbs) -> None:
    """Kill one at each step of its second batch, all on one history."""
    history(db)
    number_all(db)
    for moment in MOMENTS:
        command = [sys.executable, "-c", KILLED, settings.database_url, settings.redis_url, str(moment)]
        process = subprocess.run(command, cwd=Path(__file__).parents[2], check=False)
        assert process.returncode == -signal.SIGKILL
        eventually(lambda: db.count("pg_stat_activity", ITS_OWN) == 0, what="the end of its transactions")
    assert counted(db) != ledger(db)
    with worker_context(settings, threads=1) as context:
        assert roll_up_due(context, 0)
    assert counted(db) == counted(db, 3600) == ledger(db)
    rolled_up(db)
    assert db.do(roll_up) == 0
    assert counted(db) == ledger(db)
