from datetime import datetime, timedelta
from typing import Any

from app.http.serializers import stored
from models.schedules.control import Backfilled
from models.schedules.listing import ShownSchedule
from models.schedules.rows import Fire
from models.schedules.spec import Spec
from models.schedules.times import HORIZON, due_times
from models.state.runs import iso


def schedule_json(shown: ShownSchedule, *, with_run: bool = True) -> dict[str, Any]:
    schedule = shown.schedule
    state = "paused" if schedule.paused else "active"
    if not schedule.paused and schedule.next_at is None and not schedule.has_buffered:
        state = "ended"
    written: dict[str, Any] = {
        "schedule_id": schedule.schedule_id,
        "owner": schedule.owner,
        "created_by": schedule.created_by,
        "version": schedule.version,
        "state": state,
        "spec": stored(schedule.spec),
        "timezone": schedule.timezone,
        "start_at": iso(schedule.start_at),
        "end_at": iso(schedule.end_at),
        "overlap": schedule.overlap,
        "buffer_most": schedule.buffer_most,
        "catch_up": {"within_seconds": schedule.catch_up_seconds, "most": schedule.catch_up_most},
        "jitter_seconds": schedule.jitter_seconds,
        "most_fires": schedule.most_fires,
        "pause_after_failures": schedule.pause_after_failures,
        "note": schedule.note,
        "paused": schedule.paused,
        "pause_reason": schedule.pause_reason,
        "fired": schedule.fired,
        "failures": schedule.failures,
        "next_fire_at": None if schedule.paused else iso(schedule.next_fire_at),
        "newest_fire": None if shown.newest is None else fire_json(shown.newest),
        "created_at": iso(schedule.created_at),
        "updated_at": iso(schedule.updated_at),
    }
    return written | {"run": stored(schedule.run)} if with_run else written


def fire_json(fire: Fire) -> dict[str, Any]:
    return {
        "fire_at": iso(fire.fire_at),
        "kind": fire.kind,
        "outcome": fire.outcome,
        "reason": fire.reason,
        "run_id": fire.run_id,
        "run_status": fire.run_status,
        "times": fire.times,
        "first_fire_at": iso(fire.first_fire_at),
        "decided_at": iso(fire.decided_at),
        "submitted_at": iso(fire.submitted_at),
    }


def next_times_json(spec: Spec, after: datetime, count: int) -> dict[str, Any]:
    """Return the next times, each with a note where the zone's offset differs from that of the time before."""
    begin = after if spec.start_at is None else max(after, spec.start_at)
    before = begin.astimezone(spec.zone).utcoffset()
    times: list[dict[str, Any]] = []
    for moment in due_times(spec, after, begin + HORIZON, count):
        local = moment.astimezone(spec.zone)
        offset = local.utcoffset()
        note = None if offset == before else f"{_offset_text(offset)}, before {_offset_text(before)}"
        times.append({"fire_at": iso(moment), "local": local.isoformat(), "note": note})
        before = offset
    return {"timezone": spec.timezone, "times": times}


def backfill_json(planned: Backfilled, *, dry_run: bool) -> dict[str, Any]:
    return {
        "times": len(planned.times),
        "already": planned.already,
        "more": planned.more,
        "first": iso(planned.times[0]) if planned.times else None,
        "last": iso(planned.times[-1]) if planned.times else None,
        "dry_run": dry_run,
    }


def _offset_text(offset: timedelta | None) -> str:
    minutes = int((offset or timedelta(0)).total_seconds()) // 60
    sign = "-" if minutes < 0 else "+"
    return f"UTC{sign}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
