"""What the coordinator sends and takes, as types: the JSON of PROTOCOL.md, field for field, so that nothing is lost."""

from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Literal, NotRequired, TypedDict

Outcome = Literal["started", "completed", "failed", "stopped", "released"]

TERMINAL_STATUSES = frozenset({"completed", "failed", "stopped"})


class Demands(TypedDict, total=False):
    """What a run asks of a runner."""

    hostname: str
    project_dir: str
    executor_profile: str
    executor_type: str
    tags: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """A submission (PROTOCOL, Submission). What is None is not sent: the coordinator's default holds.

    `not_before` is a time, or seconds from now; all other times are seconds. `affinity` False resumes a session on any
    runner, wherever it lives.
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
        """The JSON object to send."""
        body = {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}
        if isinstance(self.not_before, datetime):
            body["not_before"] = self.not_before.astimezone().isoformat()
        if not self.labels:
            del body["labels"]
        return body


class Submitted(TypedDict):
    """The answer to a submission."""

    run_id: str
    session_id: str
    status: str


class BatchItem(TypedDict):
    """One item's answer of a batch: 200 or 201 with the ids, or 4xx with `detail`."""

    code: int
    run_id: NotRequired[str]
    session_id: NotRequired[str]
    status: NotRequired[str]
    detail: NotRequired[Any]


class Run(TypedDict):
    """A run as clients see it."""

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
    """A run as its holder gets it from a poll; the token fences everything said about it."""

    claim_token: str
    scope: NotRequired[dict[str, Any] | None]
    resolved_agent_blueprint: NotRequired[dict[str, Any] | None]


class RunPage(TypedDict):
    """Runs, newest first; `next_cursor` when there are more."""

    runs: list[Run]
    next_cursor: NotRequired[str | None]
    feed_cursor: NotRequired[str | None]


class Session(TypedDict):
    """A session as clients see it."""

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
    """Sessions, newest first; `next_cursor` when there are more."""

    sessions: list[Session]
    next_cursor: NotRequired[str | None]
    feed_cursor: NotRequired[str | None]


class Result(TypedDict):
    """The newest result of a session or of a run."""

    result_text: str | None
    result_data: Any


class Event(TypedDict, total=False):
    """What happened in a session; `run_id` is None for what belongs to none of its runs.

    To send: `event_key` makes sending it twice harmless; `claim_token`, else `run_id`, says of which run it is.
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
    """One item of the feed (PROTOCOL, Feed); reading on after `id` goes on exactly behind it, on any instance.

    `event` says what `data` is. With `reset` history was skipped (`data["reason"]`) and an `init` follows; `init`
    replaces whatever a reader has built up. The `id` of a `reset` still owes that `init`.
    """

    id: str
    event: str
    data: dict[str, Any]


class Stopped(TypedDict):
    """The answer to a stop: the status it led to."""

    ok: bool
    session_id: str
    status: str
    run_id: NotRequired[str | None]
    message: NotRequired[str | None]


class Registration(TypedDict):
    """The answer to a registration."""

    runner_id: str
    poll_endpoint: str
    poll_timeout_seconds: float
    heartbeat_interval_seconds: float
    warning: NotRequired[str]


class PollAnswer(TypedDict, total=False):
    """What a poll brought: one of the three, or nothing when its time was up."""

    stop_sessions: list[str]
    deregistered: bool
    runs: list[ClaimedRun]


class HeartbeatAnswer(TypedDict):
    """The answer to a heartbeat; `not_yours` names the runs of `holding` that the runner no longer has: end them."""

    ok: bool
    not_yours: NotRequired[list[str]]


class Report(TypedDict):
    """What a runner says about a run it holds."""

    run_id: str
    outcome: Outcome
    claim_token: NotRequired[str]
    error: NotRequired[str]
    reason: NotRequired[str]
    session_status: NotRequired[Literal["idle", "finished"]]
    signal: NotRequired[str]


class ItemAnswer(TypedDict):
    """One item's answer of a bulk report: 200, 404 or 409."""

    code: int
    detail: NotRequired[Any]


class RunnerInfo(TypedDict):
    """A registered runner as clients see it."""

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
    """Who a runner is: hostname, project directory, profile and command together give its id, the same every time."""

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
        """The JSON object a registration sends."""
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
