from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    text,
)

from models.core.statuses import FireKind, FireOutcome, Overlap
from models.schema.columns import JsonText, metadata, moment, one_of
from models.schema.sql import sql

# Schedules. ``schedule_no`` tells one from a deleted one of the same id.
schedules = Table(
    "schedules",
    metadata,
    Column("schedule_id", Text, primary_key=True),
    Column("schedule_no", BigInteger, Identity(), nullable=False, unique=True),
    Column("owner", Text),
    Column("created_by", Text),
    Column("version", Integer, nullable=False, server_default="1"),
    # Of the request that wrote this version: its repeats change nothing.
    Column("put_key", Text, nullable=False),
    Column("spec", JsonText, nullable=False),
    Column("timezone", Text, nullable=False),
    moment("start_at"),
    moment("end_at"),
    # As the client gave it, and as submissions are made of it.
    Column("run", JsonText, nullable=False),
    Column("template", JsonText, nullable=False),
    Column("overlap", Text, nullable=False),
    Column("buffer_most", Integer, nullable=False),
    Column("catch_up_seconds", Integer, nullable=False),
    Column("catch_up_most", Integer, nullable=False),
    Column("jitter_seconds", Integer, nullable=False),
    Column("most_fires", Integer),
    Column("pause_after_failures", Integer),
    Column("note", Text, nullable=False),
    Column("paused", Boolean, nullable=False),
    Column("pause_reason", Text),
    # Times that led to a run or wait for one; runs that failed in a row.
    Column("fired", Integer, nullable=False, server_default="0"),
    Column("failures", Integer, nullable=False, server_default="0"),
    # Each nominal time up to this one has its decision.
    moment("decided_until", nullable=False),
    # The next nominal time, and when to decide it: later by its jitter. NULL: none is left.
    moment("next_fire_at"),
    moment("next_at"),
    Column("has_buffered", Boolean, nullable=False, server_default="false"),
    Column("tz_version", Text, nullable=False),
    moment("created_at", default=True),
    moment("updated_at", default=True),
    CheckConstraint(one_of("overlap", Overlap), name="overlap"),
    Index("ix_schedules_due", "next_at", postgresql_where=text("NOT paused AND next_at IS NOT NULL")),
    Index("ix_schedules_buffered", "schedule_no", postgresql_where=text("has_buffered AND NOT paused")),
    Index("ix_schedules_newest", text("created_at DESC"), text("schedule_id DESC")),
    Index("ix_schedules_of_owner", "owner", text("created_at DESC"), text("schedule_id DESC")),
    Index("ix_schedules_tz_version", "tz_version"),
)

# Decisions: one row for each nominal time, but one for all times that were missed together.
schedule_fires = Table(
    "schedule_fires",
    metadata,
    Column("schedule_no", BigInteger, primary_key=True),
    Column("fire_at", DateTime(timezone=True), primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("outcome", Text, nullable=False),
    Column("reason", Text),
    Column("run_id", Text),
    # Status with which the run ended, "deleted" if it is gone; NULL until the schedule has noticed.
    Column("run_status", Text),
    # Number of times that the row stands for, and the first of them.
    Column("times", Integer, nullable=False, server_default="1"),
    moment("first_fire_at"),
    # Said of a buffered one: it waits until no run of the schedule is unfinished.
    Column("waits", Boolean, nullable=False, server_default="true"),
    # Of the request that asked for it: its repeats ask for nothing more.
    Column("request", Text),
    Column("owner", Text),
    moment("decided_at", default=True),
    moment("submitted_at"),
    CheckConstraint(one_of("kind", FireKind), name="kind"),
    CheckConstraint(one_of("outcome", FireOutcome), name="outcome"),
    CheckConstraint(
        sql("(outcome = $FIRE_SUBMITTED) = (run_id IS NOT NULL AND submitted_at IS NOT NULL)"), name="submitted"
    ),
    Index(
        "ix_schedule_fires_open",
        "schedule_no",
        "run_id",
        postgresql_where=sql("outcome = $FIRE_SUBMITTED AND run_status IS NULL"),
    ),
    Index("ix_schedule_fires_buffered", "schedule_no", "fire_at", postgresql_where=sql("outcome = $FIRE_BUFFERED")),
    Index(
        "uq_schedule_fires_request",
        "schedule_no",
        "request",
        unique=True,
        postgresql_where=text("request IS NOT NULL"),
    ),
    Index("ix_schedule_fires_quota", "owner", "submitted_at", postgresql_where=text("submitted_at IS NOT NULL")),
    Index("ix_schedule_fires_decided_at", "decided_at"),
)
