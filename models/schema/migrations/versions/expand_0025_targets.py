"""Metrics: the addresses at which processes serve them."""

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create a table of its own: the version before takes each row of instances for a web process."""
    op.execute("""
        CREATE TABLE metrics_targets (
            address text NOT NULL,
            job text NOT NULL,
            instance text NOT NULL,
            seen_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT pk_metrics_targets PRIMARY KEY (address)
        )
    """)


def downgrade() -> None:
    op.execute("DROP TABLE metrics_targets")
