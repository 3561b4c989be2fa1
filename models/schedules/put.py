"""Create and replace schedules. A change counts from its commit on: what was due before is decided by what was."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection

from models.auth.audit import Act, audited_act, record_acts
from models.core.callers import Caller
from models.core.errors import (
    CoordinatorError,
    KeyReused,
    NotFound,
    ScheduleExists,
    TooManySchedules,
    VersionConflict,
)
from models.core.rounds import in_rounds
from models.core.statuses import RunType
from models.runs.submission import NewRun, refused_by
from models.runs.submit import agents_by_name
from models.schedules.decide import Decided, Rules, decide_locked
from models.schedules.keys import ChangeKey, is_repeat, store_keys
from models.schedules.rows import COLUMNS, Schedule, clock, lock_schedules
from models.schedules.spec import Spec, write_spec
from models.schedules.templates import write_template
from models.schedules.times import jitter, next_time
from models.schedules.zones import TZ_VERSION
from models.schema.sql import sql
from models.state.visibility import owner_filter

MOST_PER_OWNER: Final = 1_000
MOST_WITHOUT_OWNER: Final = 10_000


@dataclass(frozen=True, slots=True)
class PutSchedule:
    """Schedule as it is to be. ``put_key`` was made before the first try; ``given`` is the run as JSON text.

    ``body_hash`` tells a repeat from another request with the same key.

    ``paused`` None leaves it as it is. ``expect_version`` 0: it must be new. ``satisfied_schema`` as in ``NewRun``.
    """

    caller: Caller
    schedule_id: str
    put_key: str
    spec: Spec
    run: NewRun
    given: str
    overlap: str = "skip"
    buffer_most: int = 100
    catch_up_seconds: int = 3600
    catch_up_most: int = 1
    jitter_seconds: int = 0
    most_fires: int | None = None
    pause_after_failures: int | None = None
    note: str = ""
    paused: bool | None = None
    expect_version: int | None = None
    satisfied_schema: str | None = None
    body_hash: str = ""

    @property
    def key(self) -> ChangeKey:
        return ChangeKey("put schedule", self.caller, self.schedule_id, self.put_key, self.body_hash)


@dataclass(frozen=True, slots=True)
class Changed:
    """Schedule after a change, and what was decided by the way."""

    schedule: Schedule
    created: bool = False
    decided: Decided = field(default_factory=Decided)


PutResult: TypeAlias = Changed | CoordinatorError

_COUNT: Final = sql("""
    SELECT count(*) FROM (SELECT 1 FROM schedules WHERE owner IS NOT DISTINCT FROM :owner LIMIT :most) s
""")

_SET = """
    created_by = :created_by, put_key = :put_key, spec = CAST(:spec AS json), timezone = :timezone,
    start_at = :start_at, end_at = :end_at, run = CAST(:run AS json), template = CAST(:template AS json),
    overlap = :overlap, buffer_most = :buffer_most, catch_up_seconds = :catch_up_seconds,
    catch_up_most = :catch_up_most, jitter_seconds = :jitter_seconds, most_fires = :most_fires,
    pause_after_failures = :pause_after_failures, note = :note, paused = :paused, pause_reason = :pause_reason,
    decided_until = :now, next_fire_at = :next_fire_at, next_at = :next_at, tz_version = :tz_version,
    updated_at = :now, failures = 0
"""

_CREATE: Final = sql(
    """
    INSERT INTO schedules AS s (schedule_id, owner, created_by, put_key, spec, timezone, start_at, end_at, run,
        template, overlap, buffer_most, catch_up_seconds, catch_up_most, jitter_seconds, most_fires,
        pause_after_failures, note, paused, pause_reason, decided_until, next_fire_at, next_at, tz_version)
    VALUES (:schedule_id, :owner, :created_by, :put_key, CAST(:spec AS json), :timezone, :start_at, :end_at,
        CAST(:run AS json), CAST(:template AS json), :overlap, :buffer_most, :catch_up_seconds, :catch_up_most,
        :jitter_seconds, :most_fires, :pause_after_failures, :note, :paused, :pause_reason, :now, :next_fire_at,
        :next_at, :tz_version)
    ON CONFLICT (schedule_id) DO NOTHING
    RETURNING $columns
    """,
    columns=COLUMNS,
)

_REPLACE: Final = sql(
    "UPDATE schedules s SET version = s.version + 1, $set WHERE s.schedule_id = :schedule_id RETURNING $columns",
    set=_SET,
    columns=COLUMNS,
)


def put_schedules(conn: Connection, items: Sequence[PutSchedule], *, rules: Rules) -> list[PutResult]:
    """Create or replace each schedule. Safe to repeat with the same ``put_key``, also after later changes.

    Errors: ScheduleExists for another owner's, VersionConflict, NotFound for one that should be there by
    ``expect_version`` or was deleted since the first try, KeyReused, TooManySchedules, and of its agent SchemaUnchecked
    and PromptRequired. A schedule keeps its owner. Acts of admins on others' are audited.
    """
    results: dict[int, PutResult] = {}
    for places in in_rounds(item.schedule_id for item in items):
        results |= _put(conn, {place: items[place] for place in places}, rules)
    return [results[place] for place in range(len(items))]


def _put(conn: Connection, items: Mapping[int, PutSchedule], rules: Rules) -> dict[int, PutResult]:
    """Lock or create all of them, each once, before anything is decided: in one order of locks."""
    results: dict[int, PutResult] = {}
    changing: dict[int, Schedule] = {}
    for place in sorted(items, key=lambda place: items[place].schedule_id):
        item = items[place]
        found = _refused_by_agent(conn, item) or _lock_or_create(conn, item)
        if isinstance(found, Schedule):
            found = _answered(conn, item, found) or found
        if isinstance(found, Schedule):
            changing[place] = found
        else:
            results[place] = found
    created = [items[place].key for place, result in results.items() if isinstance(result, Changed) and result.created]
    replaced = _replace(conn, {place: items[place] for place in changing}, list(changing.values()), rules)
    store_keys(conn, [*created, *(items[place].key for place in changing)])
    return results | replaced


def _lock_or_create(conn: Connection, item: PutSchedule) -> Schedule | PutResult:
    found = lock_schedules(conn, [item.schedule_id]).get(item.schedule_id)
    if found is not None:
        return found
    # Not to be created again: it was deleted since.
    repeats = is_repeat(conn, item.key)
    if repeats:
        return repeats if isinstance(repeats, KeyReused) else NotFound("schedule", item.schedule_id)
    created = _create(conn, item)
    # Or else another transaction has created it meanwhile.
    return lock_schedules(conn, [item.schedule_id])[item.schedule_id] if created is None else created


def _answered(conn: Connection, item: PutSchedule, found: Schedule) -> PutResult | None:
    """Return the answer to a request that does not change the schedule; None for one that does."""
    if owner_filter(item.caller) not in {None, found.owner}:
        return ScheduleExists(item.schedule_id)
    repeats = is_repeat(conn, item.key)
    if isinstance(repeats, KeyReused):
        return repeats
    if repeats or found.put_key == item.put_key:
        return Changed(found, created=found.version == 1)
    if item.expect_version is not None and item.expect_version != found.version:
        return VersionConflict(item.schedule_id, found.version)
    return None


def _create(conn: Connection, item: PutSchedule) -> PutResult | None:
    if item.expect_version:
        return NotFound("schedule", item.schedule_id)
    most = MOST_WITHOUT_OWNER if item.caller.owner is None else MOST_PER_OWNER
    if conn.execute(_COUNT, {"owner": item.caller.owner, "most": most}).scalar_one() >= most:
        return TooManySchedules(most)
    values = {**_values(item, clock(conn), fires_left=item.most_fires), "owner": item.caller.owner}
    row = conn.execute(_CREATE, {**values, "paused": bool(item.paused), "pause_reason": None}).first()
    if row is None:
        return None
    _audit(conn, item, Schedule(*row))
    return Changed(Schedule(*row), created=True)


def _replace(
    conn: Connection, items: Mapping[int, PutSchedule], locked: Sequence[Schedule], rules: Rules
) -> dict[int, PutResult]:
    """Decide what was due of all of them, then replace them; the first result has the decisions."""
    if not items:
        return {}
    now = clock(conn)
    decided = decide_locked(conn, locked, rules, until=now)
    as_decided = lock_schedules(conn, [item.schedule_id for item in items.values()])
    results: dict[int, PutResult] = {}
    for place, item in items.items():
        found = as_decided[item.schedule_id]
        left = None if item.most_fires is None else max(0, item.most_fires - found.fired)
        paused = found.paused if item.paused is None else item.paused
        values = {
            **_values(item, now, fires_left=left),
            "paused": paused,
            "pause_reason": found.pause_reason if paused else None,
        }
        changed = Schedule(*conn.execute(_REPLACE, values).one())
        _audit(conn, item, changed)
        results[place] = Changed(changed, decided=Decided() if results else decided)
    return results


def _values(item: PutSchedule, now: datetime, *, fires_left: int | None) -> dict[str, Any]:
    moment = None if fires_left == 0 else next_time(item.spec, now)
    look = None
    if moment is not None:
        following = next_time(item.spec, moment) if item.jitter_seconds else None
        look = moment + jitter(item.schedule_id, moment, following, item.jitter_seconds)
    return {
        "schedule_id": item.schedule_id,
        "created_by": item.caller.by,
        "put_key": item.put_key,
        "spec": write_spec(item.spec),
        "timezone": item.spec.timezone,
        "start_at": item.spec.start_at,
        "end_at": item.spec.end_at,
        "run": item.given,
        "template": write_template(item.run, item.satisfied_schema),
        "overlap": item.overlap,
        "buffer_most": item.buffer_most,
        "catch_up_seconds": item.catch_up_seconds,
        "catch_up_most": item.catch_up_most,
        "jitter_seconds": item.jitter_seconds,
        "most_fires": item.most_fires,
        "pause_after_failures": item.pause_after_failures,
        "note": item.note,
        "now": now,
        "next_fire_at": moment,
        "next_at": look,
        "tz_version": TZ_VERSION,
    }


def _refused_by_agent(conn: Connection, item: PutSchedule) -> CoordinatorError | None:
    """Check the parameters by the agent that provides the name now, as a submission would."""
    run = item.run
    if run.type is not RunType.START:
        return None
    agent = None if run.agent_name is None else agents_by_name(conn, [run.agent_name])[run.agent_name]
    return refused_by(replace(run, satisfied_schema=item.satisfied_schema), agent)


def _audit(conn: Connection, item: PutSchedule, schedule: Schedule) -> None:
    record_acts(conn, audited_act(item.caller, Act.SCHEDULE_PUT, item.schedule_id, schedule.owner))
