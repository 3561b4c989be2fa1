"""Run of which a run is a replay."""

from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE runs ADD COLUMN replay_of text")


def downgrade() -> None:
    op.execute("ALTER TABLE runs DROP COLUMN replay_of")
