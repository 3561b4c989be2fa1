"""Registries: agents, capabilities, scripts and MCP servers, one row an entry."""

from alembic import op

revision = "0043"
down_revision = "0042"
branch_labels = None
depends_on = None

ENTRIES = """
CREATE TABLE registry_entries (
    kind text NOT NULL,
    name text NOT NULL,
    record json NOT NULL,
    content text,
    size integer NOT NULL,
    version bigint DEFAULT 1 NOT NULL,
    write_id text,
    created_at timestamptz DEFAULT now() NOT NULL,
    modified_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_registry_entries PRIMARY KEY (kind, name),
    CONSTRAINT ck_registry_entries_kind CHECK (kind IN ('agents', 'capabilities', 'scripts', 'mcp-servers'))
);
"""


def upgrade() -> None:
    op.execute(ENTRIES)


def downgrade() -> None:
    op.execute("DROP TABLE registry_entries")
