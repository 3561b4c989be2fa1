"""Holds: runs that do not become claimable, one by one or by agent, demands or all."""

from alembic import op

revision = "0046"
down_revision = "0045"
branch_labels = None
depends_on = None

# Without a foreign key: the last release deletes runs. Upkeep drops holds of runs that have ended or are gone.
HOLDS = """
CREATE TABLE holds (
    name text NOT NULL,
    run_id text,
    everything boolean DEFAULT false NOT NULL,
    agent_name text,
    hostname text,
    project_dir text,
    executor_profile text,
    executor_type text,
    tags text[] DEFAULT '{}'::text[] NOT NULL,
    note text,
    held_by text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT pk_holds PRIMARY KEY (name)
);
CREATE UNIQUE INDEX ix_holds_run ON holds (run_id) WHERE run_id IS NOT NULL;
CREATE INDEX ix_holds_selectors ON holds (name) WHERE run_id IS NULL;
"""


def upgrade() -> None:
    op.execute(HOLDS)


def downgrade() -> None:
    op.execute("DROP TABLE holds")
