"""Race workers that read ended runs for their spans with each other."""

from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import Connection

from models.tracing import ended_runs
from tests.support.db_verbs import DbVerbs
from tests.support.numbering import number_all
from tests.support.reports import accepted, running

WORKERS = 8
SAMPLED = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def workers_export_each_run_once(db: DbVerbs) -> None:
    """Let workers read small passes at once, then compare with the runs."""

    def work(conn: Connection) -> list[str]:
        return [run.run_id for run in ended_runs.next_ended_runs(conn, most=3).runs]

    runs = [running(db, traceparent=SAMPLED) for _ in range(12)]
    for run in runs:
        accepted(db, run, "completed")
    number_all(db)
    with ThreadPoolExecutor(WORKERS) as threads:
        passes = [threads.submit(db.do, work) for _ in range(20 * WORKERS)]
        found = [run_id for each in passes for run_id in each.result()]
    while db.one("SELECT last_pos > (SELECT position FROM trace_head) FROM feed_head"):
        found += db.do(work)
    assert sorted(found) == sorted(run.run_id for run in runs), "a run was exported twice, or never"


def test_workers_export_each_run_once(db: DbVerbs) -> None:
    """Use real commits of eight workers."""
    workers_export_each_run_once(db)
