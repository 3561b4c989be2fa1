"""Demand profiles keep whose submission made them, so that the distinct ones of an owner can be bounded."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column, empty: profiles of the version before count for no owner."""
    op.execute("SET LOCAL lock_timeout = '2s'; ALTER TABLE demand_profiles ADD COLUMN made_by text")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'; ALTER TABLE demand_profiles DROP COLUMN made_by")
