"""Read the runs that ended, for their spans: a reader of our own feed, whose position commits before they are used."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, text

from models.schema.sql import sql

# Positions of one pass, whose spans the exporter's queue can hold; and how far behind a reader begins: after a long
# time without one, spans are left out.
MOST_EVENTS: Final = 2_000
MOST_BEHIND: Final = 100_000
# Last events of a run's session that are looked through for its attempts.
MOST_LOOKED_THROUGH: Final = 10_000


@dataclass(frozen=True, slots=True)
class RunStep:
    """Change of a run's status, of an attempt; ``runner_id`` has it from then on, ``reason`` is why it was requeued."""

    at: datetime
    status: str
    attempt: int
    runner_id: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class EndedRun:
    """Ended run of a sampled trace. ``steps``: its changes of status if it had several attempts, the oldest first."""

    run_id: str
    session_id: str
    type: str
    agent_name: str | None
    runner_id: str | None
    status: str
    error: str | None
    attempt: int
    traceparent: str
    created_at: datetime
    not_before: datetime | None
    claimed_at: datetime | None
    started_at: datetime | None
    completed_at: datetime
    steps: Sequence[RunStep] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class EndedRuns:
    """Runs of one pass. ``passed`` positions of the feed were read, ``left_out`` others before them were not."""

    runs: Sequence[EndedRun] = ()
    passed: int = 0
    left_out: int = 0


# Wait for no other reader: it exports the same runs.
_LOCK = text("""
    SELECT t.position, h.last_pos, h.floor
    FROM (SELECT position FROM trace_head FOR UPDATE SKIP LOCKED) t CROSS JOIN feed_head h
""")
_MOVE = text("UPDATE trace_head SET position = :upto")

_ENDED = sql("""
    SELECT r.run_id, r.session_id, r.type, r.agent_name, r.runner_id, r.status, r.error, r.attempt, r.traceparent,
        r.created_at, r.not_before, r.claimed_at, r.started_at, r.completed_at
    FROM runs r
    WHERE r.run_id = ANY(ARRAY(
        SELECT e.run_id FROM events e
        WHERE e.feed_pos > :after AND e.feed_pos <= :upto AND e.kind = 'run_updated'
          AND e.frame #>> '{run,status}' IN $TERMINAL))
      AND right(r.traceparent, 1) = '1' AND r.completed_at IS NOT NULL
""")

_STEPS = text("""
    SELECT w.run_id, s.created_at, CAST(s.frame AS text) AS frame
    FROM unnest(CAST(:run_ids AS text[]), CAST(:sessions AS text[])) AS w(run_id, session_id)
    CROSS JOIN LATERAL (
        SELECT e.feed_pos, e.kind, e.run_id, e.frame, e.created_at FROM events e
        WHERE e.session_id = w.session_id AND e.feed_pos <= :upto
        ORDER BY e.feed_pos DESC LIMIT :most
    ) s
    WHERE s.kind = 'run_updated' AND s.run_id = w.run_id
    ORDER BY s.feed_pos
""")


def next_ended_runs(conn: Connection, *, most: int = MOST_EVENTS) -> EndedRuns:
    """Move on by up to ``most`` positions of the feed, and return the runs of sampled traces that ended in between.

    Each run is returned once, whatever dies when: a reader that dies after the commit loses the spans of its pass.
    None are passed when nothing is new, or another transaction is at it. The head of the feed is not locked.
    """
    head = conn.execute(_LOCK).one_or_none()
    if head is None or head.last_pos <= head.position:
        return EndedRuns()
    after = max(head.position, head.floor, head.last_pos - MOST_BEHIND)
    upto = min(head.last_pos, after + most)
    rows = conn.execute(_ENDED, {"after": after, "upto": upto}).all()
    repeated = {row.run_id: row.session_id for row in rows if row.attempt > 1}
    steps = _steps(conn, repeated, upto) if repeated else {}
    conn.execute(_MOVE, {"upto": upto})
    runs = [EndedRun(**row._asdict(), steps=steps.get(row.run_id, ())) for row in rows]
    return EndedRuns(runs, passed=upto - after, left_out=after - head.position)


def _steps(conn: Connection, sessions: dict[str, str], upto: int) -> dict[str, list[RunStep]]:
    values = {"run_ids": list(sessions), "sessions": list(sessions.values()), "upto": upto, "most": MOST_LOOKED_THROUGH}
    found: dict[str, list[RunStep]] = {}
    for row in conn.execute(_STEPS, values):
        found.setdefault(row.run_id, []).append(_step(row.created_at, json.loads(row.frame)["run"]))
    return found


def _step(at: datetime, shown: dict[str, Any]) -> RunStep:
    return RunStep(at, shown["status"], shown["attempt"], shown["runner_id"], shown.get("reason") or shown["error"])
