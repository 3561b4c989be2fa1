from sqlalchemy import BigInteger, CheckConstraint, Column, Identity, Index, Integer, Table, Text, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from models.core.callers import Role
from models.core.statuses import BulkAction, BulkState
from models.schema.columns import JsonText, metadata, moment, one_of
from models.schema.sql import sql

# Actions on many runs. A dry run writes its row, "prepared"; the token starts it.
bulk_jobs = Table(
    "bulk_jobs",
    metadata,
    Column("bulk_id", Text, primary_key=True),
    # Name of the caller: its token, its pace. Role and owner: the caller of the verbs.
    Column("caller", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("owner", Text),
    Column("created_by", Text),
    Column("action", Text, nullable=False),
    Column("state", Text, nullable=False),
    # As the client gave it, and as the search reads it.
    Column("filter", JsonText),
    Column("search", JsonText),
    Column("changes", JsonText),
    Column("total", Integer, nullable=False),
    Column("done", Integer, nullable=False, server_default="0"),
    Column("changed", Integer, nullable=False, server_default="0"),
    # Runs on which a chunk of one failed by a fault, not by a refusal.
    Column("faults", Integer, nullable=False, server_default="0"),
    Column("skipped", JSONB, nullable=False, server_default="{}"),
    Column("errors", JsonText, nullable=False, server_default="[]"),
    moment("prepared_at", default=True),
    moment("expires_at", nullable=False),
    moment("created_at"),
    moment("due_at"),
    moment("ended_at"),
    CheckConstraint(one_of("role", Role), name="role"),
    CheckConstraint(one_of("action", BulkAction), name="action"),
    CheckConstraint(one_of("state", BulkState), name="state"),
    CheckConstraint(sql("(state = $BULK_PREPARED) = (created_at IS NULL)"), name="started"),
    CheckConstraint(sql("(state IN $BULK_ENDED) = (ended_at IS NOT NULL)"), name="ended"),
    Index("ix_bulk_jobs_running", "due_at", postgresql_where=sql("state = $BULK_RUNNING")),
    Index("ix_bulk_jobs_prepared", "caller", text("prepared_at DESC"), postgresql_where=sql("state = $BULK_PREPARED")),
    Index(
        "ix_bulk_jobs_newest",
        text("created_at DESC"),
        text("bulk_id DESC"),
        postgresql_where=text("created_at IS NOT NULL"),
    ),
    Index(
        "ix_bulk_jobs_of_caller",
        "caller",
        text("created_at DESC"),
        text("bulk_id DESC"),
        postgresql_where=text("created_at IS NOT NULL"),
    ),
    Index("ix_bulk_jobs_ended", "ended_at", postgresql_where=text("ended_at IS NOT NULL")),
    Index("ix_bulk_jobs_expires_at", "expires_at", postgresql_where=sql("state = $BULK_PREPARED")),
)

# Runs on which a bulk has still to act: a chunk is deleted in the transaction that acts on its runs.
bulk_chunks = Table(
    "bulk_chunks",
    metadata,
    Column("chunk_id", BigInteger, Identity(), primary_key=True),
    Column("bulk_id", Text, nullable=False),
    Column("run_ids", ARRAY(Text), nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Index("ix_bulk_chunks_of_bulk", "bulk_id", "chunk_id"),
)
