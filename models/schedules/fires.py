"""Statements on the decisions of schedules whose rows are locked."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, text

from models.schedules.plan import Decision
from models.schedules.rows import FIRE_SHOWN, FIRES, Fire, Schedule
from models.schema.columns import array_rows
from models.schema.sql import sql
from models.schema.tables import schedule_fires

# Buffered fires of a schedule that a pass looks at.
MOST_WAITING: Final = 200
QUOTA_SECONDS: Final = 60.0
DELETED: Final = "deleted"

# Of runs that have ended, and of those that are gone.
_SETTLE: Final = sql("""
    UPDATE schedule_fires f SET run_status = coalesce(o.status, :deleted)
    FROM (SELECT w.schedule_no, w.fire_at, w.kind, r.status FROM schedule_fires w
          LEFT JOIN runs r ON r.run_id = w.run_id
          WHERE w.schedule_no = ANY(CAST(:schedules AS bigint[])) AND w.outcome = $FIRE_SUBMITTED
            AND w.run_status IS NULL AND (r.run_id IS NULL OR r.status IN $TERMINAL)) o
    WHERE f.schedule_no = o.schedule_no AND f.fire_at = o.fire_at AND f.kind = o.kind
    RETURNING f.schedule_no, f.fire_at, f.run_status
""")

_OPEN: Final = sql("""
    SELECT schedule_no, run_id FROM schedule_fires
    WHERE schedule_no = ANY(CAST(:schedules AS bigint[])) AND outcome = $FIRE_SUBMITTED AND run_status IS NULL
    ORDER BY schedule_no, fire_at
""")

_WAITING: Final = sql(
    """
    SELECT waiting.*
    FROM unnest(CAST(:schedules AS bigint[])) AS wanted(schedule_no)
    CROSS JOIN LATERAL (
        SELECT $shown FROM $fires WHERE f.schedule_no = wanted.schedule_no AND f.outcome = $FIRE_BUFFERED
        ORDER BY f.fire_at LIMIT :most) waiting
    """,
    shown=FIRE_SHOWN,
    fires=FIRES,
)

_SPENT: Final = text("""
    SELECT owner, count(*) AS number FROM schedule_fires
    WHERE owner = ANY(CAST(:owners AS text[]))
      AND submitted_at > statement_timestamp() - make_interval(secs => :seconds)
    GROUP BY owner
""")

_ADDED = (
    "schedule_no",
    "fire_at",
    "kind",
    "outcome",
    "reason",
    "run_id",
    "times",
    "first_fire_at",
    "waits",
    "request",
    "owner",
    "decided_at",
    "submitted_at",
)
_ADD: Final = sql(
    """
    INSERT INTO schedule_fires ($columns) SELECT $values FROM unnest($arrays) AS n($columns)
    ORDER BY n.schedule_no, n.fire_at, n.kind
    ON CONFLICT DO NOTHING
    RETURNING schedule_no, fire_at, kind
    """,
    **array_rows("n", schedule_fires, _ADDED),
)

_CHANGE: Final = text("""
    UPDATE schedule_fires f
    SET outcome = n.outcome, reason = n.reason, run_id = n.run_id, submitted_at = n.submitted_at
    FROM unnest(CAST(:schedules AS bigint[]), CAST(:moments AS timestamptz[]), CAST(:kinds AS text[]),
                CAST(:outcomes AS text[]), CAST(:reasons AS text[]), CAST(:runs AS text[]),
                CAST(:submitted AS timestamptz[]))
        AS n(schedule_no, fire_at, kind, outcome, reason, run_id, submitted_at)
    WHERE f.schedule_no = n.schedule_no AND f.fire_at = n.fire_at AND f.kind = n.kind
""")

FireKey = tuple[int, datetime, str]


@dataclass(frozen=True, slots=True)
class NewFire:
    """Decision to store; ``run_id`` of the run that will be submitted for it."""

    schedule: Schedule
    decision: Decision
    run_id: str | None = None

    @property
    def key(self) -> FireKey:
        return self.schedule.schedule_no, self.decision.fire_at, self.decision.kind


@dataclass(frozen=True, slots=True)
class ChangedFire:
    key: FireKey
    outcome: str
    reason: str | None = None
    run_id: str | None = None


def settle(conn: Connection, numbers: Collection[int]) -> list[tuple[int, str]]:
    """Note the ends of runs; return schedule and status of each, in the order of their fires."""
    rows = conn.execute(_SETTLE, {"schedules": list(numbers), "deleted": DELETED}).all()
    return [(row.schedule_no, row.run_status) for row in sorted(rows, key=lambda row: row.fire_at)]


def open_runs(conn: Connection, numbers: Collection[int]) -> dict[int, list[str]]:
    """Return the unfinished runs of the schedules, whose ends are settled."""
    found: dict[int, list[str]] = defaultdict(list)
    for row in conn.execute(_OPEN, {"schedules": list(numbers)}):
        found[row.schedule_no].append(row.run_id)
    return found


def waiting_fires(conn: Connection, numbers: Collection[int]) -> dict[int, list[Fire]]:
    """Return the oldest buffered fires of each schedule."""
    found: dict[int, list[Fire]] = defaultdict(list)
    for row in conn.execute(_WAITING, {"schedules": list(numbers), "most": MOST_WAITING}):
        found[row.schedule_no].append(Fire(*row))
    return found


def quota_left(conn: Connection, owners: Iterable[str], a_minute: int) -> Counter[str]:
    """Return how many submissions of schedules each owner has left in this minute."""
    wanted = sorted(set(owners))
    if not wanted:
        return Counter()
    spent = conn.execute(_SPENT, {"owners": wanted, "seconds": QUOTA_SECONDS})
    left = Counter(dict.fromkeys(wanted, a_minute))
    left.subtract({row.owner: row.number for row in spent})
    return left


def add_fires(conn: Connection, fires: Sequence[NewFire], now: datetime) -> set[FireKey]:
    """Store the decisions; return those that were not there."""
    if not fires:
        return set()
    decisions = [fire.decision for fire in fires]
    rows = conn.execute(
        _ADD,
        {
            "schedule_no": [fire.schedule.schedule_no for fire in fires],
            "fire_at": [each.fire_at for each in decisions],
            "kind": [each.kind.value for each in decisions],
            "outcome": [each.outcome.value for each in decisions],
            "reason": [each.reason for each in decisions],
            "run_id": [fire.run_id for fire in fires],
            "times": [each.times for each in decisions],
            "first_fire_at": [each.first_fire_at for each in decisions],
            "waits": [each.waits for each in decisions],
            "request": [each.request for each in decisions],
            "owner": [fire.schedule.owner for fire in fires],
            "decided_at": [now for _ in fires],
            "submitted_at": [None if fire.run_id is None else now for fire in fires],
        },
    )
    return {(row.schedule_no, row.fire_at, row.kind) for row in rows}


def change_fires(conn: Connection, changes: Sequence[ChangedFire], now: datetime) -> None:
    if not changes:
        return
    conn.execute(
        _CHANGE,
        {
            "schedules": [change.key[0] for change in changes],
            "moments": [change.key[1] for change in changes],
            "kinds": [change.key[2] for change in changes],
            "outcomes": [change.outcome for change in changes],
            "reasons": [change.reason for change in changes],
            "runs": [change.run_id for change in changes],
            "submitted": [None if change.run_id is None else now for change in changes],
        },
    )
