"""Counts of the events of runs, for a bound on them."""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

# Each count is updated in place with every batch of its run.
COUNTS = """
CREATE TABLE run_event_counts (
    run_id text NOT NULL,
    events bigint NOT NULL,
    CONSTRAINT pk_run_event_counts PRIMARY KEY (run_id)
) WITH (fillfactor = 50);
"""


def upgrade() -> None:
    op.execute(COUNTS)


def downgrade() -> None:
    op.execute("DROP TABLE run_event_counts")
