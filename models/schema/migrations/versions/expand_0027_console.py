"""Sessions of the console."""

from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

SESSIONS = """
CREATE TABLE console_sessions (
    session_hash text NOT NULL,
    role text NOT NULL,
    owner text,
    key_id text,
    created_at timestamptz DEFAULT now() NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT pk_console_sessions PRIMARY KEY (session_hash),
    CONSTRAINT ck_console_sessions_role CHECK (role IN ('admin', 'user', 'runner'))
);
CREATE INDEX ix_console_sessions_expires_at ON console_sessions (expires_at);
"""


def upgrade() -> None:
    op.execute(SESSIONS)


def downgrade() -> None:
    op.execute("DROP TABLE console_sessions")
