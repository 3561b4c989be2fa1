"""Nominal times of schedules: switches of the clock as Debian's cron treats them, intervals, exceptions, jitter; and the
decisions on those that are due. Pure.
"""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from cronsim import CronSim

from models.core.statuses import FireKind, FireOutcome
from models.schedules import times
from models.schedules.plan import State, due_now, look_ahead, plan_schedule
from models.schedules.rows import Fire, Schedule
from models.schedules.spec import BadExpression, Spec, check_expression, write_spec
from models.schedules.times import due_times, jitter, newest_times, next_time
from models.schedules.zones import UnknownZone, zone, zone_names

FAR = timedelta(days=4000)
NOW = datetime(2026, 6, 1, 12, 0, 0, 500_000, tzinfo=UTC)
BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"

# Zone, expression, begin in UTC, and the local times that follow, with their offsets.
SWITCHES = [
    # A fixed time in the gap runs once, at its end; in the hour that comes twice once, the first time.
    (BERLIN, "30 2 * * *", "2026-03-28T12:00", ["03-29T03:00+0200", "03-30T02:30+0200"]),
    (BERLIN, "15,45 2 * * *", "2026-03-28T12:00", ["03-29T03:00+0200", "03-30T02:15+0200"]),
    (BERLIN, "30 2 * * *", "2026-10-24T12:00", ["10-25T02:30+0200", "10-26T02:30+0100"]),
    (NEW_YORK, "30 2 * * *", "2026-03-07T12:00", ["03-08T03:00-0400", "03-09T02:30-0400"]),
    (NEW_YORK, "30 1 * * *", "2026-10-31T12:00", ["11-01T01:30-0400", "11-02T01:30-0500"]),
    (LORD_HOWE, "15 2 * * *", "2026-10-03T00:00", ["10-04T02:30+1100", "10-05T02:15+1100"]),
    (LORD_HOWE, "45 1 * * *", "2026-04-04T00:00", ["04-05T01:45+1100", "04-06T01:45+1030"]),
    # Frequent ones follow the clock.
    (BERLIN, "*/30 * * * *", "2026-03-29T00:29", ["03-29T01:30+0100", "03-29T03:00+0200", "03-29T03:30+0200"]),
    (
        BERLIN,
        "*/30 * * * *",
        "2026-10-25T00:00",
        ["10-25T02:30+0200", "10-25T02:00+0100", "10-25T02:30+0100", "10-25T03:00+0100"],
    ),
    (NEW_YORK, "0 * * * *", "2026-11-01T04:30", ["11-01T01:00-0400", "11-01T01:00-0500", "11-01T02:00-0500"]),
    (NEW_YORK, "0 * * * *", "2026-03-08T05:30", ["03-08T01:00-0500", "03-08T03:00-0400"]),
    (LORD_HOWE, "*/15 * * * *", "2026-10-03T15:10", ["10-04T01:45+1030", "10-04T02:30+1100", "10-04T02:45+1100"]),
    (LORD_HOWE, "*/15 * * * *", "2026-04-04T14:31", ["04-05T01:45+1100", "04-05T01:30+1030", "04-05T01:45+1030"]),
    # Days of cron: 0 and 7 are Sunday, either of two days is enough, none is passed over.
    ("UTC", "0 0 * * 0", "2026-11-27T00:00", ["11-29T00:00+0000", "12-06T00:00+0000"]),
    ("UTC", "0 0 13 * 5", "2026-11-07T00:00", ["11-13T00:00+0000", "11-20T00:00+0000"]),
    ("UTC", "0 0 L * *", "2028-02-01T00:00", ["02-29T00:00+0000", "03-31T00:00+0000"]),
]


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(("name", "expression", "after", "expected"), SWITCHES)
def test_cron_follows_debian_across_switches_of_the_clock(
    name: str, expression: str, after: str, expected: list[str]
) -> None:
    spec = Spec(cron=(expression,), timezone=name)
    found = due_times(spec, moment(after), moment(after) + FAR, len(expected))
    assert [each.astimezone(spec.zone).strftime("%m-%dT%H:%M%z") for each in found] == expected


def test_times_of_all_sources_come_once_in_order_and_without_excepted_days() -> None:
    spec = Spec(
        cron=("0 * * * *", "0 12 * * *"),
        every=1800,
        offset=600,
        at=(moment("2026-06-01T13:07"), moment("2026-06-01T14:00"), moment("2026-06-02T14:00")),
        excluded=frozenset({date(2026, 6, 2)}),
        start_at=moment("2026-06-01T13:00"),
        end_at=moment("2026-06-03T00:10"),
    )
    found = due_times(spec, moment("2026-05-01T00:00"), NOW + FAR, 1000)
    assert [each.strftime("%dT%H:%M") for each in found[:6]] == [
        *("01T13:00", "01T13:07", "01T13:10", "01T13:40", "01T14:00", "01T14:10")
    ]
    assert all(before < after for before, after in pairwise(found))
    assert {each.day for each in found} == {1, 3}
    assert found[-1] == moment("2026-06-03T00:00")
    assert next_time(spec, found[-1]) is None
    assert newest_times(spec, moment("2026-05-01T00:00"), NOW + FAR, 3) == found[-3:]


def test_excepted_days_of_an_expression_of_seconds_are_stepped_over() -> None:
    """A day has 86,400 of them; ten years of days are found in no time."""
    days = frozenset(date(2026, 6, 2) + timedelta(days=number) for number in range(1000))
    spec = Spec(cron=("* * * * * *",), every=1, excluded=days, timezone=BERLIN)
    after = moment("2026-06-01T21:59:59")
    assert next_time(spec, after) == datetime(2029, 2, 26, tzinfo=zone(BERLIN))


class CountedCron(CronSim):
    found = 0

    def __next__(self) -> datetime:
        CountedCron.found += 1
        return super().__next__()


def test_excepted_days_behind_the_horizon_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten years of a yearly expression are ten steps, whichever of the thousand years after them are excepted."""
    monkeypatch.setattr(times, "CronSim", CountedCron)
    excluded = frozenset(date(year, 1, 1) for year in range(2027, 3027))
    assert next_time(Spec(cron=("0 0 1 1 *",), excluded=excluded), NOW) is None
    assert 10 <= CountedCron.found <= 12
    assert due_times(Spec(every=366 * 86_400, excluded=excluded), NOW, NOW + FAR, 9) != []


def test_jitter_is_the_same_everywhere_and_shorter_than_the_gap() -> None:
    following = NOW + timedelta(seconds=10)
    delays = {jitter(f"s{number}", NOW, following, 3600) for number in range(50)}
    assert all(timedelta(0) <= delay < timedelta(seconds=10) for delay in delays)
    assert len(delays) > 40
    assert jitter("s", NOW, None, 60) == jitter("s", NOW.astimezone(zone(BERLIN)), None, 60)
    assert jitter("s", NOW, None, 0) == timedelta(0)


@pytest.mark.parametrize(
    "expression",
    ["", "* * * *", "60 * * * *", "0 0 30 2 *", "@daily", "*/0 * * * *", "0 0 * * 5#6", "ä * * * *", "\0", "1" * 201],
)
def test_expression_that_cannot_be_read_is_refused(expression: str) -> None:
    with pytest.raises(BadExpression):
        check_expression(expression)


@pytest.mark.parametrize("name", ["", "Berlin", "../zones", "/etc/passwd", "europe/berlin", "Europe/Berlin\0", "CEST"])
def test_zone_that_is_not_in_the_database_is_refused(name: str) -> None:
    with pytest.raises(UnknownZone):
        zone(name)


def test_every_zone_of_the_package_is_read() -> None:
    assert len(zone_names()) > 500
    assert all(NOW.astimezone(zone(name)) == NOW for name in zone_names())


def schedule(spec: Spec, decided_until: datetime, **values: Any) -> Schedule:
    given: dict[str, Any] = dict.fromkeys(Schedule.__dataclass_fields__)
    given |= {
        "schedule_id": "s",
        "schedule_no": 1,
        "version": 1,
        "spec": write_spec(spec),
        "timezone": spec.timezone,
        "overlap": "skip",
        "buffer_most": 3,
        "catch_up_seconds": 3600,
        "catch_up_most": 1,
        "jitter_seconds": 0,
        "fired": 0,
        "failures": 0,
        "paused": False,
        "decided_until": decided_until,
    }
    return Schedule(**given | values)


# Interval of the schedule, seconds since its last decision, catch-up (within, most): times that run, times missed.
LATE = [
    (1, 3, (3600, 1), 3, 0),
    (1, 3, (0, 0), 3, 0),
    (60, 7200, (3600, 1), 1, 119),
    (60, 7200, (3600, 5), 5, 115),
    (60, 7200, (600, 100), 10, 110),
    (60, 7200, (0, 1), 1, 119),
    (3600, 36_000, (1800, 3), 1, 9),
    (1, 86_400, (3600, 100), 100, 1000),
    (86_400 * 30, 86_400 * 300, (60, 1), 0, 10),
]


@pytest.mark.parametrize(("every", "ago", "catch_up", "run", "missed"), LATE)
def test_late_times_are_caught_up_or_missed(
    every: int, ago: int, catch_up: tuple[int, int], run: int, missed: int
) -> None:
    """All are accounted for, without a gap between those missed and those that run."""
    row = schedule(
        Spec(every=every),
        NOW - timedelta(seconds=ago),
        catch_up_seconds=catch_up[0],
        catch_up_most=catch_up[1],
    )
    due = due_now(row, NOW)
    assert (len(due.times), due.missed) == (run, missed)
    times = due_times(row.times, row.decided_until, NOW, 100_000)
    assert list(due.times) == times[len(times) - run :]
    if missed:
        assert (due.first_missed, due.last_missed) == (times[0], times[len(times) - run - 1])


def test_time_is_not_due_before_its_jitter() -> None:
    every, row = 600, schedule(Spec(every=600), NOW - timedelta(seconds=600), jitter_seconds=590)
    (nominal,) = due_times(row.times, row.decided_until, NOW, 10)
    delay = jitter("s", nominal, nominal + timedelta(seconds=every), 590)
    assert due_now(row, nominal + delay - timedelta(milliseconds=1)).times == []
    assert list(due_now(row, nominal + delay).times) == [nominal]


def fire(ago: int, kind: FireKind = FireKind.DUE, *, waits: bool = True) -> Fire:
    at = NOW - timedelta(seconds=ago)
    return Fire(1, at, kind, FireOutcome.BUFFERED, None, None, None, 1, None, waits, at, None)


def outcomes(row: Schedule, state: State) -> list[str]:
    return [decision.outcome.value for decision in plan_schedule(row, state, NOW).decisions]


# Policy, unfinished runs, buffered fires: decisions on three times that are due at once.
OVERLAPS = [
    ("skip", [], 0, ["submitted", "skipped", "skipped"]),
    ("skip", ["run_1"], 0, ["skipped", "skipped", "skipped"]),
    ("buffer_one", ["run_1"], 0, ["buffered", "skipped", "skipped"]),
    ("buffer_all", ["run_1"], 1, ["buffered", "buffered", "skipped"]),
    ("allow", ["run_1"], 0, ["submitted", "submitted", "submitted"]),
    ("cancel_running", [], 0, ["skipped", "skipped", "submitted"]),
    ("cancel_running", ["run_1"], 1, ["skipped", "skipped", "buffered"]),
]


@pytest.mark.parametrize(("overlap", "unfinished", "buffered", "expected"), OVERLAPS)
def test_overlap_policy_decides(overlap: str, unfinished: list[str], buffered: int, expected: list[str]) -> None:
    row = schedule(Spec(every=1), NOW - timedelta(seconds=3), overlap=overlap)
    state = State(list(unfinished), [fire(9) for _ in range(buffered)], buffered)
    assert outcomes(row, state) == expected


def test_running_ones_are_cancelled_and_waiting_ones_replaced_but_not_those_of_a_backfill() -> None:
    row = schedule(Spec(every=1), NOW - timedelta(seconds=1), overlap="cancel_running")
    waiting = [fire(9), fire(8, FireKind.BACKFILL)]
    plan = plan_schedule(row, State(["run_1", "run_2"], waiting, 2), NOW)
    assert (plan.stops, plan.replaced, plan.starts) == (["run_1", "run_2"], [waiting[0]], [])


def test_quota_buffers_what_it_does_not_allow() -> None:
    row = schedule(Spec(every=1), NOW - timedelta(seconds=3), overlap="allow")
    assert outcomes(row, State([], [], quota=1)) == ["submitted", "buffered", "buffered"]
    held = [fire(9, waits=False)]
    assert plan_schedule(row, State([], held, 1, quota=0), NOW).starts == []
    assert plan_schedule(row, State([], [fire(9, waits=False)], 1, quota=1), NOW).starts == held


def test_waiting_fires_start_in_order_once_nothing_is_unfinished() -> None:
    row = schedule(Spec(every=3600), NOW)
    waiting = [fire(9), fire(8), fire(7, waits=False)]
    assert plan_schedule(row, State(["run_1"], list(waiting), 3), NOW).starts == [waiting[2]]
    assert plan_schedule(row, State([], list(waiting), 3), NOW).starts == [waiting[0], waiting[2]]


def test_failures_pause_and_most_fires_end() -> None:
    row = schedule(Spec(every=1), NOW - timedelta(seconds=3), overlap="allow")
    failing = replace(row, pause_after_failures=2)
    plan = plan_schedule(failing, State([], [], failures=2), NOW)
    assert plan.pause_reason == "2 runs failed in a row"
    assert [decision.outcome for decision in plan.decisions] == [FireOutcome.SKIPPED] * 3
    last = replace(row, most_fires=5, fired=3)
    ending = plan_schedule(last, State([], []), NOW)
    assert (len(ending.decisions), ending.fired, ending.next_at) == (2, 2, None)
    ending.refused = 1
    look_ahead(last, ending)
    assert (ending.fired, ending.next_fire_at) == (1, NOW.replace(second=0, microsecond=0))
