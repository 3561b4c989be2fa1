"""Tables of the database, as the migrations create them; a test compares both."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    Sequence,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from models.core.statuses import ExecutionMode, RunStatus, RunType, SessionStatus, StopCause
from models.schema.caller_tables import api_keys, audit_log, key_changes, stream_tickets
from models.schema.columns import JsonText, metadata, moment, one_of
from models.schema.sql import sql

__all__ = [
    "api_keys",
    "audit_log",
    "child_results",
    "deleted_sessions",
    "demand_profiles",
    "duties",
    "events",
    "feed_head",
    "gaps",
    "idempotency_keys",
    "instances",
    "kept_results",
    "key_changes",
    "metadata",
    "run_event_counts",
    "runner_registration",
    "runners",
    "runs",
    "sessions",
    "stop_commands",
    "stream_tickets",
    "waiting_polls",
]

# Vacuum early: every row is updated, and no update is HOT, since it touches an indexed column (docs/operations.md,
# Bloat).
_VACUUMED_EARLY = {"autovacuum_vacuum_scale_factor": "0.05"}

sessions = Table(
    "sessions",
    metadata,
    Column("session_id", Text, primary_key=True),
    Column("incarnation", Text, nullable=False),
    Column("owner", Text),
    Column("depth", Integer, nullable=False, server_default="0"),
    Column("status", Text, nullable=False),
    Column("last_outcome", Text),
    Column("next_run", Integer, nullable=False, server_default="1"),
    Column("project_dir", Text),
    Column("agent_name", Text),
    Column("parent_session_id", Text),
    Column("executor_session_id", Text),
    Column("executor_profile", Text),
    Column("hostname", Text),
    Column("runner_id", Text),
    Column("registration", BigInteger),
    Column("bound_token", Text),
    Column("scope", JsonText),
    Column("first_event_id", BigInteger, nullable=False, server_default="0"),
    moment("created_at", default=True),
    moment("last_resumed_at"),
    moment("last_sign_at"),
    CheckConstraint(one_of("status", SessionStatus), name="status"),
    CheckConstraint(sql("last_outcome IN $RESTING"), name="last_outcome"),
    Index("ix_sessions_newest", text("created_at DESC"), text("session_id DESC")),
    Index("ix_sessions_owner", "owner", text("created_at DESC"), text("session_id DESC")),
    Index("ix_sessions_parent", "parent_session_id", postgresql_where=text("parent_session_id IS NOT NULL")),
    Index("ix_sessions_live", "runner_id", postgresql_where=text("runner_id IS NOT NULL")),
    postgresql_with=_VACUUMED_EARLY,
)

demand_profiles = Table(
    "demand_profiles",
    metadata,
    Column("profile_id", BigInteger, primary_key=True, autoincrement=True),
    Column("hash", Text, nullable=False, unique=True),
    Column("hostname", Text),
    Column("project_dir", Text),
    Column("executor_profile", Text),
    Column("executor_type", Text),
    Column("tags", ARRAY(Text), nullable=False),
    moment("last_used_at", default=True),
    Column("unmatched_since", DateTime(timezone=True), server_default=text("now()")),
    Column("made_by", Text),
)

runs = Table(
    "runs",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("session_id", Text, ForeignKey("sessions.session_id"), nullable=False),
    Column("session_seq", Integer, nullable=False),
    Column("owner", Text),
    Column("type", Text, nullable=False),
    Column("agent_name", Text),
    Column("parameters", JsonText, nullable=False),
    Column("project_dir", Text),
    Column("parent_session_id", Text),
    Column("execution_mode", Text, nullable=False),
    Column("scope", JsonText),
    Column("demands", JsonText, nullable=False),
    Column("labels", JSONB),
    Column("profile_id", BigInteger, nullable=False),
    Column("status", Text, nullable=False, server_default=RunStatus.PENDING.value),
    Column("ready", Boolean, nullable=False, server_default="false"),
    Column("priority", SmallInteger, nullable=False, server_default="0"),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("max_attempts", Integer, nullable=False, server_default="1"),
    Column("run_timeout_seconds", Integer),
    Column("no_match_timeout_seconds", Integer, nullable=False),
    Column("runner_id", Text),
    Column("registration", BigInteger),
    Column("claim_token", Text),
    Column("claim_poll_id", Text),
    # Holds for the registration beside it only, since the version before this one does not update it.
    Column("claimed_by", Text),
    Column("claimed_by_registration", BigInteger),
    Column("former_holders", ARRAY(Text)),
    # Read as ``excluded_registrations``, ``failed_deliveries`` and ``missed_heartbeats``.
    Column("not_for", ARRAY(BigInteger)),
    Column("fruitless_claims", SmallInteger, nullable=False, server_default="0"),
    Column("unheld_beats", SmallInteger, nullable=False, server_default="0"),
    Column("stop_cause", Text),
    Column("ended_by_us", Boolean, nullable=False, server_default="false"),
    Column("last_ended_token", Text),
    Column("last_ended_runner", Text),
    Column("last_ended_outcome", Text),
    Column("error", Text),
    moment("created_at", default=True),
    moment("not_before"),
    moment("claimed_at"),
    moment("delivered_at"),
    moment("started_at"),
    moment("completed_at"),
    moment("match_deadline_at"),
    moment("claim_deadline_at"),
    moment("run_deadline_at"),
    moment("gaps_counted_at"),
    moment("unmatched_since"),
    CheckConstraint(one_of("status", RunStatus), name="status"),
    CheckConstraint(one_of("type", RunType), name="type"),
    CheckConstraint(one_of("execution_mode", ExecutionMode), name="execution_mode"),
    CheckConstraint(one_of("stop_cause", StopCause), name="stop_cause"),
    CheckConstraint(sql("(status IN $TERMINAL) = (completed_at IS NOT NULL)"), name="ended"),
    CheckConstraint(sql("status NOT IN $HELD_BY_TOKEN OR claim_token IS NOT NULL"), name="owned"),
    CheckConstraint(sql("status <> $PENDING OR claim_token IS NULL"), name="unowned"),
    CheckConstraint(sql("status = $PENDING OR NOT ready"), name="ready"),
    Index("ix_runs_session", "session_id", "session_seq", unique=True),
    Index("ix_runs_newest", text("created_at DESC"), text("run_id DESC")),
    Index("ix_runs_owner", "owner", text("created_at DESC"), text("run_id DESC")),
    Index(
        "ix_runs_unfinished",
        "session_id",
        "session_seq",
        postgresql_where=sql("status IN $UNFINISHED"),
    ),
    Index(
        "ix_runs_claim",
        "profile_id",
        text("priority DESC"),
        "run_id",
        postgresql_where=sql("status = $PENDING AND ready"),
    ),
    Index(
        "ix_runs_one_active",
        "session_id",
        unique=True,
        postgresql_where=sql("status IN $IN_HAND"),
    ),
    Index("ix_runs_in_hand", "runner_id", postgresql_where=sql("status IN $IN_HAND")),
    Index("ix_runs_poll", "claim_poll_id", postgresql_where=sql("status = $CLAIMED")),
    Index("ix_runs_due", "not_before", postgresql_where=sql("status = $PENDING AND NOT ready")),
    # Keep the planner from using it for claims (NOT NULL): with stale statistics it takes any smaller index of ready
    # runs.
    Index(
        "ix_runs_match_deadline",
        "match_deadline_at",
        postgresql_where=sql("status = $PENDING AND ready AND match_deadline_at IS NOT NULL"),
    ),
    Index(
        "ix_runs_unmatched",
        text("CAST(not_for IS NOT NULL AS integer)"),
        "profile_id",
        "no_match_timeout_seconds",
        "match_deadline_at",
        postgresql_where=sql("status = $PENDING AND ready AND match_deadline_at IS NOT NULL"),
    ),
    Index("ix_runs_claim_deadline", "claim_deadline_at", postgresql_where=sql("status = $CLAIMED")),
    Index("ix_runs_run_deadline", "run_deadline_at", postgresql_where=sql("status IN $PAST_CLAIM")),
    Index("ix_runs_unheld", "run_id", postgresql_where=sql("status = $RUNNING AND unheld_beats >= 2")),
    Index("ix_runs_labels", "labels", postgresql_using="gin", postgresql_where=text("labels IS NOT NULL")),
    postgresql_with=_VACUUMED_EARLY,
)

runner_registration = Sequence("runner_registration", metadata=metadata)

runners = Table(
    "runners",
    metadata,
    Column("runner_id", Text, primary_key=True),
    Column("registration", BigInteger, nullable=False, server_default=text("nextval('runner_registration')")),
    Column("instance_id", Text),
    Column("owner", Text),
    Column("hostname", Text, nullable=False),
    Column("project_dir", Text, nullable=False),
    Column("executor_profile", Text, nullable=False),
    Column("executor_type", Text),
    Column("executor", JsonText),
    Column("tags", ARRAY(Text), nullable=False),
    Column("require_matching_tags", Boolean, nullable=False, server_default="false"),
    Column("agents", JsonText),
    Column("capacity", Integer),
    Column("told_interval", Integer, nullable=False),
    Column("sends_tokens", Boolean, nullable=False, server_default="false"),
    Column("sends_holding", Boolean, nullable=False, server_default="false"),
    Column("registration_uid", Text, nullable=False, server_default=""),
    moment("registered_at", default=True),
    moment("last_seen", default=True),
    moment("lost_at"),
    moment("left_at"),
    moment("leave_requested_at"),
    moment("leave_told_at"),
    moment("counted_beat_at"),
    postgresql_with={"fillfactor": "50"},
)

events = Table(
    "events",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=True),
    Column("feed_pos", BigInteger),
    Column("event_uid", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("event_type", Text),
    Column("session_id", Text, nullable=False),
    Column("run_id", Text),
    Column("owner", Text),
    Column("frame", JsonText, nullable=False),
    moment("created_at", default=True),
    Index("uq_events_position", "feed_pos", unique=True, postgresql_where=text("feed_pos IS NOT NULL")),
    Index("ix_events_unnumbered", "id", postgresql_where=text("feed_pos IS NULL")),
    Index("ix_events_session", "session_id", "feed_pos", "id"),
    Index("ix_events_result", "session_id", "id", postgresql_where=text("event_type = 'result'")),
    postgresql_with=_VACUUMED_EARLY,
)

# Newest result of a session whose events retention has dropped. No foreign key: a delete leaves it to upkeep.
kept_results = Table(
    "kept_results",
    metadata,
    Column("session_id", Text, primary_key=True),
    Column("event_id", BigInteger, nullable=False),
    Column("frame", JsonText, nullable=False),
)

# Counts of the events of runs, while there is a bound on them (models.feed.event_counts).
run_event_counts = Table(
    "run_event_counts",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("events", BigInteger, nullable=False),
    postgresql_with={"fillfactor": "50"},
)

feed_head = Table(
    "feed_head",
    metadata,
    Column("only_row", Boolean, primary_key=True, server_default="true"),
    Column("last_pos", BigInteger, nullable=False, server_default="0"),
    # Position up to which retention has dropped events: older cursors are expired.
    Column("floor", BigInteger, nullable=False, server_default="0"),
    # Watermark of numbering: the search for unnumbered events begins behind this id.
    Column("numbered_below", BigInteger, nullable=False, server_default="0"),
    Column("epoch", Text, nullable=False),
    # Id to which the watermark of numbering is raised next, and the moment of its last move.
    Column("next_floor", BigInteger, nullable=False, server_default="0"),
    moment("floors_moved_at", default=True),
    CheckConstraint("only_row", name="only_row"),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("caller", Text, primary_key=True, server_default=""),
    Column("key", Text, primary_key=True),
    Column("body_hash", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("session_id", Text, nullable=False),
    moment("created_at", default=True),
    Index("ix_idempotency_keys_age", "created_at"),
)

stop_commands = Table(
    "stop_commands",
    metadata,
    Column("stop_id", BigInteger, primary_key=True, autoincrement=True),
    Column("runner_id", Text, nullable=False),
    Column("registration", BigInteger, nullable=False),
    Column("session_id", Text, nullable=False, unique=True),
    Column("run_id", Text),
    moment("created_at", default=True),
    moment("sent_at"),
    moment("deadline_at", nullable=False),
    Column("superseded", Boolean, nullable=False, server_default="false"),
    Index("ix_stop_commands_runner", "runner_id"),
    Index("ix_stop_commands_deadline", "deadline_at"),
)

# Answers of deletes, for repeats of the request, and the events that upkeep has still to remove.
deleted_sessions = Table(
    "deleted_sessions",
    metadata,
    Column("request_id", Text, primary_key=True),
    Column("session_id", Text, nullable=False),
    Column("below_event_id", BigInteger, nullable=False),
    Column("events_count", BigInteger, nullable=False),
    Column("runs_count", BigInteger, nullable=False),
    moment("deleted_at", default=True),
)

# Results of children for their parents. The incarnation tells a parent from a later session of the same id.
child_results = Table(
    "child_results",
    metadata,
    Column("child_run_id", Text, primary_key=True),
    Column("child_session_id", Text, nullable=False),
    Column("parent_session_id", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("body", JsonText, nullable=False),
    Column("delivered_in", Text),
    moment("created_at", default=True),
    Column("parent_incarnation", Text, nullable=False, server_default=""),
    Column("body_bytes", Integer, nullable=False, server_default="0"),
    moment("returned_at"),
    Index("ix_child_results_waiting", "parent_session_id", postgresql_where=text("delivered_in IS NULL")),
    Index("ix_child_results_delivered", "delivered_in", postgresql_where=text("delivered_in IS NOT NULL")),
)

waiting_polls = Table(
    "waiting_polls",
    metadata,
    Column("poll_id", Text, primary_key=True),
    Column("runner_id", Text, nullable=False),
    Column("registration", BigInteger, nullable=False),
    Column("instance", Text, nullable=False),
    Column("wanted", SmallInteger, nullable=False),
    Column("subject", Text),
    moment("seen_at", default=True),
    Index("ix_waiting_polls_runner", "runner_id"),
    prefixes=["UNLOGGED"],
)

instances = Table(
    "instances",
    metadata,
    Column("instance", Text, primary_key=True),
    moment("seen_at", default=True),
)

duties = Table(
    "duties",
    metadata,
    Column("duty", Text, primary_key=True),
    moment("last_run"),
)

# Outages, in which silence of the runners was or may have been our own doing (models.expiry.outages).
gaps = Table(
    "gaps",
    metadata,
    Column("gap_id", BigInteger, primary_key=True, autoincrement=True),
    Column("kind", Text, nullable=False),
    moment("started_at", nullable=False),
    moment("ended_at", nullable=False),
    CheckConstraint("kind IN ('expiry', 'web', 'runners')", name="kind"),
    Index("ix_gaps_ended_at", "ended_at"),
)
