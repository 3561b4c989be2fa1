"""No-match deadlines: how long no live registration has satisfied a ready run, and the failure of the run.

``demand_profiles.unmatched_since`` is NULL while a live registration satisfies the profile. A ready run fails
``no_match_timeout_seconds`` after that moment or its own readiness, whichever is later; recorded outages do not count.
A run that some registrations may not have again (``not_for``) has a moment of its own.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import text

from models.claims.fleet import Differences, Fleet, fleet_of
from models.core.statuses import RunStatus, RunType
from models.expiry.no_match import no_match_text
from models.expiry.steps import Pass, StepResult, each_session_once
from models.schema.sql import sql
from models.state.endings import unmatched
from models.state.locked_rows import LockedRun, LockedSession
from models.state.process_places import with_last_places
from models.state.transitions import move_runs
from models.state.try_locks import try_lock_runs

MOST_EXCLUDED: Final = 5_000
Gap = tuple[datetime, datetime]

# Leave locked rows to the next pass.
_STORE = text("""
    UPDATE demand_profiles p SET unmatched_since = CASE WHEN NOT held.matched THEN CAST(:now AS timestamptz) END
    FROM (SELECT d.profile_id, w.matched
          FROM unnest(CAST(:profiles AS bigint[]), CAST(:matched AS boolean[])) AS w(profile_id, matched)
          JOIN demand_profiles d ON d.profile_id = w.profile_id
          ORDER BY d.hash FOR NO KEY UPDATE OF d SKIP LOCKED) held
    WHERE p.profile_id = held.profile_id AND (p.unmatched_since IS NULL) <> held.matched
""")

# Find for each unmatched profile the distinct timeouts of its ready runs, each by one probe of the index.
_PATIENCES = sql("""
    WITH RECURSIVE levels AS (
        SELECT p.profile_id, p.unmatched_since, first.seconds
        FROM demand_profiles p
        CROSS JOIN LATERAL (
            SELECT r.no_match_timeout_seconds AS seconds FROM runs r
            WHERE r.status = $PENDING AND r.ready AND r.match_deadline_at IS NOT NULL
              AND CAST(r.not_for IS NOT NULL AS integer) = 0 AND r.profile_id = p.profile_id
            ORDER BY r.no_match_timeout_seconds LIMIT 1
        ) first
        WHERE p.unmatched_since < CAST(:now AS timestamptz)
        UNION ALL
        SELECT l.profile_id, l.unmatched_since, next.seconds
        FROM levels l
        CROSS JOIN LATERAL (
            SELECT r.no_match_timeout_seconds AS seconds FROM runs r
            WHERE r.status = $PENDING AND r.ready AND r.match_deadline_at IS NOT NULL
              AND CAST(r.not_for IS NOT NULL AS integer) = 0 AND r.profile_id = l.profile_id
              AND r.no_match_timeout_seconds > l.seconds
            ORDER BY r.no_match_timeout_seconds LIMIT 1
        ) next
        WHERE l.unmatched_since + make_interval(secs => l.seconds) <= CAST(:now AS timestamptz)
    )
    SELECT profile_id, unmatched_since, seconds FROM levels
    WHERE unmatched_since + make_interval(secs => seconds) <= CAST(:now AS timestamptz)
    LIMIT 20000
""")

_DUE = sql("""
    SELECT due.run_id
    FROM unnest(CAST(:profiles AS bigint[]), CAST(:seconds AS integer[]), CAST(:untils AS timestamptz[]))
        AS l(profile_id, seconds, until)
    CROSS JOIN LATERAL (
        SELECT r.run_id FROM runs r
        WHERE r.status = $PENDING AND r.ready AND r.match_deadline_at IS NOT NULL
          AND CAST(r.not_for IS NOT NULL AS integer) = 0 AND r.profile_id = l.profile_id
          AND r.no_match_timeout_seconds = l.seconds AND r.match_deadline_at <= l.until
        ORDER BY r.match_deadline_at LIMIT :most
    ) due
    LIMIT :most
""")

# Read in the order of the index; after a full page the next pass continues from its last profile.
_EXCLUDED = sql("""
    SELECT r.run_id, r.profile_id, r.not_for, r.unmatched_since, r.no_match_timeout_seconds, r.match_deadline_at
    FROM runs r
    WHERE r.status = $PENDING AND r.ready AND r.match_deadline_at IS NOT NULL
      AND CAST(r.not_for IS NOT NULL AS integer) = 1 AND r.profile_id >= :from_profile
    ORDER BY r.profile_id, r.no_match_timeout_seconds, r.match_deadline_at LIMIT :most
""")

_STORE_EXCLUDED = sql("""
    UPDATE runs r SET unmatched_since = CASE WHEN NOT held.matched THEN CAST(:now AS timestamptz) END
    FROM (SELECT d.run_id, w.matched
          FROM unnest(CAST(:run_ids AS text[]), CAST(:matched AS boolean[])) AS w(run_id, matched)
          JOIN runs d ON d.run_id = w.run_id
          WHERE d.status = $PENDING AND d.ready
          ORDER BY d.run_id FOR NO KEY UPDATE OF d SKIP LOCKED) held
    WHERE r.run_id = held.run_id AND r.status = $PENDING AND r.ready
""")

# Count recorded outages only: those of all runners are a guess, and one after the other might postpone the end for
# ever.
_GAPS = text("""
    SELECT started_at, ended_at FROM gaps WHERE ended_at > CAST(:since AS timestamptz) AND kind <> 'runners'
    ORDER BY started_at
""")

_PROFILES = text("SELECT run_id, profile_id FROM runs WHERE run_id = ANY(CAST(:run_ids AS text[]))")

_ABSENT = text("SELECT count(*) FROM runners WHERE left_at IS NULL")


def fail_unmatched(current: Pass) -> StepResult:
    """Store which profiles a live registration satisfies, and fail ready runs that none satisfied for too long.

    Registrations are read once more when the runs are locked: a run fails only if no registration that was committed by
    then satisfies it.
    """
    fleet = fleet_of(current.conn)
    _store(current, fleet.refresh(current.conn))
    found = [*_due(current), *_due_excluded(current, fleet)][: current.most]
    if not found:
        return StepResult({})
    locked = try_lock_runs(current.conn, found)
    fleet.refresh(current.conn)
    rows = current.conn.execute(_PROFILES, {"run_ids": list(locked.runs)})
    profiles: dict[str, int] = {row.run_id: row.profile_id for row in rows}

    def due(run: LockedRun) -> bool:
        waits = run.status == RunStatus.PENDING and run.ready
        return waits and not fleet.satisfies(profiles[run.run_id], run.excluded_registrations or ())

    runs = each_session_once(locked, found, due)
    sessions = with_last_places(current.conn, [locked.sessions[run.session_id] for run in runs])
    absent = current.conn.execute(_ABSENT).scalar_one() if fleet.empty else 0
    moves = [
        unmatched(run, error=_error(fleet, profiles[run.run_id], run, sessions[run.session_id], absent)) for run in runs
    ]
    return StepResult({"unmatched": len(move_runs(current.conn, moves).runs)}, len(found) >= current.most)


def _error(fleet: Fleet, profile_id: int, run: LockedRun, session: LockedSession, absent: int) -> str:
    demands = fleet.demands(profile_id)
    if demands is None:
        msg = f"profile {profile_id} is not known, so no run of it is due"
        raise ValueError(msg)
    resumed = session if run.type == RunType.RESUME else None
    return no_match_text(demands, fleet, excluded=run.excluded_registrations or (), session=resumed, absent=absent)


def _store(current: Pass, found: Differences) -> None:
    if found.matched or found.unmatched:
        values = {
            "profiles": [*found.matched, *found.unmatched],
            "matched": [True] * len(found.matched) + [False] * len(found.unmatched),
            "now": current.clocks.now,
        }
        current.conn.execute(_STORE, values)


def _due(current: Pass) -> list[str]:
    patiences = current.conn.execute(_PATIENCES, {"now": current.clocks.now}).all()
    if not patiences:
        return []
    latest = _Latest(current, min(row.unmatched_since for row in patiences))
    due = [row for row in patiences if row.unmatched_since <= latest.start(row.seconds)]
    values = {
        "profiles": [row.profile_id for row in due],
        "seconds": [row.seconds for row in due],
        "untils": [latest.start(row.seconds) + timedelta(seconds=row.seconds) for row in due],
    }
    return current.find(_DUE, **values) if due else []


@dataclass(frozen=True, slots=True)
class _Excluded:
    run_id: str
    profile_id: int
    not_for: list[int]
    unmatched_since: datetime | None
    no_match_timeout_seconds: int
    match_deadline_at: datetime

    @property
    def ready_at(self) -> datetime:
        return self.match_deadline_at - timedelta(seconds=self.no_match_timeout_seconds)


def _due_excluded(current: Pass, fleet: Fleet) -> list[str]:
    """Store since when runs with excluded registrations are satisfied by no other; return those past their deadline."""
    values = {"from_profile": fleet.excluded_from, "most": MOST_EXCLUDED}
    rows = [_Excluded(*row) for row in current.conn.execute(_EXCLUDED, values)]
    fleet.excluded_from = rows[-1].profile_id if len(rows) == MOST_EXCLUDED else 0
    if not rows:
        return []
    known: dict[tuple[int, tuple[int, ...]], bool] = {}
    for row in rows:
        group = (row.profile_id, tuple(row.not_for))
        if group not in known:
            known[group] = fleet.satisfies(*group)
    matched = {row.run_id: known[row.profile_id, tuple(row.not_for)] for row in rows}
    changed = [row.run_id for row in rows if matched[row.run_id] == (row.unmatched_since is not None)]
    if changed:
        now_matched = [matched[run_id] for run_id in changed]
        current.conn.execute(_STORE_EXCLUDED, {"run_ids": changed, "matched": now_matched, "now": current.clocks.now})
    since = {row.run_id: row.unmatched_since for row in rows if row.unmatched_since and not matched[row.run_id]}
    if not since:
        return []
    latest = _Latest(current, min(since.values()))
    return [
        row.run_id
        for row in rows
        if row.run_id in since and max(since[row.run_id], row.ready_at) <= latest.start(row.no_match_timeout_seconds)
    ]


class _Latest:
    def __init__(self, current: Pass, since: datetime) -> None:
        self._now = current.clocks.now
        self._known: dict[int, datetime] = {}
        rows = current.conn.execute(_GAPS, {"since": since}).all() if current.clocks.restarted_at else []
        self._gaps = merged((row.started_at, row.ended_at) for row in rows)

    def start(self, seconds: int) -> datetime:
        if seconds not in self._known:
            self._known[seconds] = latest_start(self._now, seconds, self._gaps)
        return self._known[seconds]


def merged(gaps: Iterable[Gap]) -> list[Gap]:
    result: list[Gap] = []
    for start, end in gaps:
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result


def latest_start(now: datetime, seconds: float, gaps: Sequence[Gap]) -> datetime:
    """Return the latest moment from which ``seconds`` have passed by ``now`` outside of gaps, which do not overlap."""
    left, until = timedelta(seconds=seconds), now
    for start, end in reversed(gaps):
        counted = max(until - end, timedelta(0))
        if counted >= left:
            break
        left -= counted
        until = min(start, until)
    return until - left
