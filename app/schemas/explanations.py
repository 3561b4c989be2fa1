from typing import Annotated, Any, Literal

from pydantic import Field

from app.schemas.base import Described, RunId, RunnerId, Timestamp
from models.core.statuses import RunStatus
from models.explanations.reasons import ReasonCode

Headline = Annotated[
    str,
    Field(
        description="The whole answer in one line",
        examples=["0 of 9 runners can take it: 5 lack tag gpu, 1 is not build-7, 3 match and are full (12 of 12)"],
    ),
]


class Reason(Described):
    """Reason why a run does not run, or a runner gets no run."""

    code: Annotated[
        ReasonCode, Field(description="One of the table in docs/protocol.md, Explanations", examples=["matching_full"])
    ]
    blocking: Annotated[
        bool, Field(description="It keeps the run from being given out now, or the runner from getting one")
    ]
    text: Annotated[str, Field(examples=["3 runners that match are full (12 of 12)"])]
    since: Timestamp | None
    until: Annotated[Timestamp | None, Field(description="Time at which it ends, or the run does", examples=[None])]
    detail: Annotated[
        dict[str, Any], Field(description="What the text says, for programs", examples=[{"used": 12, "capacity": 12}])
    ]
    fix: Annotated[str | None, Field(description="What to do about it", examples=["start another runner"])]


class OfMatching(Described):
    """Numbers of the runners that offer what the run demands, each counted once."""

    free: Annotated[int, Field(description="A poll waits, and it takes more", examples=[0])]
    full: Annotated[int, Field(description="As many runs in hand as it takes", examples=[3])]
    stale: Annotated[int, Field(description="Stale or lost", examples=[0])]
    not_polling: Annotated[int, Field(description="No poll waits", examples=[0])]
    excluded: Annotated[int, Field(description="Had the run before and may not have it again", examples=[0])]
    leaving: Annotated[int, Field(description="Asked to leave", examples=[0])]
    draining: Annotated[int, Field(description="An administrator drains them", examples=[0])]


class RunnerCounts(Described):
    """Numbers of runners, up to 1,000: `known` are `match` and those of `rejected` together."""

    known: Annotated[int, Field(description="Have not left and are not forgotten", examples=[9])]
    match: Annotated[int, Field(description="Offer what the run demands", examples=[3])]
    rejected: Annotated[
        dict[str, int],
        Field(
            description="The others, by what they lack",
            examples=[{"tag gpu missing": 5, "hostname is not build-7": 1}],
        ),
    ]
    of_matching: OfMatching


class Ahead(Described):
    """Ready runs that go before this one at the runners that match."""

    count: Annotated[int, Field(examples=[41])]
    exact: Annotated[bool, Field(description="False: at least `count`")]
    eta_seconds: Annotated[float | None, Field(description="Estimate of the time until it is claimed", examples=[360])]
    based_on: Annotated[
        str | None,
        Field(description="Source of the estimate", examples=["age of the 12 runs in hand of runners that match"]),
    ]


class RunExplanation(Described):
    """Explanation why a run does not run now."""

    run_id: RunId
    status: Annotated[RunStatus, Field(examples=["pending"])]
    since: Annotated[Timestamp | None, Field(description="Time of this status; of a ready run, of its readiness")]
    headline: Headline
    reasons: Annotated[list[Reason], Field(description="The most important first; empty if nothing is to be said")]
    runners: Annotated[RunnerCounts | None, Field(description="Of a ready run; else null")]
    ahead: Annotated[Ahead | None, Field(description="Of a ready run that a runner matches; else null")]
    as_of: Timestamp


class ReadyRuns(Described):
    """Ready runs, by whether the runner may take them."""

    count: Annotated[int, Field(examples=[41])]
    exact: Annotated[bool, Field(description="False: at least `count`")]
    match: Annotated[int, Field(description="Demand what the runner offers", examples=[0])]
    rejected: Annotated[
        dict[str, int],
        Field(
            description="The others, by what they demand and it lacks",
            examples=[{"tag gpu": 30, "hostname build-7": 11}],
        ),
    ]


class RunnerExplanation(Described):
    """Explanation why a runner gets no run now."""

    runner_id: RunnerId
    status: Literal["online", "stale", "lost", "leaving", "gone"]
    since: Annotated[Timestamp | None, Field(description="Registration, or the last sign of life of a silent one")]
    headline: Annotated[
        str,
        Field(
            description="The whole answer in one line",
            examples=["41 ready runs: 30 demand tag gpu, 11 demand hostname build-7"],
        ),
    ]
    reasons: list[Reason]
    runs_in_hand: Annotated[int, Field(examples=[0])]
    capacity: Annotated[int | None, Field(examples=[4])]
    polls: Annotated[int, Field(description="Polls of it that wait for runs now", examples=[1])]
    ready: ReadyRuns
    as_of: Timestamp
