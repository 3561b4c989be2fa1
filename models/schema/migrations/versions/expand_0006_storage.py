"""Vacuum tables early whose every row is updated; leave no space free in pages of runs."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# No update of these is HOT: numbering and every change of a status touch an indexed column. So space left in a page
# saves nothing, and what is dead goes by vacuum alone (docs/operations.md, Bloat).
STORAGE = """
ALTER TABLE events SET (autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE sessions SET (autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE runs RESET (fillfactor);
ALTER TABLE runs SET (autovacuum_vacuum_scale_factor = 0.05);
"""

FORMER_STORAGE = """
ALTER TABLE events RESET (autovacuum_vacuum_scale_factor);
ALTER TABLE sessions RESET (autovacuum_vacuum_scale_factor);
ALTER TABLE runs RESET (autovacuum_vacuum_scale_factor);
ALTER TABLE runs SET (fillfactor = 80);
"""


def upgrade() -> None:
    op.execute(STORAGE)


def downgrade() -> None:
    op.execute(FORMER_STORAGE)
