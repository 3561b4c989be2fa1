"""Schedules by their verbs. Time passes by moving what is stored into the past."""

from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any

from models.core.callers import ADMIN, Caller
from models.core.errors import CoordinatorError
from models.core.ids import new_id
from models.core.statuses import RunType
from models.runs.submission import NewRun
from models.schedules.control import SetPaused, Trigger, Triggered, set_paused, trigger_schedules
from models.schedules.decide import Decided, Rules, decide_due
from models.schedules.put import Changed, PutSchedule, put_schedules
from models.schedules.rows import FIRE_SHOWN, FIRES, Fire, Schedule
from models.schedules.spec import Spec, write_spec
from models.schema.sql import sql
from tests.support.db_verbs import PARAMETERS, DbVerbs

RULES = Rules()

_FIRES = sql("SELECT $shown FROM $fires ORDER BY f.schedule_no, f.fire_at, f.kind", shown=FIRE_SHOWN, fires=FIRES)


def now_of(db: DbVerbs) -> datetime:
    moment: datetime = db.one("SELECT date_trunc('second', clock_timestamp())")
    return moment


def ago(db: DbVerbs, *seconds: float) -> Spec:
    """Return single times so many seconds ago."""
    now = now_of(db)
    return Spec(at=tuple(now - timedelta(seconds=each) for each in seconds))


def days(*texts: str) -> frozenset[date]:
    return frozenset(map(date.fromisoformat, texts))


def new_run(**values: Any) -> NewRun:
    given: dict[str, Any] = {"session_id": None, "type": RunType.START, "parameters": PARAMETERS, **values}
    return NewRun(new_id("run_"), new_session_id=new_id("ses_"), caller=Caller(), **given)


def put(
    db: DbVerbs,
    schedule_id: str,
    spec: Spec,
    *,
    caller: Caller = ADMIN,
    run: NewRun | None = None,
    key: str | None = None,
    rules: Rules = RULES,
    **values: Any,
) -> Changed | CoordinatorError:
    item = PutSchedule(caller, schedule_id, key or new_id("put_"), spec, run or new_run(), "{}", **values)
    (result,) = db.do(put_schedules, [item], rules=rules)
    return result


def made(db: DbVerbs, schedule_id: str, spec: Spec, *, back: float = 0, **values: Any) -> Schedule:
    """Put a schedule, whose last decision was so many seconds ago."""
    result = put(db, schedule_id, spec, **values)
    assert isinstance(result, Changed), result
    if back:
        rewind(db, schedule_id, back)
    return result.schedule


def rewind(db: DbVerbs, schedule_id: str, seconds: float) -> None:
    """Have nothing been decided for so many seconds, and the schedule be due."""
    db.rows(
        "UPDATE schedules SET decided_until = clock_timestamp() - make_interval(secs => :s),"
        " next_at = clock_timestamp() - interval '1 second', next_fire_at = clock_timestamp() - interval '1 second'"
        " WHERE schedule_id = :id",
        s=seconds,
        id=schedule_id,
    )


def respec(db: DbVerbs, schedule_id: str, spec: Spec, back: float) -> None:
    """Give the schedule other times without a change of it, and have nothing been decided for so many seconds."""
    db.rows("UPDATE schedules SET spec = CAST(:s AS json) WHERE schedule_id = :id", s=write_spec(spec), id=schedule_id)
    rewind(db, schedule_id, back)


def decide(db: DbVerbs, rules: Rules = RULES, most: int = 50) -> Decided:
    return db.do(decide_due, rules, most)


def fires(db: DbVerbs) -> list[Fire]:
    with db.engine.begin() as connection:
        return [Fire(*row) for row in connection.execute(_FIRES)]


def outcomes(db: DbVerbs) -> list[str]:
    return [fire.outcome for fire in fires(db)]


def ledger(db: DbVerbs) -> Counter[tuple[str, str]]:
    """Return how many runs there are for each schedule and nominal time, by the labels of the runs."""
    rows = db.rows("SELECT labels->>'schedule' AS id, labels->>'fire_at' AS at FROM runs WHERE labels ? 'schedule'")
    return Counter((row.id, row.at) for row in rows)


def state(db: DbVerbs, schedule_id: str) -> Any:
    (row,) = db.rows("SELECT * FROM schedules WHERE schedule_id = :id", id=schedule_id)
    return row


def pause(db: DbVerbs, schedule_id: str, *, paused: bool = True, caller: Caller = ADMIN, **values: Any) -> Any:
    (result,) = db.do(set_paused, [SetPaused(caller, schedule_id, paused, **values)], rules=RULES)
    return result


def trigger(db: DbVerbs, schedule_id: str, request: str = "", **values: Any) -> Any:
    item = Trigger(ADMIN, schedule_id, request or new_id("fir_"), **values)
    (result,) = db.do(trigger_schedules, [item], rules=RULES)
    return result.fire if isinstance(result, Triggered) else result


def run_ids(found: Sequence[Fire]) -> list[str]:
    return [fire.run_id for fire in found if fire.run_id is not None]


def end(db: DbVerbs, run_id: str, status: str = "completed") -> None:
    """Let a run end, whatever executed it."""
    db.rows(
        "UPDATE runs SET status = :s, ready = false, match_deadline_at = NULL, completed_at = now() WHERE run_id = :r",
        s=status,
        r=run_id,
    )
