from sqlalchemy import Boolean, Column, Index, Table, Text, text
from sqlalchemy.dialects.postgresql import ARRAY

from models.schema.columns import metadata, moment

# Holds: of the run ``run_id``, else of all runs of an agent, of those that demand all that is given, or of every run.
holds = Table(
    "holds",
    metadata,
    Column("name", Text, primary_key=True),
    Column("run_id", Text),
    Column("everything", Boolean, nullable=False, server_default="false"),
    Column("agent_name", Text),
    Column("hostname", Text),
    Column("project_dir", Text),
    Column("executor_profile", Text),
    Column("executor_type", Text),
    Column("tags", ARRAY(Text), nullable=False, server_default="{}"),
    Column("note", Text),
    Column("held_by", Text),
    moment("created_at", default=True),
    Index("ix_holds_run", "run_id", unique=True, postgresql_where=text("run_id IS NOT NULL")),
    Index("ix_holds_selectors", "name", postgresql_where=text("run_id IS NULL")),
)
