"""Retry policies of runs: which reported failures are tried again."""

from alembic import op

revision = "0045"
down_revision = "0044"
branch_labels = None
depends_on = None

# Version N-1 writes no policy, and ends a run by its first reported failure whatever its policy says.
RETRIES = """
SET LOCAL lock_timeout = '2s';
ALTER TABLE runs ADD COLUMN retry json
"""


def upgrade() -> None:
    op.execute(RETRIES)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    op.execute("ALTER TABLE runs DROP COLUMN retry")
