"""Types of the calls of operators, made by scripts/client_types.py."""

from typing import Literal, NotRequired, TypedDict

from coordinator_client.operator_types import Role
from coordinator_client.types import Demands


class PendingCounts(TypedDict):
    """Numbers of pending runs.

    Attributes:
        ready: Can be claimed now.
        delayed: Wait for `not_before`.
        waiting: Held, or wait for another run of their session or a stop.
    """

    ready: int
    delayed: int
    waiting: int


class UnfinishedCounts(TypedDict):
    """Numbers of unfinished runs, exact."""

    pending: PendingCounts
    claimed: int
    running: int
    stopping: int


class EndedCounts(TypedDict):
    """Numbers of runs that ended in the window."""

    completed: int
    failed: int
    stopped: int


class Window(TypedDict):
    """Time in which ends are counted; it goes on until now.

    Attributes:
        since: Begin of a minute or, more than 47 hours ago, of an hour.
    """

    since: str


class RunCounts(TypedDict):
    """Numbers of runs.

    Attributes:
        exact: Whether every end in the window is counted.
        as_of: Time up to which the history is counted.
    """

    now: UnfinishedCounts
    ended: EndedCounts
    window: Window
    exact: bool
    as_of: str


class MatchingRunners(TypedDict):
    """Runners that satisfy the demands; lost ones count as stale.

    Attributes:
        online: Online ones that do not drain.
        draining: Online ones that an administrator drains.
        full: Online ones with as many runs in hand as they take.
        free_slots: Free slots of online ones with a capacity.
        unlimited: Online ones without a capacity.
    """

    online: int
    stale: int
    draining: int
    full: int
    free_slots: int
    unlimited: int


class Queue(TypedDict):
    """Unfinished runs with the same demands.

    Attributes:
        oldest_ready_at: Since when the first one is ready.
        waiting: Pending ones that are not ready.
        claims_per_minute: Mean of the last 5 minutes.
        eta_seconds: Until the last ready one is claimed at that rate.
    """

    profile_id: int
    demands: Demands
    ready: int
    oldest_ready_at: str | None
    waiting: int
    in_hand: int
    matching_runners: MatchingRunners
    claims_per_minute: float
    eta_seconds: float | None


class Queues(TypedDict):
    """Queues, the longest first.

    Attributes:
        truncated: Whether there are more than 500.
    """

    queues: list[Queue]
    truncated: bool


class Curve(TypedDict):
    """Curve of a metric.

    Attributes:
        labels: `status`, `profile` (a `profile_id`) or `agent`; none for the sum.
        points: Unix time of the period, then a number; for `wait` and `duration` the seconds below which 50, 95 and
            99 % lie, then their number. Periods without any are left out.
    """

    labels: dict[str, str]
    points: list[list[float | None]]


class Series(TypedDict):
    """Curves of a metric, at most 20 and one for the rest.

    Attributes:
        step: Seconds of a period.
        as_of: Time up to which the history is counted.
    """

    metric: Literal["submitted", "ended", "wait", "duration"]
    step: int
    since: str
    until: str
    as_of: str
    series: list[Curve]


class Key(TypedDict):
    """API key, without its secret.

    Attributes:
        last_used_at: Written once a minute at most.
    """

    key_id: str
    role: Role
    owner: str | None
    name: str | None
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None
    state: Literal["good", "expired", "revoked"]


class KeyList(TypedDict):
    """All API keys, oldest first."""

    keys: list[Key]


class AuditEntry(TypedDict):
    """Act of an administrator.

    Attributes:
        owner: Owner of the target.
    """

    type: str
    act: str
    by: str
    target: str
    owner: str | None
    at: str


class AuditPage(TypedDict):
    """Acts of administrators, newest first.

    Attributes:
        next_cursor: Cursor of the next page; absent on the last one.
    """

    entries: list[AuditEntry]
    next_cursor: NotRequired[str]


class Versions(TypedDict):
    """Versions of the process that answers, and of the schema."""

    coordinator: str
    schema_found: str | None
    schema_needed: str


class Sign(TypedDict):
    """Last sign of life of a process or duty."""

    name: str
    at: str
    age_seconds: float


class Gap(TypedDict):
    """Outage in which silence of runners was or may have been our own doing."""

    kind: str
    started_at: str
    ended_at: str


class FeedState(TypedDict):
    """Positions of the feed.

    Attributes:
        head: Newest position.
        floor: Up to it retention has dropped events.
        counted: Up to it the history is counted.
    """

    epoch: str
    head: int
    floor: int
    counted: int


class SettingShown(TypedDict):
    """Setting of the process that answers; passwords are masked."""

    name: str
    value: str
    unit: str
    source: str
    description: str


class System(TypedDict):
    """State of the coordinator itself.

    Attributes:
        instance: Web process that answers.
        instances: Web processes, the last seen first.
        gaps: The newest first.
    """

    instance: str
    versions: Versions
    instances: list[Sign]
    duties: list[Sign]
    gaps: list[Gap]
    feed: FeedState
    settings: list[SettingShown]
