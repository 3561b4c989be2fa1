"""Check that every way to migrate ends in the same schema, from any number of processes at once."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, create_engine, text

from models.schema.migrate import HEAD_LOCK, MigrationBusy, downgrade, upgrade
from models.schema.revisions import MIGRATIONS, newest_revision, revision
from models.schema.tables import metadata
from tests.support.catalog import shape

ROOT = Path(__file__).parents[2]


@pytest.fixture
def url(empty_database_url: str) -> str:
    """Return an empty database, as the migrations expect it."""
    return empty_database_url.replace("postgresql://", "postgresql+psycopg://", 1)


@pytest.fixture
def bare(url: str) -> Iterator[Engine]:
    engine = create_engine(url)
    yield engine
    engine.dispose()


def test_upgrade_brings_an_empty_database_to_the_newest_revision(url: str, bare: Engine) -> None:
    """Report both revisions; the next upgrade finds nothing to do."""
    assert upgrade(url) == (None, newest_revision())
    assert upgrade(url) == (newest_revision(), newest_revision())
    with bare.connect() as connection:
        assert revision(connection) == newest_revision()


def test_downgrade_and_upgrade_restore_the_schema(url: str, bare: Engine) -> None:
    """A downgrade leaves nothing behind, and the upgrade is the same again."""
    upgrade(url)
    with bare.connect() as connection:
        first = shape(connection, functions=True)
    downgrade(url, "base")
    with bare.connect() as connection:
        assert shape(connection, functions=True) == set()
    upgrade(url)
    with bare.connect() as connection:
        assert shape(connection, functions=True) == first


def test_tables_of_code_and_migrations_are_equal(url: str, bare: Engine, engine: Engine) -> None:
    """Compare columns, defaults, CHECKs, indexes with their conditions, and storage as Postgres writes them."""
    metadata.create_all(bare)
    with bare.connect() as ours, engine.connect() as migrated:
        declared, built = shape(ours), shape(migrated)

    assert sorted(declared - built) == [], "declared in models/schema/tables.py, not built by the migrations"
    assert sorted(built - declared) == [], "built by the migrations, not declared in models/schema/tables.py"


def test_alembic_sees_no_difference(engine: Engine) -> None:
    """The next generated revision starts empty."""
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": False})
        assert compare_metadata(context, metadata) == []


def test_concurrent_migrations_migrate_once(url: str, bare: Engine) -> None:
    """Every replica may migrate at its start: one does, the others wait and find it done."""
    script = "import sys; from models.schema.migrate import upgrade; print(*upgrade(sys.argv[1]))"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, url],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(4)
    ]
    said = [process.communicate(timeout=60)[0].strip() for process in processes]

    head = newest_revision()
    assert sorted(said) == sorted([f"None {head}", *[f"{head} {head}"] * 3])
    with bare.connect() as connection:
        assert revision(connection) == head


def test_long_wait_for_another_migration_is_an_error(url: str, bare: Engine) -> None:
    """A lock that is held for ever must not look like a hang."""
    with bare.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": HEAD_LOCK})
        with pytest.raises(MigrationBusy):
            upgrade(url, wait_seconds=0)
        assert revision(connection) is None
    bare.dispose()
    assert upgrade(url) == (None, newest_revision())


def test_failed_revision_leaves_nothing(url: str, bare: Engine) -> None:
    """Report the obstacle; once it is gone the same command succeeds."""
    with bare.begin() as connection:
        connection.execute(text("CREATE TABLE runs (in_the_way int)"))
    with pytest.raises(Exception, match="already exists"):
        upgrade(url)
    with bare.begin() as connection:
        assert shape(connection) == {"table runs p ", "column runs.in_the_way integer"}
        connection.execute(text("DROP TABLE runs"))
    assert upgrade(url) == (None, newest_revision())


def test_every_revision_expands_or_contracts() -> None:
    """Never both: version N-1 runs on the schema of N."""
    names = [path.stem for path in (MIGRATIONS / "versions").glob("*.py")]

    assert names
    assert [name for name in names if not name.startswith(("expand_", "contract_"))] == []


def test_numbering_function_has_its_own_settings(engine: Engine) -> None:
    """Keep out clients' lock timeouts, so that no waiting client holds the head of the feed, and bitmap scans."""
    with engine.connect() as connection:
        settings = connection.execute(text("SELECT proconfig FROM pg_proc WHERE proname = 'sequence_feed'")).scalar()
    assert set(settings or ()) == {"enable_bitmapscan=off", "enable_seqscan=off", "jit=off", "lock_timeout=2s"}
