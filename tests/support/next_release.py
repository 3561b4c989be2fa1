"""Fictitious next release: our code with two more revisions, in a directory of its own."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from models.schema.revisions import newest_revision

ROOT = Path(__file__).resolve().parents[2]
REVISION = '''"""A made-up revision."""

from alembic import op

revision = "{number}"
down_revision = "{before}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Expand."""
{steps}
'''
# A column of a table that is always written, and a table; then an index on a table that may be large, built as
# docs/deployment.md prescribes.
EXPANSIONS = {
    "9998": '''    op.execute("""
        SET LOCAL lock_timeout = '2s';
        ALTER TABLE runs ADD COLUMN note text DEFAULT '' NOT NULL;
        CREATE TABLE notes (note_id text NOT NULL, CONSTRAINT pk_notes PRIMARY KEY (note_id));
    """)
''',
    "9999": """    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        op.execute("CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_runs_note ON runs (note) WHERE note <> ''")
        op.execute("RESET lock_timeout")
""",
}


@dataclass(frozen=True)
class Release:
    """Its code: `models` with the revisions, and all our other packages."""

    directory: Path

    def migrate(self, database_url: str) -> "subprocess.Popen[str]":
        """Start `coordinator migrate` of that release."""
        path = os.pathsep.join([str(self.directory), str(ROOT)])
        servers = {"DATABASE_URL": database_url, "REDIS_URL": "redis://127.0.0.1:1/0"}
        return subprocess.Popen(
            [sys.executable, "-m", "cli.main", "migrate"],
            cwd=self.directory,
            env={"PATH": os.defpath, "PYTHONPATH": path, **servers},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def next_release(directory: Path) -> Release:
    """Return the release after this one, with EXPANSIONS."""
    shutil.copytree(ROOT / "models", directory / "models", ignore=shutil.ignore_patterns("__pycache__"))
    before = newest_revision()
    for number, steps in EXPANSIONS.items():
        text = REVISION.format(number=number, before=before, steps=steps)
        (directory / "models" / "schema" / "migrations" / "versions" / f"expand_{number}_future.py").write_text(text)
        before = number
    return Release(directory)
