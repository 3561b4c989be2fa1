"""Types of the calls of operators, made by scripts/client_types.py."""

from typing import Any, Literal, NotRequired, TypedDict

Overlap = Literal["skip", "buffer_one", "buffer_all", "cancel_running", "allow"]


FireKind = Literal["due", "manual", "backfill"]


FireOutcome = Literal["submitted", "skipped", "buffered", "missed", "failed"]


class Fire(TypedDict):
    """Decision on a nominal time of a schedule.

    Attributes:
        fire_at: Nominal time; of one made by hand its own time.
        run_status: Status of the run; `deleted` when it is gone.
        times: Nominal times that it stands for: those missed together.
        first_fire_at: First of several times.
    """

    fire_at: str
    kind: FireKind
    outcome: FireOutcome
    reason: str | None
    run_id: str | None
    run_status: str | None
    times: int
    first_fire_at: str | None
    decided_at: str
    submitted_at: str | None


class Schedule(TypedDict):
    """Schedule with the run that it submits.

    Attributes:
        schedule_id: `[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}`.
        created_by: Credential that put it last.
        state: `ended`: no time is left.
        spec: As `ScheduleSpec`, all fields given.
        timezone: Time zone of the IANA database.
        fired: Nominal times that ran, or wait.
        failures: Runs that failed in a row.
        next_fire_at: Next nominal time; null: none, or paused.
        newest_fire: Decision on the newest time.
        run: As it was given.
    """

    schedule_id: str
    owner: str | None
    created_by: str | None
    version: int
    state: Literal["active", "paused", "ended"]
    spec: dict[str, Any]
    timezone: str
    start_at: str | None
    end_at: str | None
    overlap: Overlap
    buffer_most: int
    catch_up: dict[str, int]
    jitter_seconds: int
    most_fires: int | None
    pause_after_failures: int | None
    note: str
    paused: bool
    pause_reason: str | None
    fired: int
    failures: int
    next_fire_at: str | None
    newest_fire: Fire | None
    created_at: str
    updated_at: str
    run: dict[str, Any]


class ScheduleSummary(TypedDict):
    """Schedule without its run, for lists.

    Attributes:
        schedule_id: `[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}`.
        created_by: Credential that put it last.
        state: `ended`: no time is left.
        spec: As `ScheduleSpec`, all fields given.
        timezone: Time zone of the IANA database.
        fired: Nominal times that ran, or wait.
        failures: Runs that failed in a row.
        next_fire_at: Next nominal time; null: none, or paused.
        newest_fire: Decision on the newest time.
    """

    schedule_id: str
    owner: str | None
    created_by: str | None
    version: int
    state: Literal["active", "paused", "ended"]
    spec: dict[str, Any]
    timezone: str
    start_at: str | None
    end_at: str | None
    overlap: Overlap
    buffer_most: int
    catch_up: dict[str, int]
    jitter_seconds: int
    most_fires: int | None
    pause_after_failures: int | None
    note: str
    paused: bool
    pause_reason: str | None
    fired: int
    failures: int
    next_fire_at: str | None
    newest_fire: Fire | None
    created_at: str
    updated_at: str


class SchedulePage(TypedDict):
    """Page of schedules, newest first.

    Attributes:
        next_cursor: Cursor of the next page; absent on the last one.
    """

    schedules: list[ScheduleSummary]
    next_cursor: NotRequired[str]


class FirePage(TypedDict):
    """Page of decisions, newest time first.

    Attributes:
        next_cursor: Cursor of the next page; absent on the last one.
    """

    fires: list[Fire]
    next_cursor: NotRequired[str]


class NextTime(TypedDict):
    """Nominal time that is to come.

    Attributes:
        local: In the time zone.
        note: Change of the clock before this time.
    """

    fire_at: str
    local: str
    note: str | None


class NextTimes(TypedDict):
    """Nominal times that are to come, before jitter.

    Attributes:
        timezone: Time zone of the IANA database.
    """

    timezone: str
    times: list[NextTime]


class Backfill(TypedDict):
    """Nominal times that a backfill submits.

    Attributes:
        times: Number of times without a run.
        already: Times that are left out: they have a run.
        more: Whether there are times beyond `most`.
    """

    times: int
    already: int
    more: bool
    first: str | None
    last: str | None
    dry_run: bool


class SchedulesChanged(TypedDict):
    """Schedules that were changed, or with `dry_run` would be.

    Attributes:
        schedule_ids: Those changed, in order.
        skipped: Numbers of the others that were named, by reason.
        more: Others satisfy the filter: ask again.
    """

    action: Literal["pause", "resume", "delete"]
    dry_run: bool
    schedule_ids: list[str]
    skipped: dict[str, int]
    more: bool
