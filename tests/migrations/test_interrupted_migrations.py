"""Check migrations that are killed midway, and those of a later release: the next try finishes them."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import OperationalError

from models.schema.migrate import downgrade, upgrade
from models.schema.revisions import newest_revision, revision, schema_fault
from testkit.servers import new_directory
from testkit.waiting import eventually
from tests.support.catalog import shape
from tests.support.next_release import Release, next_release

INVALID = text("SELECT count(*) FROM pg_index WHERE NOT indisvalid")
BUILDERS = text("""
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND query LIKE 'CREATE INDEX CONCURRENTLY%' AND wait_event_type = 'Lock'
""")
WAITING = text("""
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%ALTER TABLE child_results%'
""")
UNLOCKED = text("""
    SELECT count(*) = 0 FROM pg_locks JOIN pg_database d ON d.oid = database
    WHERE locktype = 'advisory' AND datname = current_database()
""")


@pytest.fixture
def url(database_url: str) -> str:
    return database_url.replace("postgresql://", "postgresql+psycopg://", 1)


@pytest.fixture
def watch(url: str) -> Iterator[Connection]:
    """Connect to look at the database while other connections work on it."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@pytest.fixture
def other(url: str) -> Iterator[Connection]:
    """Connect for a transaction that lasts as long as the test wants."""
    engine = create_engine(url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@pytest.fixture
def release(scratch: Path) -> Release:
    return next_release(new_directory(scratch, "release"))


def ended(release: Release, url: str) -> str:
    """Run a migration that succeeds and return its output."""
    process = release.migrate(url)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    return said


def test_killed_migration_is_finished_by_the_next(
    release: Release, url: str, watch: Connection, other: Connection
) -> None:
    """The revision under way is applied wholly or not at all; its lock ends with the process."""
    downgrade(url, "0002")
    before = shape(watch)
    other.execute(text("LOCK TABLE child_results IN ACCESS SHARE MODE"))
    process = release.migrate(url)
    eventually(lambda: watch.execute(WAITING).scalar_one(), 30, what="it waits in the middle of 0003")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    other.close()
    eventually(lambda: watch.execute(UNLOCKED).scalar_one(), what="its lock is gone")
    assert revision(watch) in {"0002", "0003"}
    assert revision(watch) == "0003" or shape(watch) == before

    assert "9999" in ended(release, url)
    assert revision(watch) == "9999"


def test_table_in_use_is_retried_with_short_waits(url: str, watch: Connection, other: Connection) -> None:
    """Wait briefly each time, since later requests queue behind us."""
    downgrade(url, "0002")
    other.execute(text("LOCK TABLE child_results IN ACCESS SHARE MODE"))
    said: list[str] = []

    def hear(line: str) -> None:
        said.append(line)
        if len(said) == 2:
            other.rollback()

    upgrade(url, say=hear)
    assert said == ["a table is in use: trying again"] * 2
    assert revision(watch) == newest_revision()


def test_wait_for_a_table_in_use_is_bounded(url: str, watch: Connection, other: Connection) -> None:
    """Raise the error of Postgres and change nothing."""
    downgrade(url, "0002")
    other.execute(text("LOCK TABLE child_results IN ACCESS SHARE MODE"))
    with pytest.raises(OperationalError, match="lock timeout"):
        upgrade(url, wait_seconds=0)
    assert revision(watch) == "0002"


def test_index_with_interrupted_build_is_rebuilt(
    release: Release, url: str, watch: Connection, other: Connection
) -> None:
    """Otherwise the revision would count as built, and every write would pay for an index that no query uses."""
    other.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
    other.execute(text("SELECT count(*) FROM duties"))  # This snapshot is older than the build.
    process = release.migrate(url)
    (builder,) = eventually(lambda: watch.execute(BUILDERS).all(), 30, what="the build waits for older transactions")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    watch.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": builder.pid})
    eventually(lambda: not watch.execute(BUILDERS).all(), what="the build has ended")
    assert watch.execute(INVALID).scalar_one() == 1
    assert revision(watch) == "9998"
    other.rollback()

    said = ended(release, url)
    assert "index public.ix_runs_note was left unfinished: rebuilding it" in said
    assert watch.execute(INVALID).scalar_one() == 0
    assert revision(watch) == "9999"


def test_invalid_index_of_a_recorded_revision_is_rebuilt(url: str, watch: Connection) -> None:
    """Drop the leftover of a REINDEX too. Print nothing if all indexes are valid."""
    watch.execute(text("CREATE INDEX ix_runs_labels_ccnew ON runs (labels)"))
    watch.execute(
        text("""
            UPDATE pg_index SET indisvalid = false
            WHERE indexrelid IN ('ix_runs_labels_ccnew'::regclass, 'ix_runs_newest'::regclass)
        """)
    )
    said: list[str] = []
    upgrade(url, say=said.append)

    assert said == [
        "index public.ix_runs_labels_ccnew was left unfinished: removing it",
        "index public.ix_runs_newest was left unfinished: rebuilding it",
    ]
    assert watch.execute(INVALID).scalar_one() == 0
    assert watch.execute(text("SELECT to_regclass('ix_runs_labels_ccnew') IS NULL")).scalar_one()
    upgrade(url, say=said.append)
    assert len(said) == 2


def test_unbuildable_unique_index_is_reported(url: str, watch: Connection) -> None:
    """Duplicate rows need a person's decision; migrate nothing meanwhile."""
    watch.execute(text("CREATE TABLE twice (a int); INSERT INTO twice VALUES (1), (1)"))
    with pytest.raises(Exception, match="could not create unique index"):
        watch.execute(text("CREATE UNIQUE INDEX CONCURRENTLY ix_twice ON twice (a)"))

    with pytest.raises(Exception, match=r"could not create unique index|duplicated"):
        upgrade(url)
    watch.execute(text("DROP TABLE twice"))
    assert upgrade(url) == (newest_revision(), newest_revision())


def test_this_schema_and_newer_ones_are_served(url: str, watch: Connection) -> None:
    """Refuse older ones, or none, and say what to do; newer ones were only expanded."""
    assert schema_fault(watch) is None
    downgrade(url, "0002")
    assert (
        schema_fault(watch)
        == f"the schema is at 0002, this version needs {newest_revision()}: run `coordinator migrate`"
    )
    downgrade(url, "base")
    assert str(schema_fault(watch)).startswith("the schema is at nothing")
    upgrade(url)
    watch.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert schema_fault(watch) is None
