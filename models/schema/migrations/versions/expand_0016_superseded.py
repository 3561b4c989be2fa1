"""Stops of processes whose session goes on elsewhere: told like others, but they hold nothing of the session back."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

# Version N-1 takes such a stop for one of the session: its next run waits until the former process has ended.
COLUMN = """
SET LOCAL lock_timeout = '2s';
ALTER TABLE stop_commands ADD COLUMN superseded BOOLEAN DEFAULT 'false' NOT NULL;
"""


def upgrade() -> None:
    op.execute(COLUMN)


def downgrade() -> None:
    op.execute("ALTER TABLE stop_commands DROP COLUMN superseded")
