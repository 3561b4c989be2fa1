from sqlalchemy import Column, Index, Table, Text

from models.schema.columns import JsonText, metadata

# Procedural agents of registered runners. ``schema_hash`` is the SHA-256 of the text of ``parameters_schema``.
runner_agents = Table(
    "runner_agents",
    metadata,
    Column("name", Text, primary_key=True),
    Column("runner_id", Text, nullable=False),
    Column("description", Text),
    Column("command", Text, nullable=False),
    Column("parameters_schema", JsonText),
    Column("schema_hash", Text),
    Column("output_schema", JsonText),
    Index("ix_runner_agents_runner_id", "runner_id"),
)
