"""Kill an import wherever it is: the next one completes it, and nothing comes twice or by halves."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from runtime.settings import Settings
from testkit.waiting import eventually
from tests.support.db_verbs import DbVerbs
from tests.support.numbering import assert_dense
from tests.support.old_database import OldDatabase, imported, refusals

# Run the real command with small groups, and kill it before the given statement or commit.
KILLED = """
import os, signal, sys
from sqlalchemy import Engine, event
import models.transfer.old_file

models.transfer.old_file.MOST_SESSIONS = 3
models.transfer.old_file.MOST_EVENTS = 8
seen = 0

def count(*_):
    global seen
    seen += 1
    if seen == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)

event.listen(Engine, "before_cursor_execute", count)
event.listen(Engine, "commit", count)
from cli.main import app
app(["import", "--sqlite", sys.argv[2]])
"""
ITS_OWN = "datname = current_database() AND application_name = 'coordinator import'"
STEP = 10


def ledger(db: DbVerbs) -> dict[str, Any]:
    """Return for each session the numbers of its runs and events."""
    rows = db.rows("""
        SELECT s.session_id, (SELECT count(*) FROM runs r WHERE r.session_id = s.session_id) AS runs,
            (SELECT count(*) FROM events e WHERE e.session_id = s.session_id AND e.kind = 'event') AS events,
            (SELECT count(*) FROM events e WHERE e.session_id = s.session_id AND e.kind = 'session_created') AS told
        FROM sessions s
    """)
    return {row.session_id: (row.runs, row.events, row.told) for row in rows}


def test_killed_import_is_completed_by_the_next_one(settings: Settings, db: DbVerbs, tmp_path: Path) -> None:
    """Kill one after another, each a few steps later, on one database; every session is whole at any time."""
    old = OldDatabase(tmp_path / "old.db")
    old.fill(8, 3)
    # Does not fit into memory, by the bounds above.
    old.session("ses_large")
    for _ in range(20):
        old.event("ses_large")
    whole = {f"ses_{number:012x}": (1, 3, 1) for number in range(8)} | {"ses_large": (0, 20, 1)}
    deaths = 0
    for moment in range(6, 200, STEP):
        command = [sys.executable, "-c", KILLED, str(moment), str(old.path)]
        environment = {"DATABASE_URL": settings.database_url, "PATH": ""}
        process = subprocess.run(command, cwd=Path(__file__).parents[2], env=environment, check=False)
        eventually(lambda: db.count("pg_stat_activity", ITS_OWN) == 0, what="the end of its transactions")
        found = ledger(db)
        assert found.items() <= whole.items()
        assert_dense(db)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        deaths += 1
    assert deaths >= 3
    assert ledger(db) == whole
    again = imported(db.engine, old)
    assert (again.sessions, again.already_there, refusals(again)) == (0, 9, {})
