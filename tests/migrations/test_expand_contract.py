"""Check that each revision expands or contracts: version N-1 runs beside it, and no request waits long for it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from models.schema.migrate import MIGRATIONS
from tests.support.revisions import Revision, faults, revisions

SQUAWK = Path(sys.executable).with_name("squawk")
# The connection sets both timeouts (models/schema/migrations/env.py); int columns are intended.
NOT_ASKED = "require-statement-timeout,require-lock-timeout,prefer-bigint-over-int,prefer-robust-stmts"
# Checked more precisely above: a concurrent index is alone in its block, and only contractions drop.
NOT_ASKED += ",transaction-nesting,ban-uncommitted-transaction,ban-drop-constraint"
# Ordinary index on a table that nothing had written before.
ACCEPTED = {("0003", "child_results")}

BLOCK = "COMMIT; SET lock_timeout = 0; {}; RESET lock_timeout; BEGIN;"


def is_accepted(revision: Revision, fault: str) -> bool:
    return any(number == revision.number and table in fault for number, table in ACCEPTED)


@pytest.mark.parametrize("revision", revisions(), ids=lambda revision: revision.name)
def test_revision_is_compatible_with_version_n_minus_1(revision: Revision) -> None:
    """Expansions break nothing that it does; contractions only remove."""
    found = [fault for fault in faults(revision.name, revision.sql) if not is_accepted(revision, fault)]

    assert found == []


def test_migrations_pass_squawk(tmp_path: Path) -> None:
    """Apply all rules but those excluded above, with their reasons."""
    for revision in revisions():
        (tmp_path / f"{revision.number}.sql").write_text(revision.sql)
    command = [
        str(SQUAWK),
        "--pg-version",
        "15",
        "--assume-in-transaction",
        "--reporter",
        "json",
        "--exclude",
        NOT_ASKED,
    ]
    done = subprocess.run([*command, *map(str, tmp_path.glob("*.sql"))], capture_output=True, text=True, check=False)
    found = [
        (Path(each["file"]).stem, each["rule_name"], each["line"])
        for each in json.loads(done.stdout)
        if (Path(each["file"]).stem, "child_results") not in ACCEPTED
    ]

    assert found == []


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE gaps",
        "DROP INDEX CONCURRENTLY ix_runs_newest",
        "DROP FUNCTION sequence_feed(integer)",
        "ALTER TABLE runs DROP COLUMN error",
        "ALTER TABLE runs DROP CONSTRAINT ck_runs_type",
        "ALTER TABLE runs RENAME COLUMN error TO fault",
        "ALTER TABLE runs RENAME TO tasks",
        "ALTER TABLE runs ALTER COLUMN priority TYPE integer",
        "ALTER TABLE runs ALTER priority SET DATA TYPE integer",
        "ALTER TABLE runs ALTER COLUMN error SET NOT NULL",
        "ALTER TABLE runs ADD COLUMN note text NOT NULL",
        "ALTER TABLE runs ADD COLUMN a text DEFAULT '' NOT NULL, ADD COLUMN b text NOT NULL",
        "ALTER TABLE runs ADD COLUMN a text NOT NULL, ADD COLUMN b text DEFAULT '' NOT NULL",
        "ALTER TABLE runs ADD CONSTRAINT ck_runs_note CHECK (note <> '')",
        "ALTER TABLE runs ADD CONSTRAINT uq_runs_note UNIQUE (note)",
        "UPDATE runs SET error = ''",
        "LOCK TABLE runs",
        "CREATE INDEX ix_runs_note ON runs (note)",
        "CREATE UNIQUE INDEX IF NOT EXISTS ix_runs_note ON runs (note)",
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_runs_note ON runs (note)",
        BLOCK.format("CREATE INDEX CONCURRENTLY ix_runs_note ON runs (note)"),
        "COMMIT; CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_runs_note ON runs (note); BEGIN",
        f"CREATE TABLE notes (note_id text); {BLOCK.format('CREATE INDEX CONCURRENTLY IF NOT EXISTS ix ON runs (note)')}",
    ],
)
def test_breaking_expansion_is_found(sql: str) -> None:
    """Check the checks themselves."""
    assert list(faults("expand_9999_future", sql)) != []


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE runs ADD COLUMN note text",
        "ALTER TABLE runs ADD COLUMN note text DEFAULT '' NOT NULL",
        "ALTER TABLE runs ADD COLUMN note text NOT NULL DEFAULT ''",
        "ALTER TABLE runs ALTER COLUMN error DROP NOT NULL",
        "ALTER TABLE runs ADD CONSTRAINT ck_runs_note CHECK (note <> '') NOT VALID",
        "CREATE TABLE notes (note_id text NOT NULL, CONSTRAINT uq UNIQUE (note_id)); CREATE INDEX ix ON notes (note_id)",
        "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS $$ DELETE FROM runs; DROP TABLE runs $$",
        BLOCK.format("CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_runs_note ON runs (note)"),
    ],
)
def test_harmless_expansion_is_accepted(sql: str) -> None:
    assert list(faults("expand_9999_future", sql)) == []


@pytest.mark.parametrize(
    "sql",
    [
        "SET LOCAL lock_timeout = '2s'; ALTER TABLE runs DROP COLUMN error, DROP CONSTRAINT ck_runs_type",
        "DROP TABLE gaps; DROP FUNCTION sequence_feed(integer)",
        "COMMIT; DROP INDEX CONCURRENTLY ix_runs_newest; BEGIN",
    ],
)
def test_contraction_removes(sql: str) -> None:
    """Contract one release after the last one that used it."""
    assert list(faults("contract_9999_future", sql)) == []


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE runs DROP COLUMN error, ADD COLUMN fault text",
        "CREATE TABLE notes (note_id text)",
        "DELETE FROM runs",
    ],
)
def test_contraction_only_removes(sql: str) -> None:
    """Additions would have had to come a release earlier."""
    assert list(faults("contract_9999_future", sql)) != []


def test_revision_names_sort_in_their_order() -> None:
    """Comparing names tells an older schema from a newer one (models.schema.migrate.schema_fault)."""
    numbers = [revision.number for revision in revisions()]
    files = sorted(path.stem for path in (MIGRATIONS / "versions").glob("*.py"))

    assert numbers == sorted(numbers)
    assert all(len(number) == 4 and number.isdigit() for number in numbers)
    assert sorted(f"{name.split('_')[1]}" for name in files) == ["0001", *numbers]


def test_migration_lock_timeout_is_shorter_than_that_of_requests() -> None:
    """A request that queues behind a migration gives up after 2 s."""
    environment = (MIGRATIONS / "env.py").read_text()

    assert "SET lock_timeout = '1s'" in environment
    assert "SET statement_timeout" in environment
