"""Claims keep the subject that made them, runs the subjects that held them before, parked polls who asks."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

CLAIMANTS = """
SET LOCAL lock_timeout = '2s';
ALTER TABLE runs
    ADD COLUMN claimed_by text,
    ADD COLUMN claimed_by_registration bigint,
    ADD COLUMN former_holders text[];
ALTER TABLE waiting_polls ADD COLUMN subject text;
"""

FORMER_CLAIMS = """
SET LOCAL lock_timeout = '2s';
ALTER TABLE waiting_polls DROP COLUMN subject;
ALTER TABLE runs
    DROP COLUMN former_holders,
    DROP COLUMN claimed_by_registration,
    DROP COLUMN claimed_by;
"""


def upgrade() -> None:
    """Add the columns, empty: claims of the version before have no subject (docs/decisions/0023)."""
    op.execute(CLAIMANTS)


def downgrade() -> None:
    op.execute(FORMER_CLAIMS)
