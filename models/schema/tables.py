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
from models.schema.agent_tables import runner_agents
from models.schema.blueprint_tables import run_blueprints, runner_script_syncs
from models.schema.bulk_tables import bulk_chunks, bulk_jobs
from models.schema.caller_tables import (
    api_keys,
    audit_log,
    console_sessions,
    console_sign_ins,
    key_changes,
    stream_tickets,
)
from models.schema.columns import VACUUMED_EARLY, JsonText, metadata, moment, one_of
from models.schema.feed_tables import events, feed_head, kept_results, run_event_counts, trace_head, unnumbered_batches
from models.schema.hold_tables import holds
from models.schema.overview_tables import run_stats, run_stats_head, run_totals, run_totals_head
from models.schema.process_tables import duties, gaps, instances, metrics_targets, waiting_polls
from models.schema.registry_tables import registry_entries
from models.schema.schedule_tables import schedule_fires, schedules
from models.schema.sql import sql
from models.schema.webhook_tables import webhook_deliveries, webhook_head, webhook_secrets, webhooks

__all__ = [
    "api_keys",
    "audit_log",
    "bulk_chunks",
    "bulk_jobs",
    "child_results",
    "console_sessions",
    "console_sign_ins",
    "deleted_sessions",
    "demand_profiles",
    "duties",
    "events",
    "feed_head",
    "gaps",
    "holds",
    "idempotency_keys",
    "instances",
    "kept_results",
    "key_changes",
    "metadata",
    "metrics_targets",
    "registry_entries",
    "run_blueprints",
    "run_event_counts",
    "run_stats",
    "run_stats_head",
    "run_totals",
    "run_totals_head",
    "runner_agents",
    "runner_registration",
    "runner_script_syncs",
    "runners",
    "runs",
    "schedule_fires",
    "schedules",
    "sessions",
    "stop_commands",
    "stream_tickets",
    "trace_head",
    "unnumbered_batches",
    "waiting_polls",
    "webhook_deliveries",
    "webhook_head",
    "webhook_secrets",
    "webhooks",
]

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
    Index(
        "ix_sessions_of_owner",
        "owner",
        text("created_at DESC"),
        text("session_id DESC"),
        postgresql_where=text("owner IS NOT NULL"),
    ),
    Index(
        "ix_sessions_unfinished",
        "status",
        text("created_at DESC"),
        text("session_id DESC"),
        postgresql_where=sql("status <> $FINISHED"),
    ),
    Index("ix_sessions_parent", "parent_session_id", postgresql_where=text("parent_session_id IS NOT NULL")),
    Index("ix_sessions_live", "runner_id", postgresql_where=text("runner_id IS NOT NULL")),
    postgresql_with=VACUUMED_EARLY,
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

# Columns of pending runs by which they are counted.
COUNTED_COLUMNS = ["profile_id", "ready", "not_before", "match_deadline_at", "no_match_timeout_seconds"]

NEWEST_FIRST = (text("created_at DESC"), text("run_id DESC"))
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
    # Run of which it is a replay, which may be gone.
    Column("replay_of", Text),
    # W3C trace context of its submission.
    Column("traceparent", Text),
    Column("retry", JsonText),
    CheckConstraint(one_of("status", RunStatus), name="status"),
    CheckConstraint(one_of("type", RunType), name="type"),
    CheckConstraint(one_of("execution_mode", ExecutionMode), name="execution_mode"),
    CheckConstraint(one_of("stop_cause", StopCause), name="stop_cause"),
    CheckConstraint(sql("(status IN $TERMINAL) = (completed_at IS NOT NULL)"), name="ended"),
    CheckConstraint(sql("status NOT IN $HELD_BY_TOKEN OR claim_token IS NOT NULL"), name="owned"),
    CheckConstraint(sql("status <> $PENDING OR claim_token IS NULL"), name="unowned"),
    CheckConstraint(sql("status = $PENDING OR NOT ready"), name="ready"),
    Index("ix_runs_session", "session_id", "session_seq", unique=True),
    Index("ix_runs_newest", *NEWEST_FIRST),
    Index("ix_runs_of_owner", "owner", *NEWEST_FIRST, postgresql_where=text("owner IS NOT NULL")),
    # Both hold ended runs only, which are written once.
    Index(
        "ix_runs_ended",
        text("completed_at DESC"),
        text("run_id DESC"),
        postgresql_where=text("completed_at IS NOT NULL"),
    ),
    Index(
        "ix_runs_unsuccessful",
        "status",
        *NEWEST_FIRST,
        postgresql_where=sql("status IN $UNSUCCESSFUL"),
    ),
    Index(
        "ix_runs_unsuccessful_of_owner",
        "owner",
        "status",
        *NEWEST_FIRST,
        postgresql_where=sql("status IN $UNSUCCESSFUL AND owner IS NOT NULL"),
    ),
    # Left by a run at its claim, so that a life adds one entry to each. Counts read nothing but the index.
    Index(
        "ix_runs_pending",
        *NEWEST_FIRST,
        postgresql_include=COUNTED_COLUMNS,
        postgresql_where=sql("status = $PENDING"),
    ),
    Index(
        "ix_runs_pending_of_owner",
        "owner",
        *NEWEST_FIRST,
        postgresql_include=COUNTED_COLUMNS,
        postgresql_where=sql("status = $PENDING AND owner IS NOT NULL"),
    ),
    Index("ix_runs_unfinished", "session_id", "session_seq", postgresql_where=sql("status IN $UNFINISHED")),
    Index(
        "ix_runs_claim",
        "profile_id",
        text("priority DESC"),
        "run_id",
        postgresql_where=sql("status = $PENDING AND ready"),
    ),
    Index("ix_runs_one_active", "session_id", unique=True, postgresql_where=sql("status IN $IN_HAND")),
    Index("ix_runs_in_hand", "runner_id", postgresql_where=sql("status IN $IN_HAND")),
    Index("ix_runs_poll", "claim_poll_id", postgresql_where=sql("status = $CLAIMED")),
    Index("ix_runs_due", "not_before", postgresql_where=sql("status = $PENDING AND NOT ready")),
    # Read by the expiry of release 0.1.0 alone; the contraction after the next release drops it. Keep the planner from
    # using it for claims (NOT NULL): with stale statistics it takes any smaller index of ready runs.
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
    Index(
        "ix_runs_timed",
        "run_deadline_at",
        postgresql_where=sql("status IN $PAST_CLAIM AND run_deadline_at IS NOT NULL"),
    ),
    Index("ix_runs_unheld", "run_id", postgresql_where=sql("status = $RUNNING AND unheld_beats >= 2")),
    Index(
        "ix_runs_replays",
        "replay_of",
        *NEWEST_FIRST,
        postgresql_where=text("replay_of IS NOT NULL"),
    ),
    Index("ix_runs_labels", "labels", postgresql_using="gin", postgresql_where=text("labels IS NOT NULL")),
    postgresql_with=VACUUMED_EARLY,
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
    # Written by the last release, read by none: ``runner_agents`` has them.
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
    moment("draining_since"),
    Column("drain_reason", Text),
    # Capacity that the runner told; while it drains ``capacity`` is 0.
    Column("drained_capacity", Integer),
    postgresql_with={"fillfactor": "50"},
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
