from typing import Annotated, Literal

from pydantic import Field

from app.schemas.base import Described, Timestamp
from app.schemas.runs import Demands

Number = Annotated[int, Field(examples=[0])]
AsOf = Annotated[Timestamp, Field(description="Time up to which the history is counted")]


class PendingCounts(Described):
    """Numbers of pending runs."""

    ready: Annotated[int, Field(description="Can be claimed now", examples=[0])]
    delayed: Annotated[int, Field(description="Wait for `not_before`", examples=[0])]
    waiting: Annotated[int, Field(description="Held, or wait for another run of their session or a stop", examples=[0])]


class UnfinishedCounts(Described):
    """Numbers of unfinished runs, exact."""

    pending: PendingCounts
    claimed: Number
    running: Number
    stopping: Number


class EndedCounts(Described):
    """Numbers of runs that ended in the window."""

    completed: Number
    failed: Number
    stopped: Number


class Window(Described):
    """Time in which ends are counted; it goes on until now."""

    since: Annotated[Timestamp, Field(description="Begin of a minute or, more than 47 hours ago, of an hour")]


class RunCounts(Described):
    """Numbers of runs."""

    now: UnfinishedCounts
    ended: EndedCounts
    window: Window
    exact: Annotated[bool, Field(description="Whether every end in the window is counted", examples=[True])]
    as_of: AsOf


class MatchingRunners(Described):
    """Runners that satisfy the demands; lost ones count as stale."""

    online: Annotated[int, Field(description="Online ones that do not drain", examples=[0])]
    stale: Number
    draining: Annotated[int, Field(description="Online ones that an administrator drains", examples=[0])]
    full: Annotated[int, Field(description="Online ones with as many runs in hand as they take", examples=[0])]
    free_slots: Annotated[int, Field(description="Free slots of online ones with a capacity", examples=[0])]
    unlimited: Annotated[int, Field(description="Online ones without a capacity", examples=[0])]


class Queue(Described):
    """Unfinished runs with the same demands."""

    profile_id: Annotated[int, Field(examples=[1])]
    demands: Demands
    ready: Number
    oldest_ready_at: Annotated[Timestamp | None, Field(description="Since when the first one is ready")]
    waiting: Annotated[int, Field(description="Pending ones that are not ready", examples=[0])]
    in_hand: Number
    matching_runners: MatchingRunners
    claims_per_minute: Annotated[float, Field(description="Mean of the last 5 minutes", examples=[1.5])]
    eta_seconds: Annotated[
        float | None, Field(description="Until the last ready one is claimed at that rate", examples=[None])
    ]


class Queues(Described):
    """Queues, the longest first."""

    queues: list[Queue]
    truncated: Annotated[bool, Field(description="Whether there are more than 500", examples=[False])]


class Curve(Described):
    """Curve of a metric."""

    labels: Annotated[
        dict[str, str],
        Field(
            description="`status`, `profile` (a `profile_id`) or `agent`; none for the sum",
            examples=[{"status": "failed"}],
        ),
    ]
    points: Annotated[
        list[list[float | None]],
        Field(
            description="Unix time of the period, then a number; for `wait` and `duration` the seconds below which "
            "50, 95 and 99 % lie, then their number. Periods without any are left out",
            examples=[[[1_795_929_000, 3]]],
        ),
    ]


class Series(Described):
    """Curves of a metric, at most 20 and one for the rest."""

    metric: Literal["submitted", "ended", "wait", "duration"]
    step: Annotated[int, Field(description="Seconds of a period", examples=[60])]
    since: Timestamp
    until: Timestamp
    as_of: AsOf
    series: list[Curve]
