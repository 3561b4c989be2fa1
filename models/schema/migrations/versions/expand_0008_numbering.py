"""The feed: a pass over a long backlog of unnumbered events reads no more of it than it numbers."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# The planner takes the backlog for small, and would fetch all of it by a bitmap, to sort it, for each batch.
IN_ORDER = "ALTER FUNCTION sequence_feed(integer) SET enable_bitmapscan = off"

AS_IT_COMES = "ALTER FUNCTION sequence_feed(integer) RESET enable_bitmapscan"


def upgrade() -> None:
    op.execute(IN_ORDER)


def downgrade() -> None:
    op.execute(AS_IT_COMES)
