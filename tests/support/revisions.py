"""Read the SQL of each revision, and find what an expansion or a contraction must not hold."""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory

from models.schema.migrate import MIGRATIONS

# Statements that break version N-1, or that lock a table for as long as it is large.
BREAKS = {
    r"^DROP\b": "drops something that version N-1 uses",
    r"\bRENAME\b": "renames something that version N-1 uses",
    r"^TRUNCATE\b|^DELETE\b|^UPDATE\b": "changes rows: that is for an actor, in small batches",
    r"^ALTER TABLE.*\bDROP (?!NOT NULL|DEFAULT)": "drops something that version N-1 uses",
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
