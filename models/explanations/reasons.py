"""Reasons why a run does not run and a runner is idle: the codes, their meaning, and the shape of an explanation.

Add a code here with its meaning, and the check that finds it to the tuple of its status (``waiting``, ``in_hand``,
``idle``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final


class ReasonCode(StrEnum):
    # Run pending, not ready
    DELAYED = "delayed"
    BEHIND_IN_SESSION = "behind_in_session"
    STOP_OPEN = "stop_open"
    HELD = "held"
    SHOULD_BE_READY = "should_be_ready"
    # Run pending, ready
    NO_RUNNER = "no_runner"
    NO_MATCH = "no_match"
    MATCHING_FULL = "matching_full"
    MATCHING_SILENT = "matching_silent"
    MATCHING_NOT_POLLING = "matching_not_polling"
    MATCHING_LEAVING = "matching_leaving"
    MATCHING_DRAINING = "matching_draining"
    EXCLUDED = "excluded"
    AFFINITY = "affinity"
    AHEAD = "ahead"
    SHOULD_BE_CLAIMED = "should_be_claimed"
    RETRIED = "retried"
    # Run in hand
    UNDELIVERED = "undelivered"
    DELIVERED_NOT_STARTED = "delivered_not_started"
    SILENT = "silent"
    NOT_HELD = "not_held"
    RUNS_OUT = "runs_out"
    TOLD = "told"
    # Run ended
    ENDED_BY = "ended_by"
    # Runner
    GONE = "gone"
    LEAVING = "leaving"
    DRAINING = "draining"
    LOST = "lost"
    STALE = "stale"
    FULL = "full"
    SUPERSEDED = "superseded"
    NOT_POLLING = "not_polling"
    NO_READY_RUN = "no_ready_run"
    NO_READY_MATCH = "no_ready_match"
    ALL_EXCLUDED = "all_excluded"
    BEHIND_OTHERS = "behind_others"
    SHOULD_CLAIM = "should_claim"


MEANINGS: Final[Mapping[ReasonCode, str]] = {
    ReasonCode.DELAYED: "its `not_before` has not come, or the backoff of its retry policy lasts",
    ReasonCode.BEHIND_IN_SESSION: "an earlier run of its session is unfinished",
    ReasonCode.STOP_OPEN: "its session is being stopped; it goes on when the stop has ended",
    ReasonCode.HELD: "a hold applies to it, until someone releases it",
    ReasonCode.SHOULD_BE_READY: "nothing delays it, but no worker has made it ready yet",
    ReasonCode.NO_RUNNER: "no runner is registered",
    ReasonCode.NO_MATCH: "no registered runner offers all that it demands",
    ReasonCode.MATCHING_FULL: "runners that match have as many runs in hand as they take",
    ReasonCode.MATCHING_SILENT: "runners that match are stale or lost",
    ReasonCode.MATCHING_NOT_POLLING: "runners that match have no poll waiting",
    ReasonCode.MATCHING_LEAVING: "runners that match are asked to leave",
    ReasonCode.MATCHING_DRAINING: "an administrator drains runners that match",
    ReasonCode.EXCLUDED: "runners that match had it before and may not have it again",
    ReasonCode.AFFINITY: "it resumes a session that lives at one host and profile, and no free runner is there",
    ReasonCode.AHEAD: "runs that the same runners take are before it",
    ReasonCode.SHOULD_BE_CLAIMED: "nothing blocks it, for more than 5 s: the coordinator is at fault",
    ReasonCode.RETRIED: "an earlier attempt ended without a result",
    ReasonCode.UNDELIVERED: "it is claimed for a poll that did not get it yet",
    ReasonCode.DELIVERED_NOT_STARTED: "its runner got it and did not report that it started",
    ReasonCode.SILENT: "its runner gave no sign of life lately",
    ReasonCode.NOT_HELD: "its runner's heartbeats do not name it",
    ReasonCode.RUNS_OUT: "it is stopped at its time limit",
    ReasonCode.TOLD: "its runner is told to stop it",
    ReasonCode.ENDED_BY: "it has ended",
    ReasonCode.GONE: "the runner has left, or is forgotten",
    ReasonCode.LEAVING: "the runner is asked to leave",
    ReasonCode.DRAINING: "an administrator drains the runner: it gets no new run",
    ReasonCode.LOST: "the runner was silent for too long; its runs were taken away",
    ReasonCode.STALE: "the runner gave no sign of life lately",
    ReasonCode.FULL: "the runner has as many runs in hand as it takes",
    ReasonCode.SUPERSEDED: "polls wait of a process that another one has replaced",
    ReasonCode.NOT_POLLING: "no poll of the runner waits",
    ReasonCode.NO_READY_RUN: "no run is ready",
    ReasonCode.NO_READY_MATCH: "all ready runs demand what the runner does not offer",
    ReasonCode.ALL_EXCLUDED: "the runner had all ready runs that match before, and may not have them again",
    ReasonCode.BEHIND_OTHERS: "polls of other runners are before its own",
    ReasonCode.SHOULD_CLAIM: "nothing blocks it: it gets a run at the next claim",
}


@dataclass(frozen=True, slots=True)
class Reason:
    """Reason with its times; ``detail`` holds what the text says, for programs, and ``fix`` what to do about it.

    ``blocking``: it keeps the run from being given out, or the runner from getting one.
    """

    code: ReasonCode
    text: str
    blocking: bool = True
    since: datetime | None = None
    until: datetime | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    fix: str | None = None


@dataclass(frozen=True, slots=True)
class OfMatching:
    """Numbers of the runners that offer what the run demands, each counted once."""

    free: int = 0
    full: int = 0
    stale: int = 0
    not_polling: int = 0
    excluded: int = 0
    leaving: int = 0
    draining: int = 0


@dataclass(frozen=True, slots=True)
class RunnerCounts:
    """Numbers of runners: ``known`` are ``match`` and those of ``rejected`` together."""

    known: int
    match: int
    rejected: Mapping[str, int]
    of_matching: OfMatching


@dataclass(frozen=True, slots=True)
class Ahead:
    """Number of ready runs that go before it at the runners that match; ``exact`` False: at least ``count``.

    ``eta_seconds`` is an estimate of the time until it is claimed, and ``based_on`` says of what.
    """

    count: int
    exact: bool
    eta_seconds: float | None = None
    based_on: str | None = None


@dataclass(frozen=True, slots=True)
class RunExplanation:
    run_id: str
    status: str
    since: datetime | None
    headline: str
    reasons: Sequence[Reason]
    as_of: datetime
    runners: RunnerCounts | None = None
    ahead: Ahead | None = None


@dataclass(frozen=True, slots=True)
class ReadyRuns:
    """Ready runs as one runner sees them: ``match`` it may take, ``rejected`` by what they demand and it lacks.

    ``exact`` False: there are at least ``count``.
    """

    count: int
    exact: bool
    match: int
    rejected: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class RunnerExplanation:
    runner_id: str
    status: str
    since: datetime | None
    headline: str
    reasons: Sequence[Reason]
    runs_in_hand: int
    capacity: int | None
    polls: int
    ready: ReadyRuns
    as_of: datetime
