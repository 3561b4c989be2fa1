"""Keys that callers show, single-use tickets for streams, and the number by which processes notice a change of keys."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

CREDENTIALS = """
CREATE TABLE api_keys (
    key_id text NOT NULL,
    secret_hash text NOT NULL,
    role text NOT NULL,
    owner text,
    name text,
    created_at timestamptz DEFAULT now() NOT NULL,
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz,
    CONSTRAINT pk_api_keys PRIMARY KEY (key_id),
    CONSTRAINT ck_api_keys_role CHECK (role IN ('admin', 'user', 'runner')),
    CONSTRAINT ck_api_keys_owned CHECK (role = 'admin' OR owner IS NOT NULL)
);

CREATE TABLE key_changes (
    only_row boolean DEFAULT 'true' NOT NULL,
    revision bigint DEFAULT '0' NOT NULL,
    CONSTRAINT pk_key_changes PRIMARY KEY (only_row),
    CONSTRAINT ck_key_changes_only_row CHECK (only_row)
);
INSERT INTO key_changes DEFAULT VALUES;

CREATE TABLE stream_tickets (
    ticket_hash text NOT NULL,
    role text NOT NULL,
    owner text,
    key_id text,
    valid_until timestamptz,
    filters json NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT pk_stream_tickets PRIMARY KEY (ticket_hash),
    CONSTRAINT ck_stream_tickets_role CHECK (role IN ('admin', 'user', 'runner'))
);
CREATE INDEX ix_stream_tickets_expires_at ON stream_tickets (expires_at);
"""


def upgrade() -> None:
    op.execute(CREDENTIALS)


def downgrade() -> None:
    op.execute("DROP TABLE stream_tickets, key_changes, api_keys")
