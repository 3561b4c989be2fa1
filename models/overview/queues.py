"""Queues: unfinished runs by their demands, with the runners that match and the rate of claims."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, text

from models.claims.matching import OFFER_COLUMNS_OF_N, Demands, match_sets, offer_of, read_demands
from models.core.callers import Caller
from models.core.limits import DEFAULT_LIMITS, Limits
from models.overview.measures import Measure
from models.overview.rollup import BY_PROFILE, MINUTE, rows_of
from models.runners.listing import IS_KNOWN, IS_ONLINE, TOLD, TOLD_CAPACITY
from models.schema.sql import sql
from models.state.unfinished import IN_HAND_OF_N, CountedBy, count_in_hand, count_pending
from models.state.visibility import owner_filter

MOST_QUEUES: Final = 500
RATE_MINUTES: Final = 5

_DEMANDS = text("""
    SELECT profile_id, hostname, project_dir, executor_profile, executor_type, tags
    FROM demand_profiles WHERE profile_id = ANY(CAST(:profiles AS bigint[]))
""")

_RUNNERS = sql(
    """
    SELECT $capacity AS capacity, $is_online AS is_online, n.draining_since IS NOT NULL AS draining,
        coalesce(hand.runs, 0) AS in_hand, $offer
    FROM runners n
    JOIN $told
    LEFT JOIN $in_hand_of_n
    WHERE $is_known AND n.leave_requested_at IS NULL
    """,
    is_online=IS_ONLINE,
    told=TOLD,
    is_known=IS_KNOWN,
    in_hand_of_n=IN_HAND_OF_N,
    capacity=TOLD_CAPACITY,
    offer=OFFER_COLUMNS_OF_N,
)

# The minute under way counts by its part; the one before the first is left out.
_CLAIMS = text("""
    SELECT CAST(t.label AS bigint) AS profile_id, sum(t.number) AS number FROM run_totals t
    WHERE t.step = :step AND t.grouped_by = :grouped_by AND t.owner = :owner AND t.measure = :measure
      AND t.period > now() - make_interval(mins => :minutes)
    GROUP BY t.label
""")


@dataclass(slots=True)
class Matching:
    """Known runners that satisfy the demands. ``free_slots`` and ``full`` are of online ones with a capacity;
    ``unlimited`` are online ones without. Lost ones count as stale, those online that drain as ``draining`` only.
    """

    online: int = 0
    stale: int = 0
    draining: int = 0
    full: int = 0
    free_slots: int = 0
    unlimited: int = 0


@dataclass(frozen=True, slots=True)
class Queue:
    """Unfinished runs with the same demands. ``waiting`` ones are pending and not ready."""

    profile_id: int
    demands: Demands
    ready: int
    oldest_ready_at: datetime | None
    waiting: int
    in_hand: int
    runners: Matching
    claims_per_minute: float

    @property
    def eta_seconds(self) -> float | None:
        """Seconds until the last ready run is claimed at the rate of the last minutes; None without a rate."""
        return None if not self.ready or not self.claims_per_minute else 60 * self.ready / self.claims_per_minute


@dataclass(frozen=True, slots=True)
class Queues:
    queues: list[Queue]
    truncated: bool


def read_queues(conn: Connection, caller: Caller, *, limits: Limits = DEFAULT_LIMITS) -> Queues:
    """Return the queues of the caller's runs, of all for an admin, the longest MOST_QUEUES first.

    Runners match under any owner, as for claims.
    """
    owner = owner_filter(caller)
    counted = _count(conn, owner)
    shown = sorted(counted.values(), key=lambda count: (-count.ready, -count.in_hand, count.profile_id))[:MOST_QUEUES]
    ids = [count.profile_id for count in shown]
    demands = read_demands(conn, _DEMANDS, {"profiles": ids})
    runners = _matching(conn, ids, limits) if ids else {}
    rates = _claims_per_minute(conn, owner) if ids else {}
    queues = [
        Queue(
            count.profile_id,
            demands.get(count.profile_id, Demands()),
            count.ready,
            count.oldest_ready_at,
            count.waiting,
            count.in_hand,
            runners[count.profile_id],
            rates.get(count.profile_id, 0.0),
        )
        for count in shown
    ]
    return Queues(queues, len(counted) > len(shown))


@dataclass(slots=True)
class _Count:
    profile_id: int
    ready: int = 0
    waiting: int = 0
    in_hand: int = 0
    oldest_ready_at: datetime | None = None


def _count(conn: Connection, owner: str | None) -> dict[int, _Count]:
    counted = {
        row.profile_id: _Count(
            row.profile_id, row.ready, row.delayed + row.waiting, oldest_ready_at=row.oldest_ready_at
        )
        for row in count_pending(conn, CountedBy.PROFILE, owner=owner)
    }
    for row in count_in_hand(conn, CountedBy.PROFILE, owner=owner):
        counted.setdefault(row.profile_id, _Count(row.profile_id)).in_hand += row.number
    return counted


def _claims_per_minute(conn: Connection, owner: str | None) -> dict[int, float]:
    values = {"step": MINUTE, "measure": Measure.CLAIMED.value, "minutes": RATE_MINUTES}
    rows = conn.execute(_CLAIMS, values | rows_of(owner, BY_PROFILE))
    return {row.profile_id: round(float(row.number) / RATE_MINUTES, 2) for row in rows}


def _matching(conn: Connection, profile_ids: Sequence[int], limits: Limits) -> Mapping[int, Matching]:
    found = {profile_id: Matching() for profile_id in profile_ids}
    matches = match_sets(conn)
    matches.refresh(conn)
    values = {"stale_after": limits.stale_after, "forget": limits.forget_runner}
    for capacity, is_online, draining, in_hand, *offer in conn.execute(_RUNNERS, values):
        for profile_id in matches.of(offer_of(*offer)) & found.keys():
            _add(found[profile_id], capacity, in_hand, is_online=is_online, draining=draining)
    return found


def _add(matching: Matching, capacity: int | None, in_hand: int, *, is_online: bool, draining: bool) -> None:
    if not is_online:
        matching.stale += 1
        return
    if draining:
        matching.draining += 1
        return
    matching.online += 1
    if capacity is None:
        matching.unlimited += 1
    elif in_hand >= capacity:
        matching.full += 1
    else:
        matching.free_slots += capacity - in_hand
