"""Types of the calls of operators, made by scripts/client_types.py."""

from typing import Any, Literal, NotRequired, TypedDict

from coordinator_client.retry_types import RetryPolicy
from coordinator_client.types import ExecutionMode, RunStatus, RunType, SessionStatus

Role = Literal["admin", "user", "runner"]


class Me(TypedDict):
    """Caller of this request, and the coordinator that answers it.

    Attributes:
        owner: Owner the caller acts for.
        credential: `key:` and the id of an API key, `subject:` and the owner in a token, or `open` while
            authentication is off.
        expires_at: End of the credential; null: none.
        auth: Whether a credential is required.
        features: What this version offers beyond the first one.
    """

    role: Role
    owner: str | None
    credential: str
    expires_at: str | None
    auth: bool
    version: str
    features: list[str]


class RunSummary(TypedDict):
    """Run without its parameters and demands, for lists.

    Attributes:
        parent_session_id: Session that started this one.
        execution_mode: `async_callback` resumes the parent session with the result; the others leave it to the
            client to ask.
        ready: Whether it can be claimed now.
        runner_id: Runner that claimed it last.
        error: Reason of `failed`, cut to 200 characters.
        completed_at: End, whatever ended it.
        timeout_at: Time at which it fails for want of a runner.
        attempt: Number of starts so far.
        priority: -100 to 100; higher is claimed first.
        not_before: Earliest claim.
        max_attempts: Starts allowed when runners are lost.
        replay_of: Run of which it is a replay.
        prompt: First 200 characters of the text `prompt` of its parameters.
    """

    run_id: str
    type: RunType
    session_id: str
    agent_name: str | None
    project_dir: str | None
    parent_session_id: str | None
    execution_mode: ExecutionMode
    status: RunStatus
    ready: bool
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
    owner: str | None
    replay_of: str | None
    prompt: str | None


class RunSummaryPage(TypedDict):
    """Page of summaries of runs, newest first.

    Attributes:
        feed_cursor: Position of this snapshot in the feed; a feed from it on misses no later change. Always in the
            header `Feed-Cursor`; here with `cursor_in_body=1` and with any parameter but `status` of runs.
        next_cursor: Cursor of the next page; absent on the last one.
        searched_until: Creation (with `order=ended`: end) of the last run looked at; the search stopped at its
            bound.
    """

    runs: list[RunSummary]
    feed_cursor: NotRequired[str]
    next_cursor: NotRequired[str]
    searched_until: NotRequired[str]


ReasonCode = Literal[
    "delayed",
    "behind_in_session",
    "stop_open",
    "held",
    "should_be_ready",
    "no_runner",
    "no_match",
    "matching_full",
    "matching_silent",
    "matching_not_polling",
    "matching_leaving",
    "matching_draining",
    "excluded",
    "affinity",
    "ahead",
    "should_be_claimed",
    "retried",
    "undelivered",
    "delivered_not_started",
    "silent",
    "not_held",
    "runs_out",
    "told",
    "ended_by",
    "gone",
    "leaving",
    "draining",
    "lost",
    "stale",
    "full",
    "superseded",
    "not_polling",
    "no_ready_run",
    "no_ready_match",
    "all_excluded",
    "behind_others",
    "should_claim",
]


class Reason(TypedDict):
    """Reason why a run does not run, or a runner gets no run.

    Attributes:
        code: One of the table in docs/protocol.md, Explanations.
        blocking: It keeps the run from being given out now, or the runner from getting one.
        until: Time at which it ends, or the run does.
        detail: What the text says, for programs.
        fix: What to do about it.
    """

    code: ReasonCode
    blocking: bool
    text: str
    since: str | None
    until: str | None
    detail: dict[str, Any]
    fix: str | None


class OfMatching(TypedDict):
    """Numbers of the runners that offer what the run demands, each counted once.

    Attributes:
        free: A poll waits, and it takes more.
        full: As many runs in hand as it takes.
        stale: Stale or lost.
        not_polling: No poll waits.
        excluded: Had the run before and may not have it again.
        leaving: Asked to leave.
        draining: An administrator drains them.
    """

    free: int
    full: int
    stale: int
    not_polling: int
    excluded: int
    leaving: int
    draining: int


class RunnerCounts(TypedDict):
    """Numbers of runners, up to 1,000: `known` are `match` and those of `rejected` together.

    Attributes:
        known: Have not left and are not forgotten.
        match: Offer what the run demands.
        rejected: The others, by what they lack.
    """

    known: int
    match: int
    rejected: dict[str, int]
    of_matching: OfMatching


class Ahead(TypedDict):
    """Ready runs that go before this one at the runners that match.

    Attributes:
        exact: False: at least `count`.
        eta_seconds: Estimate of the time until it is claimed.
        based_on: Source of the estimate.
    """

    count: int
    exact: bool
    eta_seconds: float | None
    based_on: str | None


class RunExplanation(TypedDict):
    """Explanation why a run does not run now.

    Attributes:
        since: Time of this status; of a ready run, of its readiness.
        headline: The whole answer in one line.
        reasons: The most important first; empty if nothing is to be said.
        runners: Of a ready run; else null.
        ahead: Of a ready run that a runner matches; else null.
    """

    run_id: str
    status: RunStatus
    since: str | None
    headline: str
    reasons: list[Reason]
    runners: RunnerCounts | None
    ahead: Ahead | None
    as_of: str


class ReadyRuns(TypedDict):
    """Ready runs, by whether the runner may take them.

    Attributes:
        exact: False: at least `count`.
        match: Demand what the runner offers.
        rejected: The others, by what they demand and it lacks.
    """

    count: int
    exact: bool
    match: int
    rejected: dict[str, int]


class RunnerExplanation(TypedDict):
    """Explanation why a runner gets no run now.

    Attributes:
        since: Registration, or the last sign of life of a silent one.
        headline: The whole answer in one line.
        polls: Polls of it that wait for runs now.
    """

    runner_id: str
    status: Literal["online", "stale", "lost", "leaving", "gone"]
    since: str | None
    headline: str
    reasons: list[Reason]
    runs_in_hand: int
    capacity: int | None
    polls: int
    ready: ReadyRuns
    as_of: str


class RunStep(TypedDict):
    """Step of a run.

    Attributes:
        what: Its status from then on, or what happened to it.
        detail: Reason or error.
    """

    at: str
    what: RunStatus | Literal["submitted", "requeued", "delivered", "stop_sent"]
    runner_id: str | None
    detail: str | None


class RunFailure(TypedDict):
    """Failure as a runner reported it."""

    error: str | None
    exit_code: int | None
    error_class: str | None


class RunAttempt(TypedDict):
    """Steps of a run from its submission or a return to pending up to the next return or the end.

    Attributes:
        attempt: Its number; null when it was never started.
        ended_by: `failed` also if it is tried again; `returned`: the run went back without a report of an end, such
            as after a lost runner; null: it goes on.
        error: Its own error, or why the run went back.
        failure: Failure that its runner reported; of runs with a retry policy only.
        log_after: `after` for its part of the run's events in `GET /sessions/{session_id}/events`; null: from the
            first one.
        log_before: `before` for its part of them; null: to the last one.
    """

    attempt: int | None
    runner_id: str | None
    steps: list[RunStep]
    ended_by: NotRequired[Literal["completed", "failed", "stopped", "returned"] | None]
    error: NotRequired[str | None]
    failure: NotRequired[RunFailure | None]
    log_after: NotRequired[str | None]
    log_before: NotRequired[str | None]


class RunTimeline(TypedDict):
    """Attempts of a run, oldest first.

    Attributes:
        retry: Its retry policy; null: a reported failure is final.
        truncated_before: Earlier steps are not kept any more; null: none.
    """

    run_id: str
    retry: NotRequired[RetryPolicy | None]
    attempts: list[RunAttempt]
    truncated_before: str | None


class TreeNode(TypedDict):
    """Session of a tree.

    Attributes:
        depth: Number of ancestors.
        runs: Numbers of its runs by status.
        children: Number of its children, in this answer or not.
    """

    session_id: str
    parent_session_id: str | None
    status: SessionStatus
    agent_name: str | None
    depth: int
    created_at: str
    runs: dict[str, int]
    children: int


class SessionTree(TypedDict):
    """Session and those under it, level by level.

    Attributes:
        truncated: Whether there are more; ask for the tree of a node.
    """

    root: str
    nodes: list[TreeNode]
    truncated: bool


class Readiness(TypedDict):
    """Readiness of a process.

    Attributes:
        reason: Reason of a status other than `ready`.
    """

    status: Literal["ready", "degraded", "starting", "draining"]
    reason: NotRequired[str]
