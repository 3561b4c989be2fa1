from sqlalchemy import BigInteger, CheckConstraint, Column, Integer, PrimaryKeyConstraint, Table, Text, text

from models.schema.columns import JsonText, metadata, moment

# Agents, capabilities, scripts and MCP servers. ``record``: all fields but the times and, in ``content``, the text of a
# script; ``size``: bytes of both. ``write_id``: the request that created the row, so that a repeat of it after a lost
# COMMIT finds its own.
registry_entries = Table(
    "registry_entries",
    metadata,
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("record", JsonText, nullable=False),
    Column("content", Text),
    Column("size", Integer, nullable=False),
    Column("version", BigInteger, nullable=False, server_default=text("1")),
    Column("write_id", Text),
    moment("created_at", default=True),
    moment("modified_at", default=True),
    PrimaryKeyConstraint("kind", "name", name="pk_registry_entries"),
    CheckConstraint("kind IN ('agents', 'capabilities', 'scripts', 'mcp-servers')", name="kind"),
)
