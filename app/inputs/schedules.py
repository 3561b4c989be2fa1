"""Bodies of schedules as arguments of verbs."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date
from typing import Any, Final

import orjson

from app.http.bodies import Fault, Invalid, Loc, checked
from app.inputs.submission import body_hash, new_run
from app.schemas import schedules as bodies
from models.core.callers import Caller
from models.core.storable_text import storable
from models.runs.submission import FIRE_LABEL, SCHEDULE_LABEL
from models.schedules.put import PutSchedule
from models.schedules.selection import Selection
from models.schedules.spec import BadExpression, Spec, check_expression
from models.schedules.templates import FIRE_AT
from models.schedules.zones import UnknownZone, zone
from runtime.settings import Settings

_SCHEDULE_ID: Final = re.compile(bodies.SCHEDULE_ID)
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
# Left for the labels of the schedule itself.
MOST_LABELS: Final = 30
# Stands for a nominal time while the rest of a session id is checked.
_SOME_TIME: Final = "2026-12-01T09:00:00.000000Z"


def put_schedule(
    settings: Settings, caller: Caller, schedule_id: str, body: Any, put_key: str
) -> tuple[PutSchedule, int]:
    """Return the schedule of a parsed body, and its size in bytes. Raises Invalid, TooLarge, BadRequest."""
    if not _SCHEDULE_ID.fullmatch(schedule_id):
        message = "Should be 1 to 64 letters, digits or any of _ . : -, and begin with a letter or digit"
        raise Invalid([Fault("schedule_id", ("path", "schedule_id"), message)])
    asked = checked(bodies.PutSchedule, body)
    spec = spec_of(asked)
    given = body["run"]
    faults = list(_run_faults(asked, given))
    if faults:
        raise Invalid(faults)
    sample = given
    if asked.run.session_id is not None:
        sample = {**given, "session_id": asked.run.session_id.replace(FIRE_AT, _SOME_TIME)}
    run, size = new_run(settings, caller, sample, at=("body", "run"))
    text = orjson.dumps(given).decode()
    item = PutSchedule(
        caller,
        schedule_id,
        put_key,
        spec,
        replace(run, session_id=asked.run.session_id),
        text,
        overlap=asked.overlap,
        buffer_most=asked.buffer_most,
        catch_up_seconds=asked.catch_up.within_seconds,
        catch_up_most=asked.catch_up.most,
        jitter_seconds=asked.jitter_seconds,
        most_fires=asked.most_fires,
        pause_after_failures=asked.pause_after_failures,
        note=asked.note,
        paused=asked.paused,
        expect_version=asked.expect_version,
        body_hash=body_hash(body),
    )
    return item, size + len(text)


def selection_of(asked: bodies.ChangeSchedules) -> Selection:
    """Return the schedules that a change of many is about: of a filter those that it would change. Raises Invalid."""
    at: Loc = ("body", "filter")
    if (asked.filter is None) == (asked.schedule_ids is None):
        raise Invalid([_fault(at, "Should be given, or schedule_ids in its place, and not both")])
    if asked.note is not None and asked.action != "pause":
        raise Invalid([_fault(("body", "note"), "Should be given with pause only")])
    if asked.filter is None:
        return Selection(tuple(dict.fromkeys(map(storable, asked.schedule_ids or ()))))
    if all(value is None for _, value in asked.filter):
        raise Invalid([_fault(at, 'Should name a condition; {"id_prefix": ""} stands for all schedules')])
    wanted = asked.filter
    prefix = None if wanted.id_prefix is None else storable(wanted.id_prefix)
    return Selection(None, wanted.paused, None if wanted.owner is None else storable(wanted.owner), prefix)


def spec_of(asked: bodies.ScheduleTimes, at: Loc = ("body",)) -> Spec:
    """Return the nominal times that a body asks for. Raises Invalid."""
    faults = list(_spec_faults(asked, at))
    if faults:
        raise Invalid(faults[:20])
    return Spec(
        tuple(asked.spec.cron),
        asked.spec.every_seconds,
        asked.spec.offset_seconds,
        tuple(asked.spec.at),
        frozenset(map(date.fromisoformat, asked.spec.excluded)),
        asked.timezone,
        asked.start_at,
        asked.end_at,
    )


def _spec_faults(asked: bodies.ScheduleTimes, at: Loc) -> Iterator[Fault]:
    spec = asked.spec
    if not (spec.cron or spec.every_seconds or spec.at):
        yield _fault((*at, "spec"), "Should have cron, every_seconds or at")
    if spec.offset_seconds and spec.every_seconds is None:
        yield _fault((*at, "spec", "offset_seconds"), "Should be given with every_seconds only")
    try:
        zone(asked.timezone)
    except UnknownZone:
        yield _fault((*at, "timezone"), "Should be a zone of the IANA database, like Europe/Berlin")
    for place, expression in enumerate(spec.cron):
        try:
            check_expression(expression)
        except BadExpression as refused:
            yield _fault((*at, "spec", "cron", place), str(refused))
    yield from _day_faults(spec.excluded, (*at, "spec", "except"))
    if asked.start_at is not None and asked.end_at is not None and asked.start_at >= asked.end_at:
        yield _fault((*at, "end_at"), "Should be later than start_at")


def _day_faults(days: Sequence[str], at: Loc) -> Iterator[Fault]:
    for place, day in enumerate(days):
        try:
            date.fromisoformat(day if _DAY.fullmatch(day) else "")
        except ValueError:
            yield _fault((*at, place), "Should be a day like 2026-12-25")


def _run_faults(asked: bodies.PutSchedule, given: Any) -> Iterator[Fault]:
    run, at = asked.run, ("body", "run")
    if given.get("not_before") is not None:
        yield _fault((*at, "not_before"), "Should not be given: each time of the schedule has its own")
    for label in (SCHEDULE_LABEL, FIRE_LABEL):
        if label in (run.labels or {}):
            yield _fault((*at, "labels", label), "Should not be given: the schedule sets it")
    if len(run.labels or {}) > MOST_LABELS:
        yield _fault((*at, "labels"), f"Should be {MOST_LABELS} at most, beside those that the schedule sets")
    if run.type == "start_session" and run.session_id is not None and FIRE_AT not in run.session_id:
        message = f"Should hold {FIRE_AT}, since each run starts a session of its own; or resume one"
        yield _fault((*at, "session_id"), message)


def _fault(loc: Loc, message: str) -> Fault:
    return Fault("schedule", loc, message)
