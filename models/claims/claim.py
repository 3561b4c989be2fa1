"""Claims ready runs for polls: the one place that matches, for polls and for dispatch alike (promise 1).

Candidates are read without locks, and only the runs that are assigned are locked, with SKIP LOCKED.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection

from models.claims.ageing import AGED_CANDIDATES
from models.claims.claim_sql import CANDIDATES, TAKEN_RUN, claimed
from models.claims.matching import CLAIM_CAPACITY_OF_N, Offer, match_sets
from models.claims.watermarks import HIGHEST, LOWEST, ScanRange, claim_watermarks
from models.core.ids import uuid7
from models.core.limits import DEFAULT_LIMITS, Limits
from models.schema.sql import sql
from models.state.runs import BLUEPRINT_OF_T, RUN_COLUMNS, Run, as_claimed_run


@dataclass(frozen=True, slots=True)
class Ask:
    """Request of a poll for up to ``wanted`` runs for ``runner_id``; ``instance`` is the web process that holds the
    poll.

    ``subject``: the caller, which must have made the runner's registration; None for an admin. ``offer``: the runner's
    offer when the poll was parked. ``registered_at``: the moment from which the polling process has been the runner.
    ``draining``: no run will be claimed for it. These are as the poll's last answer said (``PollAnswer.update``).
    """

    poll_id: str
    runner_id: str
    wanted: int
    instance: str
    subject: str | None = None
    offer: Offer | None = None
    registered_at: datetime | None = None
    draining: bool = False


@dataclass(slots=True)
class PollCandidate:
    """Poll with the offer of its runner and ``capacity``, the runs in hand up to which it may claim; None: no bound."""

    ask: Ask
    offer: Offer
    capacity: int | None
    claimed_by: str | None = None
    left: int = 0
    matches: frozenset[int] = frozenset()


class ReadyRun(NamedTuple):
    run_id: str
    profile_id: int
    priority: int
    excluded_registrations: list[int] | None


@dataclass(frozen=True, slots=True)
class ClaimPreview:
    """Result of a dry run: the candidates that would get a run, and the ready runs they would choose from.

    ``more``: further polls could get one after these. ``next_after``: the poll behind which the next page of parked
    polls begins; empty when there is none.
    """

    poll_candidates: list[PollCandidate] = field(default_factory=list)
    candidates: Sequence[ReadyRun] = ()
    more: bool = False
    next_after: str = ""


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """Claims by poll id; ``retry``: a locked run was skipped while an ask stayed empty."""

    runs: dict[str, list[Run]] = field(default_factory=dict)
    retry: bool = False


_CANDIDATES = sql(CANDIDATES)

_LOCK_CAPACITY = sql(
    """
    SELECT n.runner_id, $capacity AS capacity FROM runners n
    WHERE n.runner_id = ANY(CAST(:runner_ids AS text[])) AND $capacity IS NOT NULL
    ORDER BY n.runner_id FOR NO KEY UPDATE
    """,
    capacity=CLAIM_CAPACITY_OF_N,
)

_IN_HAND = sql("""
    SELECT runner_id, count(*) AS in_hand FROM runs
    WHERE runner_id = ANY(CAST(:runner_ids AS text[])) AND status IN $IN_HAND
    GROUP BY runner_id
""")

# Keep the planner from locking more rows than are assigned (MATERIALIZED); leave a run to the first transaction that
# locks it (SKIP LOCKED).
_TAKE = sql(
    """
    WITH picked AS MATERIALIZED (
        SELECT r.run_id FROM runs r
        WHERE r.run_id = ANY(CAST(:run_ids AS text[])) AND coalesce(r.status = $PENDING AND r.ready, false)
        ORDER BY r.run_id FOR NO KEY UPDATE SKIP LOCKED
    ), given AS (
        SELECT picked.run_id, g.claim_token, g.claim_poll_id, g.runner_id, g.registration, g.claimed_by, g.place
        FROM unnest(CAST(:run_ids AS text[]), CAST(:tokens AS text[]), CAST(:polls AS text[]),
                    CAST(:runners AS text[]), CAST(:registrations AS bigint[]), CAST(:claimants AS text[]))
            WITH ORDINALITY AS g(planned, claim_token, claim_poll_id, runner_id, registration, claimed_by, place)
        LEFT JOIN picked ON picked.run_id = g.planned
    ), $claimed
    SELECT $taken, t.waited, $blueprint FROM taken t
    """,
    blueprint=BLUEPRINT_OF_T,
    claimed=claimed("CAST(:run_ids AS text[])"),
    taken=TAKEN_RUN,
)
_TAKE_RUNS = _TAKE.columns(*RUN_COLUMNS)


def poll_candidate(ask: Ask, offer: Offer, capacity: int | None, owner: str | None) -> PollCandidate:
    return PollCandidate(ask, offer, capacity, ask.subject if owner is None else owner)


def attach_profiles(
    conn: Connection, poll_candidates: Sequence[PollCandidate], newest_profile: int | None = None
) -> None:
    """Set the profiles that each candidate satisfies, and the number of runs it still wants."""
    sets = match_sets(conn)
    sets.refresh(conn, newest_profile)
    for poll in poll_candidates:
        poll.left = poll.ask.wanted
        poll.matches = sets.of(poll.offer)


def preview_claims(
    conn: Connection,
    poll_candidates: Sequence[PollCandidate],
    most: int,
    newest_profile: int | None = None,
    *,
    limits: Limits = DEFAULT_LIMITS,
) -> ClaimPreview:
    """Return the polls that would get a run now, without locking anything.

    Called first, so that of thousands of parked polls only those are locked for which there is a run.
    """
    attach_profiles(conn, poll_candidates, newest_profile)
    limited = sorted({poll.ask.runner_id for poll in poll_candidates if poll.capacity is not None})
    free_capacity = {poll.ask.runner_id: poll.capacity for poll in poll_candidates if poll.capacity is not None}
    if limited:
        for row in conn.execute(_IN_HAND, {"runner_ids": limited}):
            free_capacity[row.runner_id] -= row.in_hand
    unsatisfied = unsatisfied_polls(poll_candidates, free_capacity)
    if not unsatisfied:
        return ClaimPreview()
    candidates = read_candidates(conn, _satisfied(unsatisfied), (), most, limits)
    plan, _ = assign_runs(candidates, unsatisfied, free_capacity)
    chosen = {poll.ask.poll_id: poll for _, poll in plan}
    for poll in chosen.values():
        poll.left = poll.ask.wanted
    # Ask for another pass only if this one assigns something; otherwise we would loop.
    return ClaimPreview(
        list(chosen.values()), candidates, more=len(candidates) >= most and 0 < len(chosen) < len(unsatisfied)
    )


def may_take(
    conn: Connection,
    offers: Sequence[Offer],
    most: int,
    newest_profile: int,
    *,
    limits: Limits = DEFAULT_LIMITS,
) -> list[bool]:
    """Return for each offer whether one of the ``most`` best ready runs is of a profile that it satisfies.

    Nothing is locked; capacities and exclusions are not looked at, so True promises no run.
    """
    sets = match_sets(conn)
    sets.refresh(conn, newest_profile)
    matches = [sets.of(offer) for offer in offers]
    satisfied = frozenset[int]().union(*matches)
    ready = {run.profile_id for run in read_candidates(conn, satisfied, (), most, limits)} if satisfied else set()
    return [not ready.isdisjoint(profile_ids) for profile_ids in matches]


def claim_runs(
    conn: Connection,
    poll_candidates: Sequence[PollCandidate],
    *,
    delivered: bool,
    limits: Limits = DEFAULT_LIMITS,
    newest_profile: int | None = None,
    candidates: Sequence[ReadyRun] = (),
) -> ClaimResult:
    """Claim ready runs for the candidates, best priority first, oldest first among equals; each run for one of them.

    ``delivered`` is True when the claim's own request will answer with it; ``newest_profile``, where known, saves a
    look for newer ones, and ``candidates`` of ``preview_claims`` the first look at the queues. Safe in any number of
    processes at once: a run locked by another transaction is skipped. A poll stays empty only if no matching run was
    claimable; ``retry`` means one was locked by another transaction.
    """
    if not poll_candidates:
        return ClaimResult()
    if not candidates:
        attach_profiles(conn, poll_candidates, newest_profile)
    free_capacity = _free_capacity(conn, poll_candidates)
    passed: set[str] = set()
    given: dict[str, tuple[str, Run]] = {}
    any_skipped = False
    while unsatisfied := unsatisfied_polls(poll_candidates, free_capacity):
        most = sum(poll.left for poll in unsatisfied) + 8
        ready = candidates or read_candidates(conn, _satisfied(unsatisfied), passed, most, limits)
        if not ready:
            break
        candidates = ()
        plan, excluded = assign_runs(ready, unsatisfied, free_capacity)
        passed.update(excluded, (run_id for run_id, _ in plan))
        taken = _take(conn, plan, delivered=delivered, limits=limits)
        claim_watermarks(conn).count((run.profile_id, run.priority) for run in ready if run.run_id in taken)
        for run_id, poll in plan:
            if run_id in taken:
                given[run_id] = (poll.ask.poll_id, taken[run_id])
            else:
                poll.left += 1
                if poll.ask.runner_id in free_capacity:
                    free_capacity[poll.ask.runner_id] += 1
                any_skipped = True
    runs: dict[str, list[Run]] = {}
    for _, (poll_id, run) in sorted(given.items()):
        runs.setdefault(poll_id, []).append(run)
    return ClaimResult(runs, any_skipped and any(poll.left == poll.ask.wanted > 0 for poll in poll_candidates))


def _free_capacity(conn: Connection, poll_candidates: Sequence[PollCandidate]) -> dict[str, int]:
    """Return how many more runs each runner with a capacity may take; its row stays locked, so the count holds."""
    limited = sorted({poll.ask.runner_id for poll in poll_candidates if poll.capacity is not None})
    if not limited:
        return {}
    free_capacity = {row.runner_id: row.capacity for row in conn.execute(_LOCK_CAPACITY, {"runner_ids": limited})}
    for row in conn.execute(_IN_HAND, {"runner_ids": limited}):
        if row.runner_id in free_capacity:
            free_capacity[row.runner_id] -= row.in_hand
    return free_capacity


def unsatisfied_polls(
    poll_candidates: Iterable[PollCandidate], free_capacity: Mapping[str, int]
) -> list[PollCandidate]:
    """Return the polls that want more runs than they have, match some, and whose runner has capacity left."""
    return [
        poll
        for poll in poll_candidates
        if poll.left > 0 and poll.matches and free_capacity.get(poll.ask.runner_id, 1) > 0
    ]


def _satisfied(poll_candidates: Sequence[PollCandidate]) -> frozenset[int]:
    return frozenset[int]().union(*(poll.matches for poll in poll_candidates))


def read_candidates(
    conn: Connection,
    satisfied: Collection[int],
    passed: Collection[str],
    most: int,
    limits: Limits,
) -> Sequence[ReadyRun]:
    """Return the best ready runs of these profiles, without locks; below the watermarks only if none is above them."""
    ageing = limits.priority_ageing
    profiles = sorted(satisfied)
    ranges = scan_ranges(conn, profiles)
    found = read_ranges(conn, ranges, passed, most, ageing)
    if found or len(ranges) == len(profiles):
        return found
    return read_ranges(conn, whole_ranges(profiles), passed, most, ageing)


def scan_ranges(conn: Connection, profile_ids: Collection[int]) -> list[ScanRange]:
    """Return where to look for ready runs: the whole of each profile, or its parts above and beside watermarks."""
    known = claim_watermarks(conn)
    known.refresh(conn)
    return known.ranges(profile_ids)


def whole_ranges(profile_ids: Iterable[int]) -> list[ScanRange]:
    return [ScanRange(profile_id, LOWEST, HIGHEST) for profile_id in profile_ids]


def scan_values(ranges: Sequence[ScanRange]) -> dict[str, Any]:
    return {
        "profiles": [scan.profile_id for scan in ranges],
        "lows": [scan.low for scan in ranges],
        "highs": [scan.high for scan in ranges],
        "floors": [scan.watermark for scan in ranges],
    }


def read_ranges(
    conn: Connection,
    ranges: Sequence[ScanRange],
    passed: Collection[str],
    most: int,
    ageing: float,
) -> Sequence[ReadyRun]:
    """Return the ``most`` best ready runs of these ranges, but for those ``passed``, without locks."""
    values = scan_values(ranges) | {"passed": list(passed), "most": most}
    if ageing > 0:
        rows = conn.execute(AGED_CANDIDATES, values | {"ageing": ageing})
    else:
        rows = conn.execute(_CANDIDATES, values)
    return [ReadyRun(*row) for row in rows]


def assign_runs(
    candidates: Sequence[ReadyRun],
    unsatisfied: Sequence[PollCandidate],
    free_capacity: dict[str, int],
) -> tuple[list[tuple[str, PollCandidate]], list[str]]:
    """Assign each run in order to the first unsatisfied candidate that may have it.

    Return the plan and the runs that all remaining candidates are excluded from.
    """
    by_profile = {
        profile_id: [poll for poll in unsatisfied if profile_id in poll.matches]
        for profile_id in {run.profile_id for run in candidates}
    }
    plan: list[tuple[str, PollCandidate]] = []
    excluded: list[str] = []
    for run in candidates:
        takers = [
            poll
            for poll in by_profile[run.profile_id]
            if poll.left > 0 and free_capacity.get(poll.ask.runner_id, 1) > 0
        ]
        by_profile[run.profile_id] = takers
        not_for = run.excluded_registrations or ()
        taker = next((poll for poll in takers if poll.offer.registration not in not_for), None)
        if taker is not None:
            taker.left -= 1
            if taker.ask.runner_id in free_capacity:
                free_capacity[taker.ask.runner_id] -= 1
            plan.append((run.run_id, taker))
        elif takers:
            excluded.append(run.run_id)
    return plan, excluded


def _take(
    conn: Connection, plan: Sequence[tuple[str, PollCandidate]], *, delivered: bool, limits: Limits
) -> dict[str, Run]:
    if not plan:
        return {}
    rows = conn.execute(
        _TAKE_RUNS,
        {
            "run_ids": [run_id for run_id, _ in plan],
            "tokens": [uuid7() for _ in plan],
            "polls": [poll.ask.poll_id for _, poll in plan],
            "runners": [poll.ask.runner_id for _, poll in plan],
            "registrations": [poll.offer.registration for _, poll in plan],
            "claimants": [poll.claimed_by for _, poll in plan],
            "delivered": delivered,
            "claim_timeout": limits.claim_timeout,
            "start_timeout": limits.start_timeout,
        },
    )
    return {row.run_id: as_claimed_run(row) for row in rows}
