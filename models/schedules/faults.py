"""Schedules whose decision failed by a fault: they must hold up neither the others nor themselves."""

from datetime import timedelta
from typing import Final

from sqlalchemy import Connection, text

from models.core.statuses import FireKind, FireOutcome
from models.schedules.decide import Decided, Rules, apply_plans, decide_locked, lock_due, lock_one, move_on
from models.schedules.fires import ChangedFire, change_fires, waiting_fires
from models.schedules.plan import Decision, Plan, State, due_now, next_look
from models.schedules.rows import Schedule, clock
from models.schedules.zones import TZ_VERSION
from models.schema.sql import sql

# Try again so much later, and for so long, when a lock was not free or a statement took too long.
AGAIN_SECONDS: Final = 5.0
PATIENCE: Final = timedelta(seconds=60)
MOST_MOVED: Final = 200

_POSTPONE: Final = text("""
    UPDATE schedules SET next_at = clock_timestamp() + make_interval(secs => :seconds) WHERE schedule_no = :number
""")

_GIVE_UP: Final = text("""
    UPDATE schedules
    SET paused = true, pause_reason = :reason, version = version + 1, updated_at = clock_timestamp()
    WHERE schedule_no = :number
""")

_OUTDATED: Final = sql("""
    SELECT schedule_no FROM schedules WHERE tz_version <> :tz_version ORDER BY schedule_no LIMIT :most
""")

_RECOMPUTED: Final = text("""
    UPDATE schedules SET next_fire_at = :next_fire_at, next_at = :next_at, tz_version = :tz_version
    WHERE schedule_no = :number
""")


def due_numbers(conn: Connection) -> list[int]:
    """Return the schedules that are due, to be decided one by one."""
    return [schedule.schedule_no for schedule in lock_due(conn)]


def decide_one(conn: Connection, schedule_no: int, rules: Rules) -> Decided:
    """Decide one schedule; nothing if it is gone, or locked by another transaction."""
    schedule = lock_one(conn, schedule_no)
    return Decided() if schedule is None else decide_locked(conn, [schedule], rules)


def set_aside(conn: Connection, schedule_no: int, reason: str, *, is_passing: bool) -> Decided:
    """Record what is due of a schedule as failed; a passing fault postpones it until it is a minute late, and
    too late to be caught up, and fails no fire that waits.

    Its next times are computed. One whose times cannot be computed is paused.
    """
    decided = Decided()
    schedule = lock_one(conn, schedule_no)
    if schedule is None or schedule.paused:
        return decided
    now = clock(conn)
    due_since = schedule.next_fire_at or now
    patience = max(PATIENCE, timedelta(seconds=schedule.catch_up_seconds))
    if is_passing and now - due_since - timedelta(seconds=schedule.jitter_seconds) < patience:
        if schedule.next_at is not None and schedule.next_at <= now:
            conn.execute(_POSTPONE, {"number": schedule_no, "seconds": AGAIN_SECONDS})
        return decided
    try:
        plan = _failed(schedule, reason, conn)
    except Exception:  # noqa: BLE001 -- whatever is wrong with it, people have to put it again
        conn.execute(_GIVE_UP, {"number": schedule_no, "reason": reason})
        return decided
    waiting = [] if is_passing else waiting_fires(conn, [schedule_no]).get(schedule_no, [])
    change_fires(
        conn,
        [ChangedFire((fire.schedule_no, fire.fire_at, fire.kind), FireOutcome.FAILED, reason) for fire in waiting],
        now,
    )
    plan.refused += sum(fire.kind == FireKind.DUE for fire in waiting)
    apply_plans(conn, [(schedule, plan)], now, Rules(), decided)
    move_on(conn, [(schedule, plan)], {schedule_no: State([], [], failures=schedule.failures)})
    return decided


def _failed(schedule: Schedule, reason: str, conn: Connection) -> Plan:
    due = due_now(schedule, clock(conn))
    plan = Plan()
    if due.last_missed is not None:
        failed = Decision(due.last_missed, FireKind.DUE, FireOutcome.FAILED, reason, due.missed, due.first_missed)
        plan.decisions.append(failed)
    plan.decisions += [Decision(moment, FireKind.DUE, FireOutcome.FAILED, reason) for moment in due.times]
    plan.decided_until = max([schedule.decided_until, *(each.fire_at for each in plan.decisions)])
    plan.next_fire_at, plan.next_at = next_look(schedule, plan.decided_until)
    return plan


def recompute_times(conn: Connection) -> int:
    """Compute the next times of schedules again whose zones came from another version of tzdata; return how many.

    What has been decided stands.
    """
    values = {"tz_version": TZ_VERSION, "most": MOST_MOVED}
    found = [lock_one(conn, number) for number in conn.execute(_OUTDATED, values).scalars().all()]
    locked = [schedule for schedule in found if schedule is not None]
    for schedule in locked:
        try:
            fire_at, look = next_look(schedule, schedule.decided_until)
        except Exception:  # noqa: BLE001 -- found again, and set aside, when it is due
            fire_at, look = schedule.next_fire_at, schedule.next_at
        fresh = {"number": schedule.schedule_no, "next_fire_at": fire_at, "next_at": look, "tz_version": TZ_VERSION}
        conn.execute(_RECOMPUTED, fresh)
    return len(locked)
