"""JSON of the API as types, field for field as PROTOCOL.md defines it."""

from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Literal, NotRequired, TypedDict

Outcome = Literal["started", "completed", "failed", "stopped", "released"]

TERMINAL_STATUSES = frozenset({"completed", "failed", "stopped"})


class Demands(TypedDict, total=False):
    """Properties that a runner must have to execute a run: given values must be equal, `tags` must all be there."""

    hostname: str
    project_dir: str
    executor_profile: str
    executor_type: str
    tags: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """Run to submit (PROTOCOL, Submission). Fields that are None are not sent: the coordinator's defaults apply.

    Attributes:
        parameters: Input of the run: `{"prompt": "..."}`.
        type: `start_session` begins a session, `resume_session` continues the one of `session_id`.
        session_id: Id of the session, 1 to 128 characters of `A-Za-z0-9_.:-`; default for a start: a new one.
        agent_name: Name of the agent; default for a resume: the session's.
        project_dir: Project directory; default for a resume: the session's.
        parent_session_id: Session that started this one.
        scope: Object that the runner gets with the run; merged into the parent session's.
        execution_mode: How the parent session is told of the end: `async_callback` by a callback, else not at all.
        additional_demands: Properties that the runner must have.
        affinity: False resumes the session on any runner, wherever it lives.
        priority: -100 to 100; higher goes first.
        not_before: Earliest start: a time, or seconds from now.
        max_attempts: Starts at most, 1 to 100; used up by lost runners and run timeouts only.
        run_timeout_seconds: Time limit from the start; then the run is stopped, and retried or failed.
        no_match_timeout_seconds: Time without a live runner that satisfies the demands after which the run fails.
        labels: Up to 32 texts to filter lists by.
    """

    parameters: dict[str, Any]
    type: Literal["start_session", "resume_session"] = "start_session"
    session_id: str | None = None
    agent_name: str | None = None
    project_dir: str | None = None
    parent_session_id: str | None = None
    scope: dict[str, Any] | None = None
    execution_mode: Literal["sync", "async_poll", "async_callback"] | None = None
    additional_demands: Demands | None = None
    affinity: bool | None = None
    priority: int | None = None
    not_before: datetime | float | None = None
    max_attempts: int | None = None
    run_timeout_seconds: int | None = None
    no_match_timeout_seconds: int | None = None
    labels: dict[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """Return the JSON object to send."""
        body = {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}
        if isinstance(self.not_before, datetime):
            body["not_before"] = self.not_before.astimezone().isoformat()
        if not self.labels:
            del body["labels"]
        return body


class Submitted(TypedDict):
    """Response to a submission."""

    run_id: str
    session_id: str
    status: str


class BatchItem(TypedDict):
    """Response to one item of a batch: `code` 200 or 201 with the ids, or 4xx with `detail`."""

    code: int
    run_id: NotRequired[str]
    session_id: NotRequired[str]
    status: NotRequired[str]
    detail: NotRequired[Any]


class Run(TypedDict):
    """Run, as clients see it. Times are ISO 8601 texts."""

    run_id: str
    type: str
    session_id: str
    agent_name: str | None
    parameters: dict[str, Any]
    project_dir: str | None
    parent_session_id: str | None
    execution_mode: str
    demands: Demands | None
    status: str
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


class ClaimedRun(Run):
    """Run, as a poll delivers it: reports and events about it carry `claim_token`, and are refused when it is stale."""

    claim_token: str
    scope: NotRequired[dict[str, Any] | None]
    resolved_agent_blueprint: NotRequired[dict[str, Any] | None]


class RunPage(TypedDict):
    """Page of runs, newest first; `next_cursor` is set when there are more."""

    runs: list[Run]
    next_cursor: NotRequired[str | None]
    feed_cursor: NotRequired[str | None]


class Session(TypedDict):
    """Session, as clients see it. Times are ISO 8601 texts."""

    session_id: str
    status: str
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
    """Page of sessions, newest first; `next_cursor` is set when there are more."""

    sessions: list[Session]
    next_cursor: NotRequired[str | None]
    feed_cursor: NotRequired[str | None]


class Result(TypedDict):
    """Newest result of a session or of a run."""

    result_text: str | None
    result_data: Any


class Event(TypedDict, total=False):
    """Event of a session; `run_id` is None for an event that belongs to none of its runs.

    To append one: `event_key` makes repeating harmless; `claim_token`, else `run_id`, names its run.
    """

    id: int
    run_id: str | None
    event_type: str
    session_id: str
    timestamp: str
    tool_name: str | None
    tool_input: Any
    tool_output: Any
    error: str | None
    exit_code: int | None
    reason: str | None
    role: str | None
    content: Any
    result_text: str | None
    result_data: Any
    event_key: str
    claim_token: str
    truncated: list[str]


@dataclass(frozen=True, slots=True)
class FeedItem:
    """Item of the feed (PROTOCOL, Feed). Reading after `id` goes on exactly behind it, on any instance.

    `event` names the kind of `data`. A `reset` says that history was skipped (`data["reason"]`) and precedes an `init`;
    an `init` replaces everything that the reader has built up. Resuming from the `id` of a `reset` gives that `init`
    again.
    """

    id: str
    event: str
    data: dict[str, Any]


class Stopped(TypedDict):
    """Response to a stop: the status that it led to."""

    ok: bool
    session_id: str
    status: str
    run_id: NotRequired[str | None]
    message: NotRequired[str | None]


class Registration(TypedDict):
    """Response to a registration."""

    runner_id: str
    poll_endpoint: str
    poll_timeout_seconds: float
    heartbeat_interval_seconds: float
    warning: NotRequired[str]


class PollAnswer(TypedDict, total=False):
    """Response to a poll: runs, sessions to stop, or the order to leave; empty when its time was up."""

    stop_sessions: list[str]
    deregistered: bool
    runs: list[ClaimedRun]


class HeartbeatAnswer(TypedDict):
    """Response to a heartbeat; `not_yours` names the runs of `holding` that the runner no longer has and has to end."""

    ok: bool
    not_yours: NotRequired[list[str]]


class Report(TypedDict):
    """Report of a runner about a run that it holds.

    Attributes:
        run_id: The run.
        outcome: `started`, `completed`, `failed`, `stopped`, or `released` to return it without a start.
        claim_token: Token that came with the run; a report with a stale one is refused with 409.
        error: Reason of `failed`.
        reason: Reason of `released`.
        session_status: Status of the session after `completed`.
        signal: Signal that ended a stopped process.
    """

    run_id: str
    outcome: Outcome
    claim_token: NotRequired[str]
    error: NotRequired[str]
    reason: NotRequired[str]
    session_status: NotRequired[Literal["idle", "finished"]]
    signal: NotRequired[str]


class ItemAnswer(TypedDict):
    """Response to one item of a bulk request: 200, 404 or 409."""

    code: int
    detail: NotRequired[Any]


class RunnerInfo(TypedDict):
    """Registered runner, as clients see it."""

    runner_id: str
    registered_at: str
    last_heartbeat: str
    hostname: str
    project_dir: str
    executor_profile: str
    executor: dict[str, Any] | None
    tags: list[str]
    require_matching_tags: bool
    status: str
    seconds_since_heartbeat: float
    capacity: NotRequired[int | None]
    runs_in_hand: NotRequired[int]
    lost: NotRequired[bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Registration of a runner. Hostname, project directory, profile and command decide its id, the same every time.

    Attributes:
        hostname: Machine of the runner.
        project_dir: Directory in which it works.
        executor_profile: Name of its configuration.
        executor_type: Kind of runner; runs demand `autonomous`.
        command: Command that it executes.
        tags: Words that runs may demand.
        require_matching_tags: Take only runs that demand one of the tags.
        capacity: Runs that it holds at most; None: no bound.
        instance_id: Name of this process, new at each start.
    """

    hostname: str
    project_dir: str
    executor_profile: str
    executor_type: str
    command: str
    tags: tuple[str, ...] = ()
    require_matching_tags: bool = False
    capacity: int | None = None
    instance_id: str | None = None

    def body(self) -> dict[str, Any]:
        """Return the JSON object that a registration sends."""
        body: dict[str, Any] = {
            "hostname": self.hostname,
            "project_dir": self.project_dir,
            "executor_profile": self.executor_profile,
            "executor": {"type": self.executor_type, "command": self.command},
            "tags": list(self.tags),
            "require_matching_tags": self.require_matching_tags,
        }
        if self.capacity is not None:
            body["capacity"] = self.capacity
        if self.instance_id is not None:
            body["instance_id"] = self.instance_id
        return body
