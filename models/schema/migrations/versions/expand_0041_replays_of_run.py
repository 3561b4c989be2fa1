"""Searches: an index of the replays of a run. Runs that are no replay have no entry in it."""

from alembic import op

revision = "0041"
down_revision = "0040"
branch_labels = None
depends_on = None

REPLAYS = """
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_runs_replays
ON runs (replay_of, created_at DESC, run_id DESC)
WHERE replay_of IS NOT NULL
"""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        op.execute(REPLAYS)
        op.execute("RESET lock_timeout")


def downgrade() -> None:
    op.execute("DROP INDEX ix_runs_replays")
