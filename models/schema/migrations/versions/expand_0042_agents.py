"""Procedural agents that registered runners provide, one row a name."""

from alembic import op

revision = "0042"
down_revision = "0041"
branch_labels = None
depends_on = None

# Without a foreign key, since version N-1 deletes runners. Agents of one that is gone are not read; upkeep drops them.
AGENTS = """
CREATE TABLE runner_agents (
    name text NOT NULL,
    runner_id text NOT NULL,
    description text,
    command text NOT NULL,
    parameters_schema json,
    schema_hash text,
    output_schema json,
    CONSTRAINT pk_runner_agents PRIMARY KEY (name)
);
CREATE INDEX ix_runner_agents_runner_id ON runner_agents (runner_id);
"""


def upgrade() -> None:
    op.execute(AGENTS)


def downgrade() -> None:
    op.execute("DROP TABLE runner_agents")
