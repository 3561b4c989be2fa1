"""Counts of the history for each way in which they are asked for; the moment at which each duty was last done."""

from alembic import op

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None

TOTALS = """
CREATE TABLE run_totals (
    step integer NOT NULL,
    grouped_by text NOT NULL,
    owner text NOT NULL,
    measure text NOT NULL,
    period timestamptz NOT NULL,
    label text NOT NULL,
    bucket integer NOT NULL,
    number bigint NOT NULL,
    CONSTRAINT pk_run_totals PRIMARY KEY (step, grouped_by, owner, measure, period, label, bucket)
) WITH (fillfactor = 80);
CREATE INDEX ix_run_totals_period ON run_totals (step, period);
CREATE TABLE run_totals_head (
    only_row boolean DEFAULT true NOT NULL,
    position bigint DEFAULT '0'::bigint NOT NULL,
    as_of timestamptz,
    CONSTRAINT pk_run_totals_head PRIMARY KEY (only_row),
    CONSTRAINT ck_run_totals_head_only_row CHECK (only_row)
);
"""
# Lock it in a statement of its own: a worker of the version before may be counting, and the next one sees its counts.
LOCKED = "SELECT position FROM run_stats_head FOR UPDATE"
HEAD = "INSERT INTO run_totals_head (position, as_of) SELECT position, as_of FROM run_stats_head"
COUNTED = """
INSERT INTO run_totals (step, grouped_by, owner, measure, period, label, bucket, number)
SELECT s.step, g.grouped_by, g.owner, s.measure, s.period, g.label, s.bucket, sum(s.number)
FROM run_stats s
CROSS JOIN LATERAL (VALUES
    ('all', '', ''), ('owner', s.owner, ''),
    ('profile', '', CAST(s.profile_id AS text)), ('owner and profile', s.owner, CAST(s.profile_id AS text)),
    ('agent', '', s.agent), ('owner and agent', s.owner, s.agent)) g(grouped_by, owner, label)
GROUP BY 1, 2, 3, 4, 5, 6, 7
"""
DUTIES = "ALTER TABLE duties ADD COLUMN done_at timestamptz"


def upgrade() -> None:
    """Begin with what run_stats has counted, at its position."""
    op.execute(TOTALS)
    op.execute(LOCKED)
    op.execute(HEAD)
    op.execute(COUNTED)
    op.execute(DUTIES)


def downgrade() -> None:
    op.execute("ALTER TABLE duties DROP COLUMN done_at")
    op.execute("DROP TABLE run_totals_head")
    op.execute("DROP TABLE run_totals")
