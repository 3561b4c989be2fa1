from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, ConfigDict, Field

from app.schemas.base import Described, Done, NextCursor, RunId, Text, Timestamp, Validated
from app.schemas.runs import SubmitRun
from app.schemas.timestamps import offset_required
from models.core.statuses import FireKind, FireOutcome, Overlap
from models.schedules.fires import MOST_WAITING
from models.schedules.selection import MOST_AT_ONCE
from models.schedules.spec import (
    LONGEST_EXPRESSION,
    LONGEST_INTERVAL,
    MOST_EXCEPTIONS,
    MOST_EXPRESSIONS,
    MOST_MOMENTS,
)

SCHEDULE_ID = "[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}"
FIRST_YEAR, LAST_YEAR = 1970, 2999
LONGEST_NOTE = 1000
LONGEST_JITTER = 86_400
LONGEST_CATCH_UP = 2_592_000
MOST_CAUGHT_UP = 100
MOST_BACKFILLED = 1000
MOST_NEXT = 100
LARGEST_COUNT = 2**31 - 1

_EXAMPLE_SPEC: dict[str, Any] = {"cron": ["0 9 * * MON-FRI"], "except": ["2026-12-25"]}
_EXAMPLE_RUN: dict[str, Any] = {"type": "start_session", "parameters": {"prompt": "Write the morning report"}}

_EXAMPLE: dict[str, Any] = {
    "spec": _EXAMPLE_SPEC,
    "timezone": "Europe/Berlin",
    "run": _EXAMPLE_RUN,
    "overlap": "skip",
}


def _in_range(value: datetime) -> datetime:
    try:
        if FIRST_YEAR <= value.astimezone(UTC).year <= LAST_YEAR:
            return value
    except OverflowError:
        pass
    raise ValueError(f"Should be in the years {FIRST_YEAR} to {LAST_YEAR}")


Moment = Annotated[AwareDatetime, AfterValidator(_in_range), BeforeValidator(offset_required)]
ScheduleId = Annotated[str, Field(examples=["morning-report"], description=f"`{SCHEDULE_ID}`")]
Zone = Annotated[str, Field(max_length=64, description="Time zone of the IANA database", examples=["Europe/Berlin"])]


class ScheduleSpec(Validated):
    """Nominal times: those of all cron expressions, of the interval and of `at`, without the days of `except`."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_EXAMPLE_SPEC]})

    cron: Annotated[
        tuple[Annotated[str, Field(max_length=LONGEST_EXPRESSION)], ...],
        Field(
            strict=False,
            max_length=MOST_EXPRESSIONS,
            description="Cron expressions in the time zone: 5 fields, or 6 with seconds first. A fixed time runs once "
            "a day also when the clock is changed, as with cron of Debian",
        ),
    ] = ()
    every_seconds: Annotated[
        int | None, Field(ge=1, le=LONGEST_INTERVAL, description="Interval, counted from 1970 in UTC")
    ] = None
    offset_seconds: Annotated[int, Field(ge=0, le=LONGEST_INTERVAL, description="Shift of the interval")] = 0
    at: Annotated[
        tuple[Moment, ...], Field(strict=False, max_length=MOST_MOMENTS, description="Single times, with their offset")
    ] = ()
    excluded: Annotated[
        tuple[Annotated[str, Field(max_length=10)], ...],
        Field(
            alias="except",
            strict=False,
            max_length=MOST_EXCEPTIONS,
            description="Days of the time zone without times: YYYY-MM-DD",
        ),
    ] = ()


class CatchUp(Validated):
    """Times that are decided late, after an outage: the newest of them run, the rest is `missed`."""

    model_config = ConfigDict(extra="forbid")

    within_seconds: Annotated[int, Field(ge=0, le=LONGEST_CATCH_UP, description="Age up to which a time runs")] = 3600
    most: Annotated[int, Field(ge=0, le=MOST_CAUGHT_UP, description="Number of times that run, the newest ones")] = 1


class ScheduleTimes(Validated):
    """Nominal times to be shown."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"spec": _EXAMPLE_SPEC, "timezone": "Europe/Berlin"}]}
    )

    spec: ScheduleSpec
    timezone: Zone = "UTC"
    start_at: Annotated[Moment | None, Field(description="No time is before this one")] = None
    end_at: Annotated[Moment | None, Field(description="All times are before this one")] = None


class PutSchedule(ScheduleTimes):
    """Schedule: a run that is submitted at each of its nominal times."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [_EXAMPLE]},
    )

    run: Annotated[
        SubmitRun,
        Field(description="Submission of each time; `{fire_at}` in its `session_id` stands for the nominal time"),
    ]
    jitter_seconds: Annotated[
        int,
        Field(
            ge=0,
            le=LONGEST_JITTER,
            description="Longest delay of a time: the same for each time, and shorter than the gap to the next one",
        ),
    ] = 0
    most_fires: Annotated[
        int | None, Field(ge=1, le=LARGEST_COUNT, description="Times that run before the schedule ends")
    ] = None
    overlap: Annotated[
        Literal["skip", "buffer_one", "buffer_all", "cancel_running", "allow"],
        Field(description="What to do with a time while an earlier run of the schedule is unfinished"),
    ] = "skip"
    buffer_most: Annotated[int, Field(ge=1, le=MOST_WAITING, description="Most times that wait")] = 100
    catch_up: CatchUp = CatchUp()
    pause_after_failures: Annotated[
        int | None, Field(ge=1, le=1000, description="Pause after so many failed runs in a row")
    ] = None
    paused: Annotated[bool | None, Field(description="Null leaves it as it is")] = None
    note: Annotated[str, Field(max_length=LONGEST_NOTE)] = ""
    expect_version: Annotated[
        int | None, Field(ge=0, le=LARGEST_COUNT, description="409 unless the schedule has this version; 0: none yet")
    ] = None


class PauseSchedule(Validated):
    """Pause of a schedule, or its end."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"note": "until the move is over"}]})

    note: Annotated[str | None, Field(max_length=LONGEST_NOTE, description="Reason that the schedule shows")] = None
    expect_version: Annotated[int | None, Field(ge=1, le=LARGEST_COUNT)] = None


class TriggerSchedule(Validated):
    """Fire to make at once."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"overlap": "allow"}]})

    overlap: Annotated[
        Literal["skip", "buffer_one", "buffer_all", "cancel_running", "allow"] | None,
        Field(description="In place of the schedule's own policy"),
    ] = None


class BackfillSchedule(Validated):
    """Nominal times of the past to submit."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"from": "2026-12-01T00:00:00Z", "to": "2026-12-02T00:00:00Z", "dry_run": True}]
        },
    )

    begin: Annotated[Moment, Field(alias="from")]
    end: Annotated[Moment, Field(alias="to", description="Times are before this one, and not later than now")]
    overlap: Annotated[Literal["buffer_all", "allow"], Field(description="One after the other, or all at once")] = (
        "buffer_all"
    )
    most: Annotated[int, Field(ge=1, le=MOST_BACKFILLED, description="Most times, the oldest ones")] = MOST_BACKFILLED
    dry_run: Annotated[bool, Field(description="Only show the times")] = False


class Fire(Described):
    """Decision on a nominal time of a schedule."""

    fire_at: Annotated[Timestamp, Field(description="Nominal time; of one made by hand its own time")]
    kind: Annotated[FireKind, Field(examples=["due"])]
    outcome: Annotated[FireOutcome, Field(examples=["submitted"])]
    reason: Annotated[str | None, Field(examples=[None])]
    run_id: RunId | None
    run_status: Annotated[
        str | None, Field(description="Status of the run; `deleted` when it is gone", examples=["completed"])
    ]
    times: Annotated[int, Field(description="Nominal times that it stands for: those missed together", examples=[1])]
    first_fire_at: Annotated[Timestamp | None, Field(description="First of several times", examples=[None])]
    decided_at: Timestamp
    submitted_at: Timestamp | None


class ScheduleSummary(Described):
    """Schedule without its run, for lists."""

    schedule_id: ScheduleId
    owner: Annotated[str | None, Field(examples=[None])]
    created_by: Annotated[str | None, Field(description="Credential that put it last", examples=[None])]
    version: Annotated[int, Field(examples=[1])]
    state: Annotated[
        Literal["active", "paused", "ended"], Field(description="`ended`: no time is left", examples=["active"])
    ]
    spec: Annotated[dict[str, Any], Field(description="As `ScheduleSpec`, all fields given", examples=[_EXAMPLE_SPEC])]
    timezone: Zone
    start_at: Annotated[Timestamp | None, Field(examples=[None])]
    end_at: Annotated[Timestamp | None, Field(examples=[None])]
    overlap: Annotated[Overlap, Field(examples=["skip"])]
    buffer_most: Annotated[int, Field(examples=[100])]
    catch_up: Annotated[dict[str, int], Field(examples=[{"within_seconds": 3600, "most": 1}])]
    jitter_seconds: Annotated[int, Field(examples=[0])]
    most_fires: Annotated[int | None, Field(examples=[None])]
    pause_after_failures: Annotated[int | None, Field(examples=[None])]
    note: Annotated[str, Field(examples=[""])]
    paused: Annotated[bool, Field(examples=[False])]
    pause_reason: Annotated[str | None, Field(examples=[None])]
    fired: Annotated[int, Field(description="Nominal times that ran, or wait", examples=[12])]
    failures: Annotated[int, Field(description="Runs that failed in a row", examples=[0])]
    next_fire_at: Annotated[Timestamp | None, Field(description="Next nominal time; null: none, or paused")]
    newest_fire: Annotated[Fire | None, Field(description="Decision on the newest time")]
    created_at: Timestamp
    updated_at: Timestamp


class Schedule(ScheduleSummary):
    """Schedule with the run that it submits."""

    run: Annotated[dict[str, Any], Field(description="As it was given", examples=[_EXAMPLE_RUN])]


class SchedulePage(Described):
    """Page of schedules, newest first."""

    schedules: list[ScheduleSummary]
    next_cursor: NextCursor = None


class FirePage(Described):
    """Page of decisions, newest time first."""

    fires: list[Fire]
    next_cursor: NextCursor = None


class NextTime(Described):
    """Nominal time that is to come."""

    fire_at: Timestamp
    local: Annotated[str, Field(description="In the time zone", examples=["2026-12-01T09:00:00+01:00"])]
    note: Annotated[
        str | None, Field(description="Change of the clock before this time", examples=["UTC+01:00, before UTC+02:00"])
    ]


class NextTimes(Described):
    """Nominal times that are to come, before jitter."""

    timezone: Zone
    times: list[NextTime]


class Backfill(Described):
    """Nominal times that a backfill submits."""

    times: Annotated[int, Field(description="Number of times without a run", examples=[24])]
    already: Annotated[int, Field(description="Times that are left out: they have a run", examples=[0])]
    more: Annotated[bool, Field(description="Whether there are times beyond `most`", examples=[False])]
    first: Timestamp | None
    last: Timestamp | None
    dry_run: Annotated[bool, Field(examples=[True])]


class ScheduleDeleted(Described):
    """Answer to the deletion of a schedule."""

    ok: Done
    schedule_id: ScheduleId


class ScheduleFilter(Validated):
    """Schedules that satisfy all of this."""

    model_config = ConfigDict(extra="forbid")

    paused: bool | None = None
    owner: Annotated[Text | None, Field(description="For admins")] = None
    id_prefix: Annotated[
        Annotated[str, Field(max_length=64)] | None, Field(description="Begin of the ids; empty: all schedules")
    ] = None


class ChangeSchedules(Validated):
    """Change of many schedules, or its dry run."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"action": "pause", "filter": {"id_prefix": "nightly-"}, "note": "until noon", "dry_run": True}
            ]
        },
    )

    action: Literal["pause", "resume", "delete"]
    schedule_ids: Annotated[
        list[Annotated[str, Field(max_length=256)]] | None,
        Field(min_length=1, max_length=MOST_AT_ONCE, description="Schedules in place of a filter"),
    ] = None
    filter: ScheduleFilter | None = None
    note: Annotated[
        Annotated[str, Field(max_length=LONGEST_NOTE)] | None,
        Field(description="For `pause`: reason that the schedules show"),
    ] = None
    limit: Annotated[int, Field(ge=1, le=MOST_AT_ONCE, description="Most schedules to change")] = MOST_AT_ONCE
    dry_run: Annotated[bool, Field(description="Only tell what would be changed")] = False


class SchedulesChanged(Described):
    """Schedules that were changed, or with `dry_run` would be."""

    action: Annotated[Literal["pause", "resume", "delete"], Field(examples=["pause"])]
    dry_run: Annotated[bool, Field(examples=[True])]
    schedule_ids: Annotated[list[ScheduleId], Field(description="Those changed, in order")]
    skipped: Annotated[
        dict[str, int],
        Field(description="Numbers of the others that were named, by reason", examples=[{"already paused": 1}]),
    ]
    more: Annotated[bool, Field(description="Others satisfy the filter: ask again", examples=[False])]
