"""Import while others import the same file, submit runs and number events: nothing twice, no gap, no inversion."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text

from models.transfer import old_file
from models.transfer.write import wait_for_other_imports
from runtime.postgres import sync_engine, transaction
from runtime.settings import Settings
from testkit.waiting import eventually
from tests.support.db_verbs import DbVerbs
from tests.support.numbering import assert_dense, number_events
from tests.support.old_database import OldDatabase, imported, refusals

SESSIONS, EVENTS, IMPORTS, SUBMISSIONS = 12, 4, 3, 30


@pytest.fixture(autouse=True)
def _small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(old_file, "MOST_SESSIONS", 2)


def test_concurrent_imports_store_each_session_once_beside_live_traffic(db: DbVerbs, tmp_path: Path) -> None:
    old = OldDatabase(tmp_path / "old.db")
    old.fill(SESSIONS, EVENTS)

    def submit() -> None:
        for _ in range(SUBMISSIONS):
            db.start()
            number_events(db)

    with ThreadPoolExecutor(IMPORTS + 1) as threads:
        traffic = threads.submit(submit)
        imports = [threads.submit(imported, db.engine, old) for _ in range(IMPORTS)]
        reports = [done.result() for done in imports]
        traffic.result()
    assert [refusals(report) for report in reports] == [{}] * IMPORTS
    assert sum(report.sessions for report in reports) == SESSIONS
    assert sum(report.already_there for report in reports) == SESSIONS * (IMPORTS - 1)
    assert db.count("sessions") == SESSIONS + SUBMISSIONS
    assert db.count("events", "kind = 'event' AND session_id LIKE 'ses_0000%'") == SESSIONS * EVENTS
    assert_dense(db)
    # Events of one session keep their order of ids, however passes and imports took turns.
    inverted = "SELECT count(*) FROM (SELECT id, max(id) OVER (PARTITION BY session_id ORDER BY feed_pos) AS top FROM events) e"
    assert db.one(f"{inverted} WHERE id < top") == 0


def test_import_waits_for_another_beyond_the_time_limits(settings: Settings, db: DbVerbs, tmp_path: Path) -> None:
    """Let a group of the other take longer than a statement may take or wait for a lock."""
    old = OldDatabase(tmp_path / "old.db")
    old.fill(1, 1)
    short = {"lock_timeout_seconds": 0.2, "statement_timeout_seconds": 0.3}
    ours = sync_engine(settings.model_copy(update=short), pool_size=1, name="late import")
    waits = "application_name = 'late import' AND wait_event = 'advisory' AND clock_timestamp() - query_start > '1 s'"
    with ThreadPoolExecutor(1) as threads:
        with transaction(db.engine) as other:
            other.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('coordinator.import', 0))"))
            late = threads.submit(imported, ours, old)
            eventually(lambda: late.done() or db.count("pg_stat_activity", waits), what="the wait of the import")
            assert not late.done(), late.exception()
        assert late.result().sessions == 1
    ours.dispose()


def test_time_limits_are_back_once_other_imports_have_ended(db: DbVerbs) -> None:
    limits = text("SELECT current_setting('lock_timeout'), current_setting('statement_timeout')")
    with transaction(db.engine) as connection:
        before = connection.execute(limits).one()
        wait_for_other_imports(connection)
        assert connection.execute(limits).one() == before


def events_committed_before_an_import_come_before_it(db: DbVerbs, path: Path) -> None:
    """Leave them without positions until the import."""
    before = [db.start().session_id for _ in range(3)]
    old = OldDatabase(path)
    old.fill(1, 1)
    imported(db.engine, old)
    db.start(session_id="later")
    assert_dense(db)
    order = [row.session_id for row in db.rows("SELECT session_id FROM events WHERE kind <> 'audit' ORDER BY feed_pos")]
    assert list(dict.fromkeys(order)) == [*before, "ses_000000000000", "later"], "the feed is out of order"


def test_events_committed_before_an_import_come_before_it(db: DbVerbs, tmp_path: Path) -> None:
    events_committed_before_an_import_come_before_it(db, tmp_path / "old.db")
