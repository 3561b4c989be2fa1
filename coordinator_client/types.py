"""Types of the HTTP API, made by scripts/client_types.py. Times are ISO 8601 texts in UTC."""

from typing import Any, Literal, NotRequired, TypedDict

TERMINAL_STATUSES = frozenset({"completed", "failed", "stopped"})


class AdditionalDemands(TypedDict):
    """Properties that a run demands of a runner: given ones must be equal, all tags must be there."""

    hostname: NotRequired[str | None]
    project_dir: NotRequired[str | None]
    executor_profile: NotRequired[str | None]
    executor_type: NotRequired[str | None]
    tags: NotRequired[list[str] | None]


RunStatus = Literal["pending", "claimed", "running", "stopping", "completed", "failed", "stopped"]


class Submitted(TypedDict):
    """Answer to a submission."""

    run_id: str
    session_id: str
    status: RunStatus


class BatchItem(TypedDict):
    """Answer to one item of a batch.

    Attributes:
        detail: Reason, as in `Problem`.
    """

    code: int
    run_id: NotRequired[str]
    session_id: NotRequired[str]
    status: NotRequired[RunStatus]
    detail: NotRequired[Any]


RunType = Literal["start_session", "resume_session"]


ExecutionMode = Literal["sync", "async_poll", "async_callback"]


class Demands(TypedDict):
    """Properties that a run demands of a runner: given ones must be equal, all tags must be there."""

    hostname: NotRequired[str]
    project_dir: NotRequired[str]
    executor_profile: NotRequired[str]
    executor_type: NotRequired[str]
    tags: list[str]


class Run(TypedDict):
    """Run, as clients see it.

    Attributes:
        parameters: Input of the run.
        parent_session_id: Session that started this one.
        execution_mode: `async_callback` resumes the parent session with the result; the others leave it to the
            client to ask.
        runner_id: Runner that claimed it last.
        error: Reason of `failed`.
        completed_at: End, whatever ended it.
        timeout_at: Time at which it fails if no live runner satisfies its demands by then; null while one does.
        attempt: Number of starts so far.
        priority: -100 to 100; higher is claimed first.
        not_before: Earliest claim.
        max_attempts: Starts allowed when runners are lost.
        replay_of: Run of which it is a replay.
    """

    run_id: str
    type: RunType
    session_id: str
    agent_name: str | None
    parameters: dict[str, Any]
    project_dir: str | None
    parent_session_id: str | None
    execution_mode: ExecutionMode
    demands: Demands
    status: RunStatus
    runner_id: str | None
    error: str | None
    created_at: str
    claimed_at: str | None
    started_at: str | None
    completed_at: str | None
    timeout_at: str | None
    attempt: int
    priority: int
    not_before: str | None
    max_attempts: int
    labels: dict[str, str]
    replay_of: NotRequired[str | None]


class ClaimedRun(Run):
    """Run, as a poll delivers it; reports and events about it carry `claim_token`, and are refused when it is stale.

    Attributes:
        scope: Object of the submission, with its parents'.
        resolved_agent_blueprint: Agent of the registry with its capabilities, MCP servers and placeholders resolved,
            as it was when the run was submitted; null for other runs and for callbacks.
        traceparent: W3C trace context of this attempt, for the job; absent for a run without a trace.
    """

    scope: NotRequired[dict[str, Any] | None]
    resolved_agent_blueprint: NotRequired[Any]
    claim_token: str
    traceparent: NotRequired[str]


class RunPage(TypedDict):
    """Page of runs, newest first.

    Attributes:
        feed_cursor: Position of this snapshot in the feed; a feed from it on misses no later change. Always in the
            header `Feed-Cursor`; here with `cursor_in_body=1` and with any parameter but `status` of runs.
        next_cursor: Cursor of the next page; absent on the last one.
        searched_until: Creation (with `order=ended`: end) of the last run looked at; the search stopped at its
            bound.
    """

    runs: list[Run]
    feed_cursor: NotRequired[str]
    next_cursor: NotRequired[str]
    searched_until: NotRequired[str]


class Result(TypedDict):
    """Newest `result` event of a session or of a run."""

    result_text: Any
    result_data: Any


SessionStatus = Literal["pending", "running", "idle", "stopping", "finished", "failed", "stopped"]


class Stopped(TypedDict):
    """Answer to a stop.

    Attributes:
        status: Status after the stop.
        message: Reason for which nothing changed.
    """

    ok: bool
    session_id: str
    run_id: NotRequired[str]
    status: RunStatus | SessionStatus
    message: NotRequired[str]


class Session(TypedDict):
    """Session, as clients see it.

    Attributes:
        parent_session_id: Session that started this one.
        depth: Number of ancestors.
    """

    session_id: str
    status: SessionStatus
    created_at: str
    project_dir: str | None
    agent_name: str | None
    last_resumed_at: str | None
    parent_session_id: str | None
    executor_session_id: str | None
    executor_profile: str | None
    hostname: str | None
    owner: NotRequired[str | None]
    depth: NotRequired[int]


class SessionPage(TypedDict):
    """Page of sessions, newest first.

    Attributes:
        feed_cursor: Position of this snapshot in the feed; a feed from it on misses no later change. Always in the
            header `Feed-Cursor`; here with `cursor_in_body=1` and with any parameter but `status` of runs.
        next_cursor: Cursor of the next page; absent on the last one.
    """

    sessions: list[Session]
    feed_cursor: NotRequired[str]
    next_cursor: NotRequired[str]


class DeletedRows(TypedDict):
    """Numbers of what a session was deleted with."""

    session: bool
    events_count: int
    runs_count: int


class SessionDeleted(TypedDict):
    """Answer to the deletion of a session.

    Attributes:
        runs_removed_from_cache: As `deleted.runs_count`; for clients of other coordinators.
    """

    ok: bool
    session_id: str
    deleted: DeletedRows
    runs_removed_from_cache: NotRequired[int]


class Event(TypedDict):
    """Event of a session, as lists show it; the other fields are as the sender sent them, null where it sent none.

    Attributes:
        feed_cursor: Position in the feed; null until it is numbered.
        run_id: Null for an event that belongs to none of the session's runs.
        event_type: `run_start`, `message`, `result` ... or any text up to 64.
        truncated: Names of fields that the sender shortened or the coordinator left out.
    """

    id: int
    feed_cursor: NotRequired[str | None]
    run_id: NotRequired[str | None]
    event_type: str
    session_id: str
    timestamp: Any
    tool_name: Any
    tool_input: Any
    tool_output: Any
    error: Any
    exit_code: Any
    reason: Any
    role: Any
    content: Any
    result_text: Any
    result_data: Any
    truncated: NotRequired[list[str]]


class NewEvent(TypedDict):
    """Event to append. Contents are kept as they are, whatever their types.

    Attributes:
        event_type: `run_start`, `message`, `result` ... or any text up to 64.
        session_id: As in the URL.
        timestamp: Kept as sent.
        truncated: Names of fields that the sender shortened or the coordinator left out.
        event_key: Up to 64 characters; stored once per session, so a retry is harmless.
        claim_token: The event belongs to the run of this claim; a stale one is refused (409).
        run_id: Without claim_token: the run of the session it belongs to; else the one in hand.
    """

    event_type: str
    session_id: str
    timestamp: Any
    tool_name: NotRequired[Any]
    tool_input: NotRequired[Any]
    tool_output: NotRequired[Any]
    error: NotRequired[Any]
    exit_code: NotRequired[Any]
    reason: NotRequired[Any]
    role: NotRequired[Any]
    content: NotRequired[Any]
    result_text: NotRequired[Any]
    result_data: NotRequired[Any]
    truncated: NotRequired[list[str]]
    event_key: NotRequired[str]
    claim_token: NotRequired[str]
    run_id: NotRequired[str]


class Registration(TypedDict):
    """Answer to a registration.

    Attributes:
        poll_timeout_seconds: Longest wait of a poll by default.
        warning: Reason for which no run can match.
    """

    runner_id: str
    poll_endpoint: str
    poll_timeout_seconds: float
    heartbeat_interval_seconds: int
    warning: NotRequired[str]


class Runner(TypedDict):
    """Registered runner, as clients see it.

    Attributes:
        executor: As registered.
        require_matching_tags: Takes only runs that demand one of its tags.
        status: A lost runner is `stale` until it is forgotten.
        capacity: Most runs in hand at once; null: no bound.
        runs_in_hand: Number of claimed, running and stopping runs.
        lost: True once its runs were taken away.
        draining_since: An administrator drains it since then: it gets no new run; null: it does.
        drain_reason: As given with the drain.
    """

    runner_id: str
    registered_at: str
    last_heartbeat: str
    hostname: str
    project_dir: str
    executor_profile: str
    executor: dict[str, Any] | None
    tags: list[str]
    require_matching_tags: bool
    status: Literal["online", "stale"]
    seconds_since_heartbeat: float
    capacity: NotRequired[int | None]
    runs_in_hand: NotRequired[int]
    lost: NotRequired[bool]
    draining_since: NotRequired[str | None]
    drain_reason: NotRequired[str | None]


class RunnerLeaves(TypedDict):
    """Answer to the removal of a runner."""

    ok: bool
    message: str
    initiated_by: Literal["self", "external"]


class PollAnswer(TypedDict):
    """Answer to a poll, the first that applies: sessions to stop, scripts, the order to leave, runs."""

    run: NotRequired[ClaimedRun]
    runs: NotRequired[list[ClaimedRun]]
    stop_sessions: NotRequired[list[str]]
    sync_scripts: NotRequired[list[str]]
    remove_scripts: NotRequired[list[str]]
    deregistered: NotRequired[bool]


Outcome = Literal["started", "completed", "failed", "stopped", "released"]


class Report(TypedDict):
    """Report about one run of several. Contents are never refused: another type is kept as its JSON text.

    Attributes:
        outcome: `released` returns the run without a start.
        claim_token: The claim's token; a stale one changes nothing (409).
        error: Reason of `failed`; kept up to 64 KiB, head and tail.
        reason: Reason for which the runner cannot carry it out.
        session_status: With `completed`: `idle` when the process stays alive; `finished`.
        signal: Signal that stopped it.
        exit_code: With `failed`: exit code of its process, negative for a signal; for retry policies.
        error_class: With `failed`: class of its error; for retry policies.
        retryable: With `failed`: false makes it final.
        retry_after: With `failed`: seconds until it is tried again, in place of the pause of its retry policy.
    """

    run_id: str
    outcome: Outcome
    claim_token: NotRequired[str]
    error: NotRequired[str]
    reason: NotRequired[str]
    session_status: NotRequired[Literal["idle", "finished"]]
    signal: NotRequired[str]
    exit_code: NotRequired[int]
    error_class: NotRequired[str]
    retryable: NotRequired[bool]
    retry_after: NotRequired[float]


class HeartbeatAnswer(TypedDict):
    """Answer to a heartbeat.

    Attributes:
        not_yours: Runs of `holding` that the runner has no more and must end.
    """

    ok: bool
    not_yours: NotRequired[list[str]]


class ItemAnswer(TypedDict):
    """Answer to one item of a list.

    Attributes:
        code: Status that the item alone would have been answered with.
        detail: Reason of an error, as in `Problem`.
    """

    code: int
    detail: NotRequired[Any]
