"""Race workers that count the history with each other, and with those who make it."""

from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import Connection

from models.overview import rollup
from tests.support.db_verbs import DbVerbs
from tests.support.numbering import number_all
from tests.support.overview import counted, history, ledger, rolled_up

WORKERS = 8


def workers_count_each_event_once(db: DbVerbs) -> None:
    """Let workers count small batches at once while runs go on; then compare with the runs."""

    def work(conn: Connection) -> int:
        return rollup.roll_up(conn, most=3)

    history(db)
    number_all(db)
    with ThreadPoolExecutor(WORKERS) as threads:
        passes = [threads.submit(db.do, work) for _ in range(10 * WORKERS)]
        history(db)
        number_all(db)
        passes += [threads.submit(db.do, work) for _ in range(10 * WORKERS)]
        assert any(one.result() for one in passes)
    rolled_up(db)
    assert counted(db) == ledger(db), "the counts differ from the runs"
    assert counted(db, 3600) == ledger(db), "the counts differ from the runs"


def test_workers_count_each_event_once(db: DbVerbs) -> None:
    """Use real commits of eight workers."""
    workers_count_each_event_once(db)
