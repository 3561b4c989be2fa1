"""States of runs and sessions and the only moves between them (PROTOCOL, Runs)."""

from enum import StrEnum
from typing import Final


class RunStatus(StrEnum):
    PENDING = "pending"
    CLAIMED = "claimed"
    RUNNING = "running"
    STOPPING = "stopping"
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"


# Computed in one place: models/state/session_status.py.
class SessionStatus(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    IDLE = "idle"
    STOPPING = "stopping"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"


class RunType(StrEnum):
    START = "start_session"
    RESUME = "resume_session"


class ExecutionMode(StrEnum):
    SYNC = "sync"
    ASYNC_POLL = "async_poll"
    ASYNC_CALLBACK = "async_callback"


class Outcome(StrEnum):
    STARTED = "started"
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"


class StopCause(StrEnum):
    STOP = "stop"
    TIMEOUT = "timeout"


class Cause(StrEnum):
    """Reason of an end of a run, or of its return to pending; a label of metrics."""

    REPORTED = "reported"
    STOPPED = "stopped"
    NO_MATCH = "no_match"
    LOST = "lost"
    TIMEOUT = "timeout"
    # Returns of a claim: never delivered, delivered and never started, given back by its runner.
    CLAIM = "claim"
    START = "start"
    RELEASED = "released"
    # Return after a reported failure, by the run's retry policy.
    FAILED = "failed"
    # End of a run that was returned too often in a row.
    NEVER_STARTED = "never_started"


class BulkAction(StrEnum):
    STOP = "stop"
    DELETE = "delete"
    REPLAY = "replay"
    HOLD = "hold"
    RELEASE = "release"


class BulkState(StrEnum):
    # Matched by a dry run, and not started.
    PREPARED = "prepared"
    RUNNING = "running"
    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"


class Overlap(StrEnum):
    """Treatment of a time of a schedule while a run of the schedule is unfinished."""

    SKIP = "skip"
    BUFFER_ONE = "buffer_one"
    BUFFER_ALL = "buffer_all"
    CANCEL_RUNNING = "cancel_running"
    ALLOW = "allow"


class FireKind(StrEnum):
    # A nominal time of the schedule.
    DUE = "due"
    # Asked for by a person, at that moment.
    MANUAL = "manual"
    # A nominal time of the past, asked for by a person.
    BACKFILL = "backfill"


class FireOutcome(StrEnum):
    SUBMITTED = "submitted"
    SKIPPED = "skipped"
    # Waits for the end of earlier runs, or for its owner's quota.
    BUFFERED = "buffered"
    MISSED = "missed"
    FAILED = "failed"


class DeliveryState(StrEnum):
    """States of a message to a webhook."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class WebhookEvent(StrEnum):
    """Ends of which webhooks are told: those of runs, and those of sessions."""

    RUN_COMPLETED = "run.completed"
    RUN_FAILED = "run.failed"
    RUN_STOPPED = "run.stopped"
    SESSION_FINISHED = "session.finished"
    SESSION_FAILED = "session.failed"
    SESSION_STOPPED = "session.stopped"


ENDED_BULKS: Final = frozenset({BulkState.COMPLETED, BulkState.STOPPED, BulkState.FAILED})

TRANSITIONS: Final[dict[RunStatus, frozenset[RunStatus]]] = {
    RunStatus.PENDING: frozenset({RunStatus.CLAIMED, RunStatus.STOPPED, RunStatus.FAILED}),
    RunStatus.CLAIMED: frozenset(
        {
            RunStatus.PENDING,
            RunStatus.RUNNING,
            RunStatus.STOPPING,
            RunStatus.COMPLETED,
            RunStatus.FAILED,
            RunStatus.STOPPED,
        },
    ),
    RunStatus.RUNNING: frozenset(
        {RunStatus.PENDING, RunStatus.STOPPING, RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.STOPPED},
    ),
    RunStatus.STOPPING: frozenset({RunStatus.PENDING, RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.STOPPED}),
    RunStatus.COMPLETED: frozenset(),
    RunStatus.FAILED: frozenset(),
    RunStatus.STOPPED: frozenset(),
}

TERMINAL: Final = frozenset(status for status, targets in TRANSITIONS.items() if not targets)
UNFINISHED: Final = frozenset(RunStatus) - TERMINAL
IN_HAND: Final = frozenset({RunStatus.CLAIMED, RunStatus.RUNNING, RunStatus.STOPPING})
# Statuses that require a claim token, and for which a heartbeat that does not name the run counts.
HELD_BY_TOKEN: Final = frozenset({RunStatus.CLAIMED, RunStatus.RUNNING})
# Statuses behind the claim: `run_deadline_at` holds, and the end resets the count of failed deliveries.
PAST_CLAIM: Final = frozenset({RunStatus.RUNNING, RunStatus.STOPPING})
UNSUCCESSFUL: Final = TERMINAL - {RunStatus.COMPLETED}
# Statuses in which results of children resume a session.
FREE: Final = frozenset({SessionStatus.IDLE, SessionStatus.FINISHED})
# Statuses of sessions without live work, unless a run is pending or a process has not ended yet.
ENDED: Final = frozenset({SessionStatus.FINISHED, SessionStatus.FAILED, SessionStatus.STOPPED})
# Statuses that a session shows once nothing unfinished is left (``sessions.last_outcome``).
RESTING: Final = ENDED | {SessionStatus.IDLE}

# Names of the groups in SQL (models/schema/sql.py).
RUN_GROUPS: Final = {
    "TERMINAL": TERMINAL,
    "UNSUCCESSFUL": UNSUCCESSFUL,
    "UNFINISHED": UNFINISHED,
    "IN_HAND": IN_HAND,
    "HELD_BY_TOKEN": HELD_BY_TOKEN,
    "PAST_CLAIM": PAST_CLAIM,
}
SESSION_GROUPS: Final = {"FREE": FREE, "ENDED": ENDED, "RESTING": RESTING}
