"""Counts of the history of runs by minute and hour, and the position in the feed up to which they are made."""

from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

STATS = """
CREATE TABLE run_stats (
    step integer NOT NULL,
    measure text NOT NULL,
    period timestamptz NOT NULL,
    owner text NOT NULL,
    profile_id bigint NOT NULL,
    agent text NOT NULL,
    bucket integer NOT NULL,
    number bigint NOT NULL,
    CONSTRAINT pk_run_stats PRIMARY KEY (step, measure, period, owner, profile_id, agent, bucket)
) WITH (fillfactor = 80)
"""
HEAD = """
CREATE TABLE run_stats_head (
    only_row boolean DEFAULT true NOT NULL,
    position bigint DEFAULT '0'::bigint NOT NULL,
    as_of timestamptz,
    CONSTRAINT pk_run_stats_head PRIMARY KEY (only_row),
    CONSTRAINT ck_run_stats_head_only_row CHECK (only_row)
)
"""


def upgrade() -> None:
    """Begin at the first event: what is kept of the history is counted, too."""
    op.execute(STATS)
    op.execute(HEAD)
    op.execute("INSERT INTO run_stats_head DEFAULT VALUES")


def downgrade() -> None:
    op.execute("DROP TABLE run_stats_head")
    op.execute("DROP TABLE run_stats")
