"""Matching: since when no live registration satisfies a demand profile, and when a run that waits for one fails."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# A new profile counts as unmatched from its first submission until a pass of expiry finds a runner for it.
COLUMNS = """
SET LOCAL lock_timeout = '2s';
ALTER TABLE demand_profiles ADD COLUMN unmatched_since timestamptz DEFAULT now();
ALTER TABLE runs ADD COLUMN unmatched_since timestamptz;
"""


def upgrade() -> None:
    """Add the columns; version N-1 ignores them and goes on with runs.match_deadline_at."""
    op.execute(COLUMNS)


def downgrade() -> None:
    op.execute("ALTER TABLE runs DROP COLUMN unmatched_since")
    op.execute("ALTER TABLE demand_profiles DROP COLUMN unmatched_since")
