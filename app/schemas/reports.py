from typing import Annotated, Final, Literal, get_args

from pydantic import Field
from typing_extensions import TypeAliasType

from app.schemas.base import ClaimToken, Described, Done, MayLack, RunId, RunnerId
from app.schemas.problems import ItemAnswer
from app.schemas.retries import ReportedErrorClass, ReportedExitCode, ReportedRetryable, ReportedRetryAfter

MOST_HELD = 10_000
MOST_REPORTS = 1000


Outcome = TypeAliasType("Outcome", Literal["started", "completed", "failed", "stopped", "released"])
ReportedToken = Annotated[
    MayLack[ClaimToken], Field(description="The claim's token; a stale one changes nothing (409)")
]
ReportedError = Annotated[MayLack[str], Field(description="Reason of `failed`; kept up to 64 KiB, head and tail")]
StatusAfterRun = Literal["idle", "finished"]
STATUSES_AFTER_RUN: Final = frozenset(get_args(StatusAfterRun))
Ending = Literal["finished", "failed", "stopped"]
ENDINGS: Final = frozenset(get_args(Ending))
ReportedSessionStatus = Annotated[
    MayLack[StatusAfterRun],
    Field(description="With `completed`: `idle` when the process stays alive; `finished`"),
]
ReportedSignal = Annotated[MayLack[str], Field(description="Signal that stopped it")]
ReportingRunner = Annotated[RunnerId, Field(description="Id of the reporting runner")]
ReleaseReason = Annotated[MayLack[str], Field(description="Reason for which the runner cannot carry it out")]


class ReportRun(Described):
    """Report of a runner about a run. Contents are never refused: another type is kept as its JSON text."""

    runner_id: ReportingRunner
    claim_token: ReportedToken = None
    error: ReportedError = None
    session_status: ReportedSessionStatus = None
    signal: ReportedSignal = None
    exit_code: ReportedExitCode = None
    error_class: ReportedErrorClass = None
    retryable: ReportedRetryable = None
    retry_after: ReportedRetryAfter = None


class ReleaseRun(Described):
    """Release of a run that its runner cannot carry out."""

    runner_id: ReportingRunner
    claim_token: Annotated[ClaimToken, Field(description="The claim's token; a stale one changes nothing (409)")]
    reason: ReleaseReason = None


class Report(Described):
    """Report about one run of several. Contents are never refused: another type is kept as its JSON text."""

    run_id: RunId
    outcome: Annotated[Outcome, Field(description="`released` returns the run without a start")]
    claim_token: ReportedToken = None
    error: ReportedError = None
    reason: ReleaseReason = None
    session_status: ReportedSessionStatus = None
    signal: ReportedSignal = None
    exit_code: ReportedExitCode = None
    error_class: ReportedErrorClass = None
    retryable: ReportedRetryable = None
    retry_after: ReportedRetryAfter = None


class ReportRuns(Described):
    """Reports about several runs, in order; a run may appear twice (started, then completed)."""

    runner_id: ReportingRunner
    reports: Annotated[list[Report], Field(max_length=MOST_REPORTS)]


class ReportResult(Described):
    """Answer to several reports: one result each, in order."""

    results: list[ItemAnswer]


class Heartbeat(Described):
    """Sign of life of a runner."""

    runner_id: ReportingRunner
    holding: Annotated[
        MayLack[Annotated[list[str], Field(max_length=MOST_HELD)]],
        Field(description="Ids of the runs that it has; a run missing in two heartbeats is lost"),
    ] = None


class HeartbeatAnswer(Described):
    """Answer to a heartbeat."""

    ok: Done
    not_yours: Annotated[list[RunId], Field(description="Runs of `holding` that the runner has no more and must end")]


class ReportSessionStatus(Described):
    """Report that the live process of a session has ended."""

    runner_id: ReportingRunner
    status: Ending


class Accepted(Described):
    """Answer to what took effect, now or before."""

    ok: Done
