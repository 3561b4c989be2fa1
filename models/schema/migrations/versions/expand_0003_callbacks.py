"""Results of children know which life of their parent they are for, how long they are, and when they came back."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# Nothing has written the table before, so an ordinary index blocks no writer.
CHILD_RESULTS = """
SET LOCAL lock_timeout = '2s';
ALTER TABLE child_results
    ADD COLUMN parent_incarnation text DEFAULT '' NOT NULL,
    ADD COLUMN body_bytes integer DEFAULT '0' NOT NULL,
    ADD COLUMN returned_at timestamptz;
CREATE INDEX ix_child_results_delivered ON child_results (delivered_in) WHERE delivered_in IS NOT NULL;
"""

FORMER_CHILD_RESULTS = """
SET LOCAL lock_timeout = '2s';
DROP INDEX ix_child_results_delivered;
ALTER TABLE child_results
    DROP COLUMN returned_at,
    DROP COLUMN body_bytes,
    DROP COLUMN parent_incarnation;
"""


def upgrade() -> None:
    op.execute(CHILD_RESULTS)


def downgrade() -> None:
    op.execute(FORMER_CHILD_RESULTS)
