from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, ConfigDict, Field, RootModel

from app.schemas.base import (
    LONGEST_SECONDS,
    ClaimToken,
    Described,
    Done,
    FeedCursor,
    MayLack,
    NextCursor,
    RunId,
    RunnerId,
    SessionId,
    Tags,
    Text,
    Timestamp,
    Validated,
)
from app.schemas.problems import ItemProblem
from app.schemas.retries import Retry, RetryPolicy
from app.schemas.timestamps import FARTHEST_SECONDS, offset_required, within_ten_years
from models.core.statuses import ExecutionMode, RunStatus, RunType, SessionStatus

SESSION_ID = r"[A-Za-z0-9_.:-]{1,128}"
MOST_IN_BATCH = 1000
MODES = "`async_callback` resumes the parent session with the result; the others leave it to the client to ask"


def _absent_if_empty(value: Any) -> Any:
    return None if value == "" else value


def _no_path_segment(value: str | None) -> str | None:
    if value in {".", ".."}:
        raise ValueError("Should not be . or ..")
    return value


Parameters = Annotated[dict[str, Any], Field(description='`{"prompt": "..."}`, unless the agent says otherwise')]
ParentSession = Annotated[Text | None, AfterValidator(_no_path_segment), BeforeValidator(_absent_if_empty)]
Scope = Annotated[dict[str, Any] | None, Field(description="Passed to the runner, inherited by children")]
Mode = Annotated[Literal["sync", "async_poll", "async_callback"], Field(description=MODES)]
Priority = Annotated[int, Field(ge=-100, le=100, description="Higher is claimed first")]
NotBefore = Annotated[
    Annotated[float, Field(ge=0, le=FARTHEST_SECONDS, allow_inf_nan=False)] | AwareDatetime | None,
    AfterValidator(lambda value: value if value is None else within_ten_years(value)),
    BeforeValidator(offset_required),
    Field(description="Earliest claim: a timestamp with its offset, or seconds from now"),
]
MaxAttempts = Annotated[int, Field(ge=1, le=100, description="Starts allowed when runners are lost")]
TimeLimit = Annotated[int, Field(ge=1, le=LONGEST_SECONDS)]
Labels = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=64)], Annotated[str, Field(max_length=128)]] | None,
    Field(max_length=32, description="Labels by which runs can be listed"),
]


class AdditionalDemands(Validated):
    """Properties that a run demands of a runner: given ones must be equal, all tags must be there."""

    hostname: Text | None = None
    project_dir: Text | None = None
    executor_profile: Text | None = None
    executor_type: Text | None = None
    tags: Annotated[Tags | None, Field(strict=False)] = None


class SubmitRun(Validated):
    """Unit of work for one runner: starts a session, or resumes one."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"type": "start_session", "parameters": {"prompt": "Say hello"}},
                {
                    "type": "resume_session",
                    "session_id": "ses_0197f7a0",
                    "parameters": {"prompt": "And now in French"},
                    "priority": 10,
                    "max_attempts": 3,
                },
            ]
        }
    )

    type: Annotated[Literal["start_session", "resume_session"], Field(description="Effect of the run on its session")]
    session_id: Annotated[
        Text | None,
        AfterValidator(_no_path_segment),
        BeforeValidator(_absent_if_empty),
        Field(
            description=f"Optional on start (a name of your own, `{SESSION_ID}`), required on resume; not `.` or `..`"
        ),
    ] = None
    parameters: Parameters
    agent_name: Text | None = None
    project_dir: Text | None = None
    parent_session_id: ParentSession = None
    scope: Scope = None
    execution_mode: Mode = "sync"
    additional_demands: Annotated[
        AdditionalDemands | None,
        Field(description="In addition to the demands of every run; on a resume a `hostname` wins over the session's"),
    ] = None
    affinity: Annotated[
        bool,
        Field(description="On a resume: false drops the session's `hostname` and `executor_profile` from its demands"),
    ] = True
    priority: Priority = 0
    not_before: NotBefore = None
    max_attempts: MaxAttempts = 1
    run_timeout_seconds: TimeLimit | None = None
    no_match_timeout_seconds: TimeLimit | None = None
    labels: Labels = None
    retry: Annotated[Retry | None, Field(description="Reported failures that are tried again; default: none")] = None


class SubmitBatchItem(SubmitRun):
    """Run of a batch."""

    idempotency_key: Annotated[
        Annotated[str, Field(min_length=1, max_length=255)] | None, Field(description="Like the header Idempotency-Key")
    ] = None


class SubmitBatch(Validated):
    """Up to 1000 runs; one bad run never fails the others."""

    runs: Annotated[list[SubmitBatchItem], Field(max_length=MOST_IN_BATCH)]


class Submitted(Described):
    """Answer to a submission."""

    run_id: RunId
    session_id: SessionId
    status: Annotated[RunStatus, Field(examples=["pending"])]


class SubmittedItem(Described):
    """Answer to one item of a batch that was accepted."""

    code: Annotated[int, Field(description="201, or 200 for the first answer to its key", examples=[201])]
    run_id: RunId
    session_id: SessionId
    status: Annotated[RunStatus, Field(examples=["pending"])]


class BatchItem(RootModel[SubmittedItem | ItemProblem]):
    """Answer to one item of a batch."""


class BatchResult(Described):
    """Answer to a batch: one result per run, in order."""

    results: list[BatchItem]


class Demands(Described):
    """Properties that a run demands of a runner: given ones must be equal, all tags must be there."""

    hostname: MayLack[str] = None
    project_dir: MayLack[str] = None
    executor_profile: MayLack[str] = None
    executor_type: Annotated[MayLack[str], Field(examples=["autonomous"])] = None
    tags: Annotated[list[str], Field(examples=[[]])]


class Run(Described):
    """Run, as clients see it."""

    run_id: RunId
    type: RunType
    session_id: SessionId
    agent_name: Annotated[str | None, Field(examples=[None])]
    parameters: Annotated[dict[str, Any], Field(description="Input of the run", examples=[{"prompt": "Say hello"}])]
    project_dir: Annotated[str | None, Field(examples=[None])]
    parent_session_id: Annotated[SessionId | None, Field(description="Session that started this one", examples=[None])]
    execution_mode: Annotated[ExecutionMode, Field(description=MODES)]
    demands: Demands
    status: Annotated[RunStatus, Field(examples=["completed"])]
    runner_id: Annotated[RunnerId | None, Field(description="Runner that claimed it last")]
    error: Annotated[str | None, Field(description="Reason of `failed`", examples=[None])]
    created_at: Timestamp
    claimed_at: Timestamp | None
    started_at: Timestamp | None
    completed_at: Annotated[Timestamp | None, Field(description="End, whatever ended it")]
    timeout_at: Annotated[
        Timestamp | None,
        Field(
            description="Time at which it fails if no live runner satisfies its demands by then; null while one does"
        ),
    ]
    attempt: Annotated[int, Field(description="Number of starts so far", examples=[1])]
    priority: Annotated[int, Field(description="-100 to 100; higher is claimed first", examples=[0])]
    not_before: Annotated[Timestamp | None, Field(description="Earliest claim", examples=[None])]
    max_attempts: Annotated[int, Field(description="Starts allowed when runners are lost", examples=[1])]
    labels: Annotated[dict[str, str], Field(examples=[{}])]
    replay_of: Annotated[RunId | None, Field(description="Run of which it is a replay", examples=[None])]


class ClaimedRun(Run):
    """Run, as a poll delivers it; reports and events about it carry `claim_token`, and are refused when it is stale."""

    status: Annotated[RunStatus, Field(examples=["claimed"])]
    scope: Annotated[dict[str, Any] | None, Field(description="Object of the submission, with its parents'")]
    resolved_agent_blueprint: Annotated[
        Any,
        Field(
            description="Agent of the registry with its capabilities, MCP servers and placeholders resolved, as it was "
            "when the run was submitted; null for other runs and for callbacks",
            examples=[None],
        ),
    ]
    claim_token: ClaimToken
    traceparent: Annotated[
        MayLack[str],
        Field(
            description="W3C trace context of this attempt, for the job; absent for a run without a trace",
            examples=["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"],
        ),
    ] = None


class RunSummary(Described):
    """Run without its parameters and demands, for lists."""

    run_id: RunId
    type: RunType
    session_id: SessionId
    agent_name: Annotated[str | None, Field(examples=[None])]
    project_dir: Annotated[str | None, Field(examples=[None])]
    parent_session_id: Annotated[SessionId | None, Field(description="Session that started this one", examples=[None])]
    execution_mode: Annotated[ExecutionMode, Field(description=MODES)]
    status: Annotated[RunStatus, Field(examples=["completed"])]
    ready: Annotated[bool, Field(description="Whether it can be claimed now", examples=[False])]
    runner_id: Annotated[RunnerId | None, Field(description="Runner that claimed it last")]
    error: Annotated[str | None, Field(description="Reason of `failed`, cut to 200 characters", examples=[None])]
    created_at: Timestamp
    claimed_at: Timestamp | None
    started_at: Timestamp | None
    completed_at: Annotated[Timestamp | None, Field(description="End, whatever ended it")]
    timeout_at: Annotated[Timestamp | None, Field(description="Time at which it fails for want of a runner")]
    attempt: Annotated[int, Field(description="Number of starts so far", examples=[1])]
    priority: Annotated[int, Field(description="-100 to 100; higher is claimed first", examples=[0])]
    not_before: Annotated[Timestamp | None, Field(description="Earliest claim", examples=[None])]
    max_attempts: Annotated[int, Field(description="Starts allowed when runners are lost", examples=[1])]
    labels: Annotated[dict[str, str], Field(examples=[{}])]
    owner: Annotated[str | None, Field(examples=[None])]
    replay_of: Annotated[RunId | None, Field(description="Run of which it is a replay", examples=[None])]
    prompt: Annotated[
        str | None,
        Field(description="First 200 characters of the text `prompt` of its parameters", examples=["Say hello"]),
    ]


SearchedUntil = Annotated[
    MayLack[Timestamp],
    Field(description="Creation (with `order=ended`: end) of the last run looked at; the search stopped at its bound"),
]


class RunPage(Described):
    """Page of runs, newest first."""

    runs: list[Run]
    feed_cursor: FeedCursor = None
    next_cursor: NextCursor = None
    searched_until: SearchedUntil = None


class RunSummaryPage(Described):
    """Page of summaries of runs, newest first."""

    runs: list[RunSummary]
    feed_cursor: FeedCursor = None
    next_cursor: NextCursor = None
    searched_until: SearchedUntil = None


class RunStep(Described):
    """Step of a run."""

    at: Timestamp
    what: Annotated[
        RunStatus | Literal["submitted", "requeued", "delivered", "stop_sent"],
        Field(description="Its status from then on, or what happened to it", examples=["claimed"]),
    ]
    runner_id: RunnerId | None
    detail: Annotated[str | None, Field(description="Reason or error", examples=[None])]


class RunFailure(Described):
    """Failure as a runner reported it."""

    error: Annotated[str | None, Field(examples=["exit code 75"])]
    exit_code: Annotated[int | None, Field(examples=[75])]
    error_class: Annotated[str | None, Field(examples=[None])]


class RunAttempt(Described):
    """Steps of a run from its submission or a return to pending up to the next return or the end."""

    attempt: Annotated[int | None, Field(description="Its number; null when it was never started", examples=[1])]
    runner_id: RunnerId | None
    steps: list[RunStep]
    ended_by: Annotated[
        Literal["completed", "failed", "stopped", "returned"] | None,
        Field(
            description="`failed` also if it is tried again; `returned`: the run went back without a report of an end, "
            "such as after a lost runner; null: it goes on",
            examples=["failed"],
        ),
    ]
    error: Annotated[str | None, Field(description="Its own error, or why the run went back", examples=[None])]
    failure: Annotated[
        RunFailure | None, Field(description="Failure that its runner reported; of runs with a retry policy only")
    ]
    log_after: Annotated[
        str | None,
        Field(
            description="`after` for its part of the run's events in `GET /sessions/{session_id}/events`; null: from "
            "the first one",
            examples=[None],
        ),
    ]
    log_before: Annotated[
        str | None, Field(description="`before` for its part of them; null: to the last one", examples=[None])
    ]


class RunTimeline(Described):
    """Attempts of a run, oldest first."""

    run_id: RunId
    retry: Annotated[RetryPolicy | None, Field(description="Its retry policy; null: a reported failure is final")]
    attempts: list[RunAttempt]
    truncated_before: Annotated[
        Timestamp | None, Field(description="Earlier steps are not kept any more; null: none", examples=[None])
    ]


class Result(Described):
    """Newest `result` event of a session or of a run."""

    result_text: Annotated[Any, Field(examples=["Hello"])]
    result_data: Annotated[Any, Field(examples=[None])]


class Stopped(Described):
    """Answer to a stop."""

    ok: Done
    session_id: SessionId
    run_id: MayLack[RunId] = None
    status: Annotated[RunStatus | SessionStatus, Field(description="Status after the stop", examples=["stopping"])]
    message: Annotated[MayLack[str], Field(description="Reason for which nothing changed")] = None
