"""Blueprints of runs, and the scripts that procedural runners have to fetch or to remove."""

from alembic import op

revision = "0044"
down_revision = "0043"
branch_labels = None
depends_on = None

# Without foreign keys, since version N-1 deletes runs and runners; upkeep drops what is left behind.
TABLES = """
CREATE TABLE run_blueprints (
    run_id text NOT NULL,
    blueprint json NOT NULL,
    CONSTRAINT pk_run_blueprints PRIMARY KEY (run_id)
);
CREATE TABLE runner_script_syncs (
    runner_id text NOT NULL,
    script_name text NOT NULL,
    removes boolean DEFAULT false NOT NULL,
    queued_at timestamptz DEFAULT now() NOT NULL,
    sent_at timestamptz,
    sent_poll text,
    CONSTRAINT pk_runner_script_syncs PRIMARY KEY (runner_id, script_name)
);
"""


def upgrade() -> None:
    op.execute(TABLES)


def downgrade() -> None:
    op.execute("DROP TABLE run_blueprints, runner_script_syncs")
