"""Retention: the newest result of a session outlives its events."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

KEPT_RESULTS = """
CREATE TABLE kept_results (
    session_id text NOT NULL,
    event_id bigint NOT NULL,
    frame json NOT NULL,
    CONSTRAINT pk_kept_results PRIMARY KEY (session_id)
);
"""


def upgrade() -> None:
    op.execute(KEPT_RESULTS)


def downgrade() -> None:
    op.execute("DROP TABLE kept_results")
