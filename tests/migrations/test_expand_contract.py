"""Check that each revision expands or contracts: version N-1 runs beside it, and no request waits long for it."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory

from models.schema.revisions import MIGRATIONS

# Statements that break version N-1, or that lock a table for as long as it is large.
BREAKS = {
    r"^DROP\b": "drops something that version N-1 uses",
    r"\bRENAME\b": "renames something that version N-1 uses",
    r"^TRUNCATE\b|^DELETE\b|^UPDATE\b": "changes rows: that is for an actor, in small batches",
    # A check that takes the place of one of the same name may be a wider one.
    r"^ALTER TABLE.*\bDROP (?!NOT NULL|DEFAULT|CONSTRAINT (\w+), ADD CONSTRAINT \1 CHECK .* NOT VALID$)": (
        "drops something that version N-1 uses"
    ),
    r"\bALTER (COLUMN )?\w+ (SET DATA )?TYPE\b": "rewrites the table",
    r"\bSET NOT NULL\b": "reads the whole table under an exclusive lock, and refuses what version N-1 writes",
    r"\bADD COLUMN (?:(?!\bADD COLUMN\b|\bDEFAULT\b).)*\bNOT NULL\b(?!(?:(?!\bADD COLUMN\b).)*\bDEFAULT\b)": (
        "a column that version N-1 does not fill"
    ),
    r"\bADD (CONSTRAINT \w+ )?(CHECK|FOREIGN KEY)\b(?!.*\bNOT VALID\b)": "reads the whole table under a lock: NOT VALID",
    r"\bADD (CONSTRAINT \w+ )?(UNIQUE|PRIMARY KEY|EXCLUDE)\b(?!.*\bUSING INDEX\b)": (
        "builds an index under an exclusive lock: USING INDEX"
    ),
    r"^LOCK\b|^CLUSTER\b|^VACUUM\b|^REINDEX\b(?!.*\bCONCURRENTLY\b)": "blocks the table",
}
# Remainder of a concurrent index build without its name: earlier statements of the revision would be committed by
# the block, and missing when a build that was cut off is repeated.
ALONE = ["COMMIT", "SET LOCK_TIMEOUT = 0", "CREATE", "RESET LOCK_TIMEOUT", "BEGIN"]
CONTRACTS = r"^(DROP|SET|RESET|BEGIN|COMMIT)\b|^ALTER TABLE \S+ (DROP [^,]*,?\s*)+$"


@dataclass(frozen=True)
class Revision:
    """Step as Alembic would send it."""

    number: str
    name: str
    sql: str

    @property
    def statements(self) -> list[str]:
        return statements(self.sql)


def revisions() -> list[Revision]:
    """Return all revisions after the foundation, which creates everything, oldest first."""
    scripts = ScriptDirectory(str(MIGRATIONS)).walk_revisions()
    return [Revision(each.revision, Path(each.path).stem, sql_of(each)) for each in scripts if each.down_revision][::-1]


def sql_of(script: Script) -> str:
    """Return the SQL of its upgrade."""
    text = io.StringIO()
    context = MigrationContext.configure(dialect_name="postgresql", opts={"as_sql": True, "output_buffer": text})
    with Operations.context(context):
        script.module.upgrade()
    return text.getvalue()


def statements(sql: str) -> list[str]:
    """Return each statement on one line, without comments and bodies of functions."""
    bare = re.sub(r"\$(\w*)\$.*?\$\1\$", "''", re.sub(r"--[^\n]*|/\*.*?\*/", "", sql, flags=re.DOTALL), flags=re.DOTALL)
    return [joined for part in bare.split(";") if (joined := " ".join(part.split()))]


def faults(name: str, sql: str) -> Iterator[str]:
    """Return the faults of a revision whose file has this name."""
    found = statements(sql)
    if name.startswith("contract_"):
        yield from (f"no drop: {each}" for each in found if not re.search(CONTRACTS, each, re.IGNORECASE))
        return
    for each in found:
        for pattern, fault in BREAKS.items():
            if re.search(pattern, each, re.IGNORECASE):
                yield f"{fault}: {each}"
    yield from _slow_indexes(found)


def _slow_indexes(found: list[str]) -> Iterator[str]:
    """Find index builds that block writers of an existing table; concurrent ones have a revision to themselves."""
    new = {match[1] for each in found if (match := re.match(r"CREATE (?:UNLOGGED )?TABLE (\w+)", each, re.IGNORECASE))}
    for each in found:
        match = re.match(r"CREATE (?:UNIQUE )?INDEX (CONCURRENTLY )?.*? ON (?:ONLY )?(\w+)", each, re.IGNORECASE)
        if match is None or match[2] in new:
            continue
        if not match[1]:
            yield f"writers wait until it is built: CONCURRENTLY: {each}"
        elif not re.search(r"CONCURRENTLY IF NOT EXISTS", each, re.IGNORECASE):
            yield f"cannot be repeated: IF NOT EXISTS: {each}"
        elif [part.split(" INDEX ")[0].replace(" UNIQUE", "") for part in map(str.upper, found)] != ALONE:
            yield f"not alone in an autocommit block that waits for older transactions: {each}"


SQUAWK = Path(sys.executable).with_name("squawk")
# The connection sets both timeouts (models/schema/migrations/env.py); int columns are intended.
NOT_ASKED = "require-statement-timeout,require-lock-timeout,prefer-bigint-over-int,prefer-robust-stmts"
# Checked more precisely above: a concurrent index is alone in its block, and only contractions drop.
NOT_ASKED += ",transaction-nesting,ban-uncommitted-transaction,ban-drop-constraint"
# Ordinary index on a table that nothing had written before; a column that no version reads unless it has looked for it.
ACCEPTED = {("0003", "child_results"), ("0019", "ban-drop-not-null")}

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
        if not {(Path(each["file"]).stem, part) for part in ("child_results", each["rule_name"])} & ACCEPTED
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
        "ALTER TABLE runs DROP CONSTRAINT ck_runs_type, ADD CONSTRAINT ck_runs_type CHECK (type <> '') NOT VALID",
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
    """Comparing names tells an older schema from a newer one (models.schema.revisions.schema_fault)."""
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
