"""Sign-ins by OIDC, and the session of a ticket."""

from alembic import op

revision = "0032"
down_revision = "0030"
branch_labels = None
depends_on = None

SIGN_INS = """
CREATE TABLE console_sign_ins (
    sign_in_hash text NOT NULL,
    session_hash text NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT pk_console_sign_ins PRIMARY KEY (sign_in_hash)
);
CREATE INDEX ix_console_sign_ins_expires_at ON console_sign_ins (expires_at);
"""


def upgrade() -> None:
    op.execute(SIGN_INS)
    op.execute("ALTER TABLE stream_tickets ADD COLUMN session_hash text")


def downgrade() -> None:
    op.execute("ALTER TABLE stream_tickets DROP COLUMN session_hash")
    op.execute("DROP TABLE console_sign_ins")
