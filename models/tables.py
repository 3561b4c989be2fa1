"""The tables. The migrations create them; a test compares both."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Sequence,
    SmallInteger,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from models.base import JsonText, Role
from models.statuses import ExecutionMode, RunStatus, RunType, SessionStatus, StopCause

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_N_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    },
)
# Every row is updated, and no update is HOT: it touches an indexed column (docs/operations.md, Bloat).
_VACUUMED_EARLY = {"autovacuum_vacuum_scale_factor": "0.05"}


def _one_of(column: str, values: Any) -> str:
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


def _time(name: str, *, default: bool = False, nullable: bool = True) -> Column[Any]:
    return Column(
        name,
        DateTime(timezone=True),
        nullable=nullable and not default,
        server_default=func.now() if default else None,
    )


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
    _time("created_at", default=True),
    _time("last_resumed_at"),
    _time("last_sign_at"),
    CheckConstraint(_one_of("status", SessionStatus), name="status"),
    CheckConstraint("last_outcome IN ('idle', 'finished', 'failed', 'stopped')", name="last_outcome"),
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
    _time("last_used_at", default=True),
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
    Column("not_for", ARRAY(BigInteger)),
    Column("fruitless_claims", SmallInteger, nullable=False, server_default="0"),
    Column("unheld_beats", SmallInteger, nullable=False, server_default="0"),
    Column("stop_cause", Text),
    Column("ended_by_us", Boolean, nullable=False, server_default="false"),
    Column("last_ended_token", Text),
    Column("last_ended_runner", Text),
    Column("last_ended_outcome", Text),
    Column("error", Text),
    _time("created_at", default=True),
    _time("not_before"),
    _time("claimed_at"),
    _time("delivered_at"),
    _time("started_at"),
    _time("completed_at"),
    _time("match_deadline_at"),
    _time("claim_deadline_at"),
    _time("run_deadline_at"),
    _time("gaps_counted_at"),
    CheckConstraint(_one_of("status", RunStatus), name="status"),
    CheckConstraint(_one_of("type", RunType), name="type"),
    CheckConstraint(_one_of("execution_mode", ExecutionMode), name="execution_mode"),
    CheckConstraint(_one_of("stop_cause", StopCause), name="stop_cause"),
    CheckConstraint("(status IN ('completed', 'failed', 'stopped')) = (completed_at IS NOT NULL)", name="ended"),
    CheckConstraint("status NOT IN ('claimed', 'running') OR claim_token IS NOT NULL", name="owned"),
    CheckConstraint("status <> 'pending' OR claim_token IS NULL", name="unowned"),
    CheckConstraint("status = 'pending' OR NOT ready", name="ready"),
    Index("ix_runs_session", "session_id", "session_seq", unique=True),
    Index("ix_runs_newest", text("created_at DESC"), text("run_id DESC")),
    Index("ix_runs_owner", "owner", text("created_at DESC"), text("run_id DESC")),
    Index(
        "ix_runs_unfinished",
        "session_id",
        "session_seq",
        postgresql_where=text("status IN ('pending', 'claimed', 'running', 'stopping')"),
    ),
    Index(
        "ix_runs_claim",
        "profile_id",
        text("priority DESC"),
        "run_id",
        postgresql_where=text("status = 'pending' AND ready"),
    ),
    Index(
        "ix_runs_one_active",
        "session_id",
        unique=True,
        postgresql_where=text("status IN ('claimed', 'running', 'stopping')"),
    ),
    Index("ix_runs_in_hand", "runner_id", postgresql_where=text("status IN ('claimed', 'running', 'stopping')")),
    Index("ix_runs_poll", "claim_poll_id", postgresql_where=text("status = 'claimed'")),
    Index("ix_runs_due", "not_before", postgresql_where=text("status = 'pending' AND NOT ready")),
    # NOT NULL keeps it away from the claim: with stale statistics the planner takes any smaller index of ready runs.
    Index(
        "ix_runs_match_deadline",
        "match_deadline_at",
        postgresql_where=text("status = 'pending' AND ready AND match_deadline_at IS NOT NULL"),
    ),
    Index("ix_runs_claim_deadline", "claim_deadline_at", postgresql_where=text("status = 'claimed'")),
    Index("ix_runs_run_deadline", "run_deadline_at", postgresql_where=text("status IN ('running', 'stopping')")),
    Index("ix_runs_unheld", "run_id", postgresql_where=text("status = 'running' AND unheld_beats >= 2")),
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
    _time("registered_at", default=True),
    _time("last_seen", default=True),
    _time("lost_at"),
    _time("left_at"),
    _time("leave_requested_at"),
    _time("leave_told_at"),
    _time("counted_beat_at"),
    postgresql_with={"fillfactor": "50"},
)

events = Table(
    "events",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=True),
    Column("feed_pos", BigInteger, unique=True),
    Column("event_uid", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("event_type", Text),
    Column("session_id", Text, nullable=False),
    Column("run_id", Text),
    Column("owner", Text),
    Column("frame", JsonText, nullable=False),
    _time("created_at", default=True),
    Index("ix_events_unnumbered", "id", postgresql_where=text("feed_pos IS NULL")),
    Index("ix_events_session", "session_id", "feed_pos", "id"),
    Index("ix_events_result", "session_id", "id", postgresql_where=text("event_type = 'result'")),
    postgresql_with=_VACUUMED_EARLY,
)

# The newest result of a session whose events retention has dropped. No foreign key: a delete leaves it to upkeep.
kept_results = Table(
    "kept_results",
    metadata,
    Column("session_id", Text, primary_key=True),
    Column("event_id", BigInteger, nullable=False),
    Column("frame", JsonText, nullable=False),
)

feed_head = Table(
    "feed_head",
    metadata,
    Column("only_row", Boolean, primary_key=True, server_default="true"),
    Column("last_pos", BigInteger, nullable=False, server_default="0"),
    Column("floor", BigInteger, nullable=False, server_default="0"),
    Column("numbered_below", BigInteger, nullable=False, server_default="0"),
    Column("epoch", Text, nullable=False),
    Column("next_floor", BigInteger, nullable=False, server_default="0"),
    _time("floors_moved_at", default=True),
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
    _time("created_at", default=True),
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
    _time("created_at", default=True),
    _time("sent_at"),
    _time("deadline_at", nullable=False),
    Index("ix_stop_commands_runner", "runner_id"),
    Index("ix_stop_commands_deadline", "deadline_at"),
)

# What a delete leaves behind: its answer, for a repeat of the request, and which events upkeep has still to remove.
deleted_sessions = Table(
    "deleted_sessions",
    metadata,
    Column("request_id", Text, primary_key=True),
    Column("session_id", Text, nullable=False),
    Column("below_event_id", BigInteger, nullable=False),
    Column("events_count", BigInteger, nullable=False),
    Column("runs_count", BigInteger, nullable=False),
    _time("deleted_at", default=True),
)

# What parents are to hear of their children. The incarnation tells a parent from a later session of the same id.
child_results = Table(
    "child_results",
    metadata,
    Column("child_run_id", Text, primary_key=True),
    Column("child_session_id", Text, nullable=False),
    Column("parent_session_id", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("body", JsonText, nullable=False),
    Column("delivered_in", Text),
    _time("created_at", default=True),
    Column("parent_incarnation", Text, nullable=False, server_default=""),
    Column("body_bytes", Integer, nullable=False, server_default="0"),
    _time("returned_at"),
    Index("ix_child_results_waiting", "parent_session_id", postgresql_where=text("delivered_in IS NULL")),
    Index("ix_child_results_delivered", "delivered_in", postgresql_where=text("delivered_in IS NOT NULL")),
)

# What callers show. Of a key only the hash of its secret is kept; `key_id` is the readable part by which it is found.
api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("secret_hash", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("owner", Text),
    Column("name", Text),
    _time("created_at", default=True),
    _time("expires_at"),
    _time("revoked_at"),
    _time("last_used_at"),
    CheckConstraint(_one_of("role", Role), name="role"),
    CheckConstraint("role = 'admin' OR owner IS NOT NULL", name="owned"),
)

# Counts changes of api_keys; 0 means that there was never a key.
key_changes = Table(
    "key_changes",
    metadata,
    Column("only_row", Boolean, primary_key=True, server_default="true"),
    Column("revision", BigInteger, nullable=False, server_default="0"),
    CheckConstraint("only_row", name="only_row"),
)

# A ticket is for one stream: whoever shows it takes its row away.
stream_tickets = Table(
    "stream_tickets",
    metadata,
    Column("ticket_hash", Text, primary_key=True),
    Column("role", Text, nullable=False),
    Column("owner", Text),
    Column("key_id", Text),
    _time("valid_until"),
    Column("filters", JsonText, nullable=False),
    _time("expires_at", nullable=False),
    CheckConstraint(_one_of("role", Role), name="role"),
    Index("ix_stream_tickets_expires_at", "expires_at"),
)

waiting_polls = Table(
    "waiting_polls",
    metadata,
    Column("poll_id", Text, primary_key=True),
    Column("runner_id", Text, nullable=False),
    Column("registration", BigInteger, nullable=False),
    Column("instance", Text, nullable=False),
    Column("wanted", SmallInteger, nullable=False),
    _time("seen_at", default=True),
    Index("ix_waiting_polls_runner", "runner_id"),
    prefixes=["UNLOGGED"],
)

instances = Table(
    "instances",
    metadata,
    Column("instance", Text, primary_key=True),
    _time("seen_at", default=True),
)

duties = Table(
    "duties",
    metadata,
    Column("duty", Text, primary_key=True),
    _time("last_run"),
)

# Stretches in which silence of the runners was, or may have been, our own doing (models.gaps).
gaps = Table(
    "gaps",
    metadata,
    Column("gap_id", BigInteger, primary_key=True, autoincrement=True),
    Column("kind", Text, nullable=False),
    _time("started_at", nullable=False),
    _time("ended_at", nullable=False),
    CheckConstraint("kind IN ('expiry', 'web', 'runners')", name="kind"),
    Index("ix_gaps_ended_at", "ended_at"),
)
