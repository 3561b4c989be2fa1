"""Define the answers of routes, with examples, and the fields they take, for /openapi.json."""

from collections.abc import Mapping
from typing import Any, Final

from app.openapi.shapes import Answers, Anything, Choice, Free, MayLack, NullOr, OrNull
from app.openapi.shapes import answer as _answer
from app.openapi.shapes import error as _error
from models.core.statuses import ExecutionMode, RunStatus, RunType, SessionStatus

AWAY: Final[Answers] = {503: _error("Postgres is away; see `Retry-After`", "Service temporarily unavailable")}
INVALID: Final[Answers] = {
    413: _error("Body over the limit", "Request body is larger than 1048576 bytes"),
    422: _error("Invalid request", [{"type": "missing", "loc": ["body", "type"], "msg": "Field required"}]),
}
_NO_RUN: Final[Answers] = {404: _error("No such run", "Run not found")}
_NO_SESSION: Final[Answers] = {404: _error("No such session", "Session not found")}
_NO_RUNNER: Final[Answers] = {
    401: _error("Unknown runner, or one that has left or was told to leave", "Runner not registered")
}

_RUN: Final[Mapping[str, Any]] = {
    "run_id": "run_0197f7a0c3d17c1e8f2a4b6c8d0e1f2a",
    "type": RunType.START,
    "session_id": "ses_0197f7a0c3d17c1e8f2a4b6c8d0e1f2b",
    "agent_name": NullOr("writer"),
    "parameters": Free({"prompt": "Say hello"}),
    "project_dir": NullOr("/srv/project"),
    "parent_session_id": NullOr("ses_0197f7a0c3d17c1e8f2a4b6c8d0e1f20"),
    "execution_mode": ExecutionMode.SYNC,
    "demands": Free({"executor_type": "autonomous", "tags": []}),
    "status": RunStatus.COMPLETED,
    "runner_id": OrNull("lnch_0a1b2c3d4e5f"),
    "error": NullOr("Exit code 1"),
    "created_at": "2026-01-01T12:00:00.000000+00:00",
    "claimed_at": OrNull("2026-01-01T12:00:00.010000+00:00"),
    "started_at": OrNull("2026-01-01T12:00:00.020000+00:00"),
    "completed_at": OrNull("2026-01-01T12:00:01.000000+00:00"),
    "timeout_at": OrNull("2026-01-01T12:05:00.000000+00:00"),
    "attempt": 1,
    "priority": 0,
    "not_before": NullOr("2026-01-01T12:00:00.000000+00:00"),
    "max_attempts": 1,
    "labels": Free({}),
}
_SESSION: Final[Mapping[str, Any]] = {
    "session_id": _RUN["session_id"],
    "status": SessionStatus.FINISHED,
    "created_at": _RUN["created_at"],
    "project_dir": NullOr("/srv/project"),
    "agent_name": NullOr("writer"),
    "last_resumed_at": NullOr(_RUN["created_at"]),
    "parent_session_id": _RUN["parent_session_id"],
    "executor_session_id": OrNull("a1"),
    "executor_profile": OrNull("coding"),
    "hostname": OrNull("build-7"),
    "owner": NullOr("ann"),
    "depth": 0,
}
_SUBMITTED: Final = {"run_id": _RUN["run_id"], "session_id": _RUN["session_id"], "status": "pending"}
_CURSOR: Final = "v1.c0ffee.1024"
# Fields of a page: `next_cursor` only when there is more.
_PAGE: Final = {"next_cursor": MayLack(_CURSOR), "feed_cursor": _CURSOR}
_EVENT: Final[Mapping[str, Any]] = {
    "id": 17,
    "run_id": OrNull(_RUN["run_id"]),
    "event_type": "message",
    "session_id": _RUN["session_id"],
    "timestamp": Anything("2026-01-01T12:00:00Z"),
    **dict.fromkeys(("tool_name", "tool_input", "tool_output", "error", "exit_code", "reason"), Anything()),
    "role": Anything("assistant"),
    "content": Anything([{"type": "text", "text": "Hello"}]),
    **dict.fromkeys(("result_text", "result_data"), Anything()),
}
_STALE: Final = {"error": "stale_claim", "status": "running", "message": "The run is not held by this claim any more"}

SUBMITTED: Final[Answers] = {
    201: _answer("Accepted", _SUBMITTED),
    200: _answer("The first answer to this Idempotency-Key", _SUBMITTED),
    400: _error("Parameters or parent cannot be used", "session_id is required for resume_session"),
    404: _error("Session or parent session is unknown", "Session 'X' not found"),
    409: _error("The session exists, or the key came with another body", "Session 'X' already exists"),
    **INVALID,
    **AWAY,
}
BATCH: Final[Answers] = {
    200: _answer(
        "One result per run, in order",
        {"results": [{"code": 201, **_SUBMITTED}, {"code": 404, "detail": Anything("Session 'X' not found")}]},
    ),
    **INVALID,
    **AWAY,
}
_LIST: Final = "`next_cursor` leads to the next page, if any; `feed_cursor` is the feed's position of this snapshot"
_BAD_CURSOR: Final[Answers] = {
    400: _error("The cursor cannot be used", "The cursor is not one that was given out here")
}
RUNS: Final[Answers] = {
    200: _answer(_LIST, {"runs": [_RUN], **_PAGE}),
    **_BAD_CURSOR,
    422: INVALID[422],
    **AWAY,
}
RUN: Final[Answers] = {200: _answer("The run", _RUN), **_NO_RUN, 422: INVALID[422], **AWAY}
STOPPED: Final[Answers] = {
    200: _answer(
        "Status after the stop; repeating is harmless",
        {
            "ok": True,
            "session_id": _RUN["session_id"],
            "run_id": MayLack(_RUN["run_id"]),
            "status": "stopping",
            "message": MayLack("It has ended already"),
        },
    ),
    404: _error("No such run or session", "Session not found"),
    **AWAY,
}
RUN_FILTERS: Final = (
    ("status", "string", "Only runs in this status; may be repeated"),
    ("session_id", "string", "Only runs of this session"),
    ("runner_id", "string", "Only runs of this runner"),
    ("agent_name", "string", "Only runs of this agent"),
    ("label", "string", "`key=value`; may be repeated, all must be there"),
    ("limit", "integer", "Most items of the page (1 to 1000)"),
    ("cursor", "string", "`next_cursor` of the page before"),
)
WAIT: Final = (("wait", "number", "Seconds to wait for the end of the run (at most 60)"),)

SESSIONS: Final[Answers] = {
    200: _answer(_LIST, {"sessions": [_SESSION], **_PAGE}),
    **_BAD_CURSOR,
    422: INVALID[422],
    **AWAY,
}
SESSION_FILTERS: Final = (
    ("status", "string", "Only sessions in this status; may be repeated"),
    ("parent_session_id", "string", "Only children of this session"),
    ("limit", "integer", "Most items of the page (1 to 1000)"),
    ("cursor", "string", "`next_cursor` of the page before"),
)
SESSION: Final[Answers] = {200: _answer("The session", {"session": _SESSION}), **_NO_SESSION, **AWAY}
SESSION_CHANGED: Final[Answers] = {
    200: _answer("The session as it is now", {"ok": True, "session": _SESSION}),
    **_NO_SESSION,
    409: _error("The run is held by another host or profile", _STALE),
    **INVALID,
    **AWAY,
}
SESSION_STATUS: Final[Answers] = {200: _answer("`not_existent` for an unknown session", {"status": "finished"}), **AWAY}
_RESULT: Final = {"result_text": Anything("Hello"), "result_data": Anything()}
RESULT: Final[Answers] = {
    200: _answer("Newest `result` event", _RESULT),
    400: _error("The session is not finished or idle", "Session not finished or idle"),
    404: _error("No such session, or it has no result", "No result found"),
    **AWAY,
}
RUN_RESULT: Final[Answers] = {
    200: _answer("Newest `result` event of the run", _RESULT),
    400: _error("The run is not completed", "Run not completed"),
    404: _error("No such run, or no result of it is kept", "No result found"),
    **AWAY,
}
AFFINITY: Final[Answers] = {
    200: _answer(
        "Place where the session lives; null until it is bound",
        {
            "affinity": {
                name: _SESSION[name]
                for name in ("session_id", "executor_session_id", "hostname", "project_dir", "executor_profile")
            }
        },
    ),
    **_NO_SESSION,
    **AWAY,
}
EVENTS: Final[Answers] = {
    200: _answer("In feed order", {"events": [{**_EVENT, "feed_cursor": OrNull(_CURSOR)}], **_PAGE}),
    **_BAD_CURSOR,
    **_NO_SESSION,
    422: INVALID[422],
    **AWAY,
}
EVENT_PAGE: Final = (
    ("limit", "integer", "Most items of the page (1 to 1000)"),
    ("after", "string", "`feed_cursor` of the last event seen"),
    ("run_id", "string", "Only events of this run"),
)
EVENTS_STORED: Final[Answers] = {
    201: _answer(
        "Stored; for a list with one result each",
        {"ok": True, "results": MayLack([{"code": 201, "detail": MayLack(Anything())}])},
    ),
    400: _error("The event is of another session", "Event session_id must match URL session_id"),
    **_NO_SESSION,
    409: _error("The claim_token is not the run's current one", _STALE),
    413: _error("Over 64 MiB", "Request body is larger than 67108864 bytes"),
    422: INVALID[422],
    **AWAY,
}
DELETED: Final[Answers] = {
    200: _answer(
        "Deleted",
        {
            "ok": True,
            "session_id": _RUN["session_id"],
            "deleted": {"session": True, "events_count": 12, "runs_count": 1},
        },
    ),
    **_NO_SESSION,
    409: _error("The session has active runs or a live process", "Stop session first"),
    **AWAY,
}

REGISTERED: Final[Answers] = {
    200: _answer(
        "Registered; `warning` tells when no run can match",
        {
            "runner_id": "lnch_0a1b2c3d4e5f",
            "poll_endpoint": "/runner/runs",
            "poll_timeout_seconds": 30.0,
            "heartbeat_interval_seconds": 60,
            "warning": MayLack("Without executor.type this runner gets none"),
        },
    ),
    409: _error(
        "A process of this owner with the same four properties is online",
        {
            "error": "duplicate_runner",
            "message": "A runner with the same hostname, project_dir, executor_profile and command is online",
            "runner_id": "lnch_0a1b2c3d4e5f",
            "hostname": "build-7",
            "project_dir": "/srv/project",
            "executor_profile": "coding",
        },
    ),
    **INVALID,
    **AWAY,
}
_CLAIMED: Final = {
    **_RUN,
    "status": "claimed",
    "scope": NullOr(Free({})),
    "resolved_agent_blueprint": Anything(),
    "claim_token": "0197f7a0c3d17c1e8f2a4b6c8d0e1f2c",
}
POLLED: Final[Answers] = {
    200: _answer(
        "The first that applies: sessions to stop, order to leave, runs (`runs` when `max` was given)",
        Choice(
            {"run": _CLAIMED}, {"runs": [_CLAIMED]}, {"stop_sessions": [_RUN["session_id"]]}, {"deregistered": True}
        ),
    ),
    204: {"description": "No run and no order"},
    **_NO_RUNNER,
    422: INVALID[422],
}
POLL: Final = (
    ("runner_id", "string", "Id of the polling runner"),
    ("max", "integer", "Most runs to claim (at most 100; 0: only stops); the answer is then `runs`"),
    ("wait", "number", "Seconds for which to hold the poll (0 to 600)"),
)
REPORTED: Final[Answers] = {
    200: _answer("The report took effect, now or before", {"ok": True}),
    **_NO_RUNNER,
    **_NO_RUN,
    409: _error("The claim is over, or the transition is not allowed; nothing was changed", _STALE),
    **AWAY,
}
GIVEN_BACK: Final[Answers] = {**REPORTED, 422: INVALID[422]}
REPORTED_MANY: Final[Answers] = {
    200: _answer("One result per report, in order", {"results": [{"code": 200, "detail": MayLack(Anything(_STALE))}]}),
    **_NO_RUNNER,
    422: INVALID[422],
    **AWAY,
}
SESSION_REPORTED: Final[Answers] = {
    200: _answer("Recorded", {"ok": True}),
    400: _error("Unknown status", "Status must be 'finished', 'failed', or 'stopped'"),
    **_NO_RUNNER,
    **_NO_SESSION,
    **AWAY,
}
_HEARTBEAT: Final = _answer(
    "Heartbeat recorded; the runner must end the runs in `not_yours`", {"ok": True, "not_yours": [_RUN["run_id"]]}
)
HEARD: Final[Answers] = {200: _HEARTBEAT, **_NO_RUNNER, **AWAY}
RUNNER_PAGE: Final = RUN_FILTERS[-2:]
RUNNERS: Final[Answers] = {
    200: _answer(
        "Runners that have not left and are not forgotten",
        {
            "runners": [
                {
                    "runner_id": "lnch_0a1b2c3d4e5f",
                    "registered_at": _RUN["created_at"],
                    "last_heartbeat": _RUN["created_at"],
                    "hostname": "build-7",
                    "project_dir": "/srv/project",
                    "executor_profile": "coding",
                    "executor": OrNull(Free({"type": "autonomous", "command": "agent"})),
                    "tags": ["gpu"],
                    "require_matching_tags": False,
                    "status": "online",
                    "seconds_since_heartbeat": 1.2,
                    "capacity": OrNull(4),
                    "runs_in_hand": 1,
                    "lost": False,
                }
            ],
            "next_cursor": _PAGE["next_cursor"],
        },
    ),
    **_BAD_CURSOR,
    422: INVALID[422],
    **AWAY,
}
LEAVE: Final = (("self", "boolean", "Leave now instead of by an order in the next poll"),)
LEFT: Final[Answers] = {
    200: _answer("The runner leaves", {"ok": True, "message": "Runner left", "initiated_by": "self"}),
    404: _error("No such runner", "Runner not found"),
    **AWAY,
}

_RUNNER_ID: Final = {"runner_id": ("string", True, "Id of the reporting runner")}
REPORT: Final = _RUNNER_ID | {
    "claim_token": ("string", False, "The claim's token; a stale one changes nothing (409)"),
    "error": ("string", False, "Why it failed; kept up to 64 KiB, head and tail"),
    "session_status": ("string", False, "`idle`: the process stays alive; `finished`"),
    "signal": ("string", False, "Signal that stopped it"),
}
GIVE_BACK: Final = _RUNNER_ID | {
    "claim_token": ("string", True, "The claim's token; a stale one changes nothing (409)"),
    "reason": ("string", False, "Why the runner cannot carry it out"),
}
REPORTS: Final = _RUNNER_ID | {
    "reports": (
        "array",
        True,
        "`{run_id, claim_token?, outcome: started|completed|failed|stopped|released, error?, reason?, ...}`",
    )
}
BEAT: Final = _RUNNER_ID | {
    "holding": ("array", False, "Ids of the runs that it has; a run missing in two heartbeats is lost")
}
ENDED: Final = _RUNNER_ID | {"status": ("string", True, "`finished`, `failed` or `stopped`")}

EVENT: Final = {
    "event_type": ("string", True, "`run_start`, `message`, `result` ... or any text up to 64"),
    "session_id": ("string", True, "As in the URL"),
    "timestamp": ("string", True, "Kept as sent"),
    "truncated": ("array", False, "Names of fields that the sender shortened"),
    **dict.fromkeys(("tool_name", "error", "reason", "role", "result_text"), ("string", False, "Anything")),
    **dict.fromkeys(("tool_input", "tool_output", "content", "result_data"), ("object", False, "Anything")),
    "exit_code": ("integer", False, "Anything"),
    "event_key": ("string", False, "Up to 64 characters; stored once per session, so a retry is harmless"),
    "claim_token": ("string", False, "The event belongs to the run of this claim; a stale one is refused (409)"),
    "run_id": ("string", False, "Without claim_token: the run of the session it belongs to; else the one in hand"),
}
HEALTH: Final[Answers] = {200: _answer("The process answers", {"status": "healthy"})}
READY: Final[Answers] = {
    200: _answer("Ready for requests", {"status": "ready", "reason": MayLack("Redis does not answer")}),
    503: _answer("Starting or draining", {"status": "draining", "reason": MayLack("waiting for the database")}),
}
METRICS: Final[Answers] = {200: {"description": "Prometheus text", "content": {"text/plain": {}}}}
EMPTY: Final[Answers] = {200: _answer("Nothing is registered", Free([]))}
