"""Bulks that hold runs or release them: two more actions. Workers of the last release leave their chunks to others."""

from alembic import op

revision = "0051"
down_revision = "0048"
branch_labels = None
depends_on = None

# In one statement, so that no row is ever unchecked; not valid, so that the lock is held for no look at the rows.
WIDEN = """
ALTER TABLE bulk_jobs DROP CONSTRAINT ck_bulk_jobs_action,
ADD CONSTRAINT ck_bulk_jobs_action CHECK (action IN ('stop', 'delete', 'replay', 'hold', 'release')) NOT VALID
"""
NARROW = """
DELETE FROM bulk_chunks WHERE bulk_id IN (SELECT bulk_id FROM bulk_jobs WHERE action IN ('hold', 'release'));
DELETE FROM bulk_jobs WHERE action IN ('hold', 'release');
ALTER TABLE bulk_jobs DROP CONSTRAINT ck_bulk_jobs_action,
ADD CONSTRAINT ck_bulk_jobs_action CHECK (action IN ('stop', 'delete', 'replay'));
"""


def upgrade() -> None:
    op.execute(WIDEN)
    # In a transaction of its own, which blocks no reader. A revision that was cut off before begins anew.
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE bulk_jobs VALIDATE CONSTRAINT ck_bulk_jobs_action")


def downgrade() -> None:
    op.execute(NARROW)
