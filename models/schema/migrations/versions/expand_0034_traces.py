"""Trace contexts of runs, and the position in the feed up to which the spans of ended runs are exported."""

from alembic import op

revision = "0034"
down_revision = "0032"
branch_labels = None
depends_on = None

TRACES = """
CREATE TABLE trace_head (
    only_row boolean DEFAULT true NOT NULL,
    position bigint DEFAULT '0'::bigint NOT NULL,
    CONSTRAINT pk_trace_head PRIMARY KEY (only_row),
    CONSTRAINT ck_trace_head_only_row CHECK (only_row)
);
INSERT INTO trace_head DEFAULT VALUES;
"""
TRACEPARENT = """
SET LOCAL lock_timeout = '2s';
ALTER TABLE runs ADD COLUMN traceparent text
"""


def upgrade() -> None:
    op.execute(TRACES)
    op.execute(TRACEPARENT)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    op.execute("ALTER TABLE runs DROP COLUMN traceparent")
    op.execute("DROP TABLE trace_head")
