"""Claims ready runs for polls: the one place that matches, for polls and for dispatch alike (promise 1).

Candidates are read without locks, and only the runs that are assigned are locked, with SKIP LOCKED.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from models.claims.ageing import AGED_CANDIDATES
from models.claims.matching import Offer, match_sets
from models.claims.watermarks import HIGHEST, LOWEST, ScanRange, claim_watermarks
from models.core.ids import uuid7
from models.core.limits import DEFAULT_LIMITS, Limits
from models.schema.sql import sql
from models.state.events_outbox import record_events, run_updated
from models.state.runs import RUN_COLUMNS, RUN_COLUMNS_OF_R, Run, as_run


@dataclass(frozen=True, slots=True)
class Ask:
    """Request of a poll for up to ``wanted`` runs for ``runner_id``; ``instance`` is the web process that holds the
    poll.

    ``subject``: the caller, which must have made the runner's registration; None for an admin. ``offer``: the runner's
    offer when the poll was parked. ``registered_at``: the moment from which the polling process has been the runner.
    Both are as the poll's last answer said (``PollAnswer.update``).
    """

    poll_id: str
    runner_id: str
    wanted: int
    instance: str
    subject: str | None = None
    offer: Offer | None = None
    registered_at: datetime | None = None


@dataclass(slots=True)
class PollCandidate:
    """Ask with its registration's offer, as matching works on it.

    ``claimed_by``: the owner of the registration or, where that has none, the asking subject.
    """

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


# Probe the index once per scan range, so that runs which these runners may not take cost nothing.
_CANDIDATES = sql("""
    SELECT c.run_id, c.profile_id, c.priority, c.not_for
    FROM unnest(CAST(:profiles AS bigint[]), CAST(:lows AS smallint[]), CAST(:highs AS smallint[]),
                CAST(:floors AS text[])) AS p(profile_id, low, high, floor)
    CROSS JOIN LATERAL (
        (SELECT r.run_id, r.profile_id, r.priority, r.not_for FROM runs r
         WHERE p.floor IS NULL AND r.profile_id = p.profile_id AND r.priority BETWEEN p.low AND p.high
           AND r.status = $PENDING AND r.ready AND NOT r.run_id = ANY(CAST(:passed AS text[]))
         ORDER BY r.priority DESC, r.run_id LIMIT :most)
        UNION ALL
        -- priority as an equality, so that the index scan begins at the floor
        (SELECT r.run_id, r.profile_id, r.priority, r.not_for FROM runs r
         WHERE r.profile_id = p.profile_id AND r.priority = p.low AND r.run_id >= p.floor
           AND r.status = $PENDING AND r.ready AND NOT r.run_id = ANY(CAST(:passed AS text[]))
         ORDER BY r.run_id LIMIT :most)
    ) c
    ORDER BY c.priority DESC, c.run_id LIMIT :most
""")

_LOCK_CAPACITY = text("""
    SELECT runner_id, capacity FROM runners
    WHERE runner_id = ANY(CAST(:runner_ids AS text[])) AND capacity IS NOT NULL
    ORDER BY runner_id FOR NO KEY UPDATE
""")

_IN_HAND = sql("""
    SELECT runner_id, count(*) AS in_hand FROM runs
    WHERE runner_id = ANY(CAST(:runner_ids AS text[])) AND status IN $IN_HAND
    GROUP BY runner_id
""")

# Keep the planner from locking more rows than are assigned (MATERIALIZED); leave a run to the first transaction that
# locks it (SKIP LOCKED).
_TAKE = sql(
    """
    WITH given AS (
        SELECT * FROM unnest(CAST(:run_ids AS text[]), CAST(:tokens AS text[]), CAST(:polls AS text[]),
                             CAST(:runners AS text[]), CAST(:registrations AS bigint[]),
                             CAST(:claimants AS text[]))
            AS g(run_id, claim_token, claim_poll_id, runner_id, registration, claimed_by)
    ), picked AS MATERIALIZED (
        SELECT r.run_id FROM runs r
        WHERE r.run_id = ANY(CAST(:run_ids AS text[])) AND r.status = $PENDING AND r.ready
        ORDER BY r.run_id FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE runs r
    SET status = $CLAIMED, ready = false, claim_token = g.claim_token, claim_poll_id = g.claim_poll_id,
        runner_id = g.runner_id, registration = g.registration, claimed_by = g.claimed_by,
        claimed_by_registration = g.registration, claimed_at = clock_timestamp(),
        delivered_at = CASE WHEN :delivered THEN clock_timestamp() END,
        claim_deadline_at = clock_timestamp() + make_interval(secs =>
            CASE WHEN :delivered THEN CAST(:start_timeout AS float) ELSE CAST(:claim_timeout AS float) END),
        unheld_beats = 0
    FROM picked JOIN given g USING (run_id)
    WHERE r.run_id = picked.run_id AND r.run_id = ANY(CAST(:run_ids AS text[])) AND r.status = $PENDING AND r.ready
    RETURNING $run
    """,
    run=RUN_COLUMNS_OF_R,
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
    unsatisfied = [
        poll
        for poll in poll_candidates
        if poll.left > 0 and poll.matches and free_capacity.get(poll.ask.runner_id, 1) > 0
    ]
    if not unsatisfied:
        return ClaimPreview()
    candidates = _candidates(conn, _satisfied(unsatisfied), (), most, limits)
    plan, _ = _assign(candidates, unsatisfied, free_capacity)
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
    ready = {run.profile_id for run in _candidates(conn, satisfied, (), most, limits)} if satisfied else set()
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
    while unsatisfied := [
        poll
        for poll in poll_candidates
        if poll.left > 0 and poll.matches and free_capacity.get(poll.ask.runner_id, 1) > 0
    ]:
        most = sum(poll.left for poll in unsatisfied) + 8
        ready = candidates or _candidates(conn, _satisfied(unsatisfied), passed, most, limits)
        if not ready:
            break
        candidates = ()
        plan, excluded = _assign(ready, unsatisfied, free_capacity)
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
    record_events(conn, [run_updated(run) for _, run in given.values()])
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


def _satisfied(poll_candidates: Sequence[PollCandidate]) -> frozenset[int]:
    return frozenset[int]().union(*(poll.matches for poll in poll_candidates))


def _candidates(
    conn: Connection,
    satisfied: Collection[int],
    passed: Collection[str],
    most: int,
    limits: Limits,
) -> Sequence[ReadyRun]:
    """Return the best ready runs of these profiles, without locks; below the watermarks only if none is above them."""
    ageing = limits.priority_ageing
    profiles = sorted(satisfied)
    known = claim_watermarks(conn)
    known.refresh(conn)
    ranges = known.ranges(profiles)
    found = _read(conn, ranges, passed, most, ageing)
    if found or len(ranges) == len(profiles):
        return found
    return _read(conn, [ScanRange(profile_id, LOWEST, HIGHEST) for profile_id in profiles], passed, most, ageing)


def _read(
    conn: Connection,
    ranges: Sequence[ScanRange],
    passed: Collection[str],
    most: int,
    ageing: float,
) -> Sequence[ReadyRun]:
    values: dict[str, Any] = {
        "profiles": [scan.profile_id for scan in ranges],
        "lows": [scan.low for scan in ranges],
        "highs": [scan.high for scan in ranges],
        "floors": [scan.watermark for scan in ranges],
        "passed": list(passed),
        "most": most,
    }
    if ageing > 0:
        rows = conn.execute(AGED_CANDIDATES, values | {"ageing": ageing})
    else:
        rows = conn.execute(_CANDIDATES, values)
    return [ReadyRun(*row) for row in rows]


def _assign(
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
    return {row.run_id: as_run(row) for row in rows}
