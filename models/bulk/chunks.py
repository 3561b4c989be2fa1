"""Chunks of bulks: a worker takes one, acts on its runs and records the progress, all in one transaction.

A chunk is a row that is deleted in the transaction that acts on it: a worker that is killed leaves it to the next one,
and none is acted on twice. The lock on the row of its bulk keeps other workers away from it.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from sqlalchemy import Connection, text

from models.bulk.actions import Acted, act
from models.bulk.jobs import MOST_ERRORS
from models.bulk.stored_search import read_search
from models.core.callers import Caller, Role
from models.core.limits import Limits
from models.core.statuses import BulkAction
from models.runs.replay import replay_runs
from models.runs.search import RunSearch
from models.runs.submit import NO_VARIABLES
from models.schema.sql import literals, sql

# Runs in one transaction. Deletes and replays write more for each.
CHUNK: Final = {
    BulkAction.STOP: 200,
    BulkAction.DELETE: 50,
    BulkAction.REPLAY: 50,
    BulkAction.HOLD: 200,
    BulkAction.RELEASE: 200,
}
# Let a bulk of replays be ahead of its pace by so much: longer than the interval in which workers look.
AHEAD_SECONDS: Final = 3.0
PAUSE_SECONDS: Final = 1.0
MOST_ATTEMPTS: Final = 5
# A bulk with so many runs that cannot be acted on for faults of ours is given up.
MOST_FAULTS: Final = 20


@dataclass(frozen=True, slots=True)
class Chunk:
    bulk_id: str
    chunk_id: int
    caller: Caller
    action: BulkAction
    run_ids: Sequence[str]
    attempts: int
    # JSON texts of the filter and the changes, read when the chunk is executed: one that cannot be read is its fault.
    search: str | None
    changes: str | None
    # Name of the caller, "" while authentication is off.
    name: str


@dataclass(frozen=True, slots=True)
class Executed:
    """Chunk that was acted on. ``runners``: those with stops to be told of; ``more``: others of the bulk are left."""

    bulk_id: str
    changed: int
    wakes_dispatch: bool
    wakes_callbacks: bool
    runners: frozenset[str]
    more: bool


# A caller's replays are done one bulk after the other, so that together they keep its pace.
_TAKE: Final = sql(
    """
    SELECT j.bulk_id, j.caller, j.role, j.owner, j.created_by, j.action, CAST(j.search AS text) AS search,
        CAST(j.changes AS text) AS changes,
        j.created_by LIKE 'key:%' AND EXISTS (
            SELECT 1 FROM api_keys k
            WHERE k.key_id = substr(j.created_by, 5)
              AND (k.revoked_at IS NOT NULL OR k.expires_at <= clock_timestamp())) AS key_has_ended
    FROM bulk_jobs j
    WHERE j.state = $BULK_RUNNING AND j.action IN $actions
      AND j.due_at <= clock_timestamp() + make_interval(secs => :ahead)
      AND NOT (j.action IN $replay AND EXISTS (
          SELECT 1 FROM bulk_jobs o
          WHERE o.state = $BULK_RUNNING AND o.action IN $replay AND o.caller = j.caller
            AND (o.created_at, o.bulk_id) < (j.created_at, j.bulk_id)))
    ORDER BY j.due_at LIMIT 1
    FOR UPDATE OF j SKIP LOCKED
    """,
    actions=literals(BulkAction),
    replay=literals([BulkAction.REPLAY]),
)

_NEXT: Final = text("""
    SELECT chunk_id, run_ids, attempts FROM bulk_chunks WHERE bulk_id = :bulk_id ORDER BY chunk_id LIMIT 1
""")

# Ordered, so that the planner reads the index also where this bulk has many chunks.
_IS_LAST: Final = text("""
    SELECT (SELECT chunk_id FROM bulk_chunks WHERE bulk_id = :bulk_id ORDER BY chunk_id LIMIT 1) IS NULL
""")

_DONE: Final = text("DELETE FROM bulk_chunks WHERE chunk_id = :chunk_id")

_PROGRESS: Final = text("""
    SELECT skipped, CAST(errors AS text) AS errors FROM bulk_jobs WHERE bulk_id = :bulk_id
""")

_RECORD: Final = sql("""
    UPDATE bulk_jobs
    SET done = done + :done, changed = changed + :changed, faults = faults + :faults,
        skipped = CAST(:skipped AS jsonb), errors = CAST(:errors AS json),
        due_at = greatest(due_at, clock_timestamp()) + make_interval(secs => :pause),
        state = CASE WHEN faults + :faults >= :most_faults THEN $BULK_FAILED
                     WHEN :is_last THEN $BULK_COMPLETED ELSE state END,
        ended_at = CASE WHEN :is_last OR faults + :faults >= :most_faults THEN clock_timestamp() END
    WHERE bulk_id = :bulk_id
""")

_LOCK: Final = sql("""
    SELECT EXISTS (SELECT 1 FROM bulk_chunks WHERE chunk_id = :chunk_id) AS is_there
    FROM bulk_jobs WHERE bulk_id = :bulk_id AND state = $BULK_RUNNING FOR UPDATE
""")

_STOP: Final = sql("UPDATE bulk_jobs SET state = $BULK_STOPPED, ended_at = clock_timestamp() WHERE bulk_id = :bulk_id")

_SPLIT: Final = text("""
    INSERT INTO bulk_chunks (bulk_id, run_ids, attempts)
    SELECT bulk_id, part.run_ids, attempts + :attempts
    FROM bulk_chunks CROSS JOIN LATERAL (
        VALUES (run_ids[1 : :half]), (run_ids[:half + 1 :])) AS part(run_ids)
    WHERE chunk_id = :chunk_id AND cardinality(part.run_ids) > 0
""")

_DROP: Final = sql("""
    DELETE FROM bulk_chunks WHERE bulk_id IN (
        SELECT bulk_id FROM bulk_jobs WHERE bulk_id = :bulk_id AND state IN $BULK_ENDED)
""")


def in_chunks(action: BulkAction, run_ids: Sequence[str], sessions: Mapping[str, str] | None = None) -> list[list[str]]:
    """Return the runs in chunks; with ``sessions``, theirs by run, those of one session together in one chunk."""
    size = CHUNK[action]
    if sessions is None:
        return [list(run_ids[start : start + size]) for start in range(0, len(run_ids), size)]
    by_session: dict[str, list[str]] = {}
    for run_id in run_ids:
        by_session.setdefault(sessions.get(run_id, run_id), []).append(run_id)
    chunks: list[list[str]] = []
    for runs in by_session.values():
        if not chunks or len(chunks[-1]) + len(runs) > size:
            chunks.append([])
        chunks[-1] += runs
    return chunks


def take_chunk(conn: Connection) -> Chunk | None:
    """Lock the bulk that is due and was served longest ago, and return its next chunk; None: no bulk is due and free.

    A bulk without a chunk is recorded as completed. One whose key was revoked, or has expired, is stopped.
    """
    while (job := conn.execute(_TAKE, {"ahead": AHEAD_SECONDS}).first()) is not None and job.key_has_ended:
        conn.execute(_STOP, {"bulk_id": job.bulk_id})
        conn.execute(_DROP, {"bulk_id": job.bulk_id})
    if job is None:
        return None
    row = conn.execute(_NEXT, {"bulk_id": job.bulk_id}).first()
    caller = Caller(Role(job.role), job.owner, job.created_by)
    chunk_id, run_ids, attempts = (0, [], 0) if row is None else (row.chunk_id, row.run_ids, row.attempts)
    action = BulkAction(job.action)
    return Chunk(job.bulk_id, chunk_id, caller, action, run_ids, attempts, job.search, job.changes, job.caller)


def execute_chunk(
    conn: Connection,
    chunk: Chunk,
    *,
    limits: Limits,
    most_demands: int = 0,
    submissions_per_minute: int = 0,
    environment: Mapping[str, str] = NO_VARIABLES,
) -> Executed:
    """Act on the runs of a chunk that this transaction took, and record it.

    Replays of a caller keep the pace of ``submissions_per_minute``; 0, and while authentication is off: none.
    """
    acted = act(
        conn,
        chunk.action,
        chunk.caller,
        chunk.run_ids,
        RunSearch() if chunk.search is None else read_search(chunk.search),
        {} if chunk.changes is None else json.loads(chunk.changes),
        limits=limits,
        replay=partial(replay_runs, max_depth=limits.max_depth, most_demands=most_demands, environment=environment),
    )
    conn.execute(_DONE, {"chunk_id": chunk.chunk_id})
    is_paced = chunk.action is BulkAction.REPLAY and submissions_per_minute and chunk.name
    pause = len(acted.changed) * 60 / submissions_per_minute if is_paced else 0.0
    is_last = _record(conn, chunk, acted, pause=pause)
    makes_ready = chunk.action in {BulkAction.REPLAY, BulkAction.RELEASE}
    wakes_dispatch = acted.ended_runs or (makes_ready and bool(acted.changed))
    return Executed(
        chunk.bulk_id, len(acted.changed), wakes_dispatch, acted.ended_runs, acted.runners, more=not is_last
    )


def set_chunk_aside(conn: Connection, chunk: Chunk, error: str, *, is_passing: bool) -> None:
    """Halve a chunk that failed, whose transaction was rolled back; of a single run record the error.

    A passing fault, such as a lock that was not granted in time, is tried 5 times first. A bulk with 20 runs that
    failed like that ends as failed.
    """
    there = conn.execute(_LOCK, {"bulk_id": chunk.bulk_id, "chunk_id": chunk.chunk_id}).first()
    if there is None or not there.is_there:
        return
    is_single = len(chunk.run_ids) <= 1
    if is_single and not (is_passing and chunk.attempts + 1 < MOST_ATTEMPTS):
        conn.execute(_DONE, {"chunk_id": chunk.chunk_id})
        failed = Acted(errors=dict.fromkeys(chunk.run_ids, error))
        _record(conn, chunk, failed, faults=1)
        return
    half = max(1, len(chunk.run_ids) // 2)
    conn.execute(_SPLIT, {"chunk_id": chunk.chunk_id, "half": half, "attempts": 1 if is_single else 0})
    conn.execute(_DONE, {"chunk_id": chunk.chunk_id})
    _record(conn, chunk, Acted(), pause=PAUSE_SECONDS if is_passing else 0.0)


def _record(conn: Connection, chunk: Chunk, acted: Acted, *, pause: float = 0.0, faults: int = 0) -> bool:
    """Record what was done; return whether it was the last chunk."""
    before = conn.execute(_PROGRESS, {"bulk_id": chunk.bulk_id}).one()
    skipped = Counter(before.skipped)
    skipped.update(map(str, acted.skipped.values()))
    errors = json.loads(before.errors)
    errors += [{"run_id": run_id, "error": error} for run_id, error in acted.errors.items()]
    is_last = bool(conn.execute(_IS_LAST, {"bulk_id": chunk.bulk_id}).scalar_one())
    conn.execute(
        _RECORD,
        {
            "bulk_id": chunk.bulk_id,
            "done": len(acted.changed) + len(acted.skipped) + len(acted.errors),
            "changed": len(acted.changed),
            "faults": faults,
            "skipped": json.dumps(skipped),
            "errors": json.dumps(errors[:MOST_ERRORS]),
            "pause": pause,
            "is_last": is_last,
            "most_faults": MOST_FAULTS,
        },
    )
    if faults:
        conn.execute(_DROP, {"bulk_id": chunk.bulk_id})
    return is_last
