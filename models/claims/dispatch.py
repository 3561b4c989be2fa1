"""Dispatch of ready runs to the parked polls of all instances: preview which of them can get one, then claim."""

from dataclasses import dataclass, field, replace
from typing import Final

from sqlalchemy import Connection, text

from models.claims.claim import Ask, ClaimPreview, claim_runs, poll_candidate, preview_claims
from models.claims.matching import OFFER_COLUMNS_OF_N, offer_of
from models.claims.parking import unpark_polls
from models.core.limits import DEFAULT_LIMITS, Limits
from models.schema.sql import sql

SEEN_SECONDS: Final = 5
# Read so many parked polls by one statement. A pass reads all of them, page by page.
POLLS_A_PAGE: Final = 20_000


@dataclass(frozen=True, slots=True)
class Assignment:
    poll_id: str
    run_id: str
    claim_token: str


@dataclass(frozen=True, slots=True)
class Dispatched:
    """Assignments of one dispatch pass, by the instance that holds the poll; ``again``: another pass is due."""

    by_instance: dict[str, list[Assignment]] = field(default_factory=dict)
    again: bool = False


# Read the page first, by its index, whatever share of it is of use: else each page would cost all parked polls. The
# first columns say where it ended, also when none of its polls may be given anything.
_WAITING = sql(
    """
    WITH page AS MATERIALIZED (
        SELECT poll_id, runner_id, registration, instance, wanted, subject, seen_at FROM waiting_polls
        WHERE poll_id > :after ORDER BY poll_id LIMIT :most
    )
    SELECT p.length, p.last, (SELECT max(profile_id) FROM demand_profiles) AS newest_profile,
        w.poll_id, w.runner_id, w.instance, w.wanted, w.subject, n.owner, n.capacity, $offer
    FROM (SELECT count(*) AS length, max(poll_id) AS last FROM page) p
    LEFT JOIN (page w JOIN runners n ON n.runner_id = w.runner_id AND n.registration = w.registration
               AND n.left_at IS NULL AND n.leave_requested_at IS NULL AND n.lost_at IS NULL)
        ON w.seen_at > now() - make_interval(secs => :seen)
    ORDER BY w.poll_id
    """,
    offer=OFFER_COLUMNS_OF_N,
)

_LOCK_SOME = text("""
    SELECT poll_id FROM waiting_polls WHERE poll_id = ANY(CAST(:polls AS text[]))
    ORDER BY poll_id FOR UPDATE SKIP LOCKED
""")


def preview_waiting(
    conn: Connection,
    limit: int = 500,
    *,
    after: str = "",
    page: int = POLLS_A_PAGE,
    limits: Limits = DEFAULT_LIMITS,
) -> ClaimPreview:
    """Return the polls of one page that would get a run now; nothing is locked.

    Pages hold the polls seen in the last 5 s by any instance, oldest first, behind the poll ``after``; ``next_after``
    of the answer leads to the next one, and is empty when this page was the last.
    """
    rows = conn.execute(_WAITING, {"seen": SEEN_SECONDS, "after": after, "most": page}).all()
    waiting = [
        poll_candidate(Ask(poll_id, runner_id, wanted, instance, subject), offer_of(*offer), capacity, owner)
        for _, _, _, poll_id, runner_id, instance, wanted, subject, owner, capacity, *offer in rows
        if poll_id
    ]
    newest_profile = rows[0].newest_profile or 0
    preview = preview_claims(conn, waiting, limit, newest_profile, limits=limits) if waiting else ClaimPreview()
    if rows[0].length < page:
        return preview
    # Continue with the next page: the remaining runs may suit only its polls. Without an assignment ask for no other
    # pass.
    return replace(preview, next_after=rows[0].last, more=preview.more or bool(preview.poll_candidates))


def dispatch_preview(conn: Connection, preview: ClaimPreview, *, limits: Limits = DEFAULT_LIMITS) -> Dispatched:
    """Claim ready runs for the previewed polls; the instances that hold the polls deliver them (ARCHITECTURE,
    Dispatch).

    A poll that has ended meanwhile, or whose row its own process holds locked, is left out.
    """
    if not preview.poll_candidates:
        return Dispatched(again=preview.more)
    locked = set(conn.execute(_LOCK_SOME, {"polls": [poll.ask.poll_id for poll in preview.poll_candidates]}).scalars())
    poll_candidates = {poll.ask.poll_id: poll for poll in preview.poll_candidates if poll.ask.poll_id in locked}
    assigned = claim_runs(
        conn, list(poll_candidates.values()), delivered=False, limits=limits, candidates=preview.candidates
    )
    if assigned.runs:
        unpark_polls(conn, assigned.runs)
    by_instance: dict[str, list[Assignment]] = {}
    for poll_id, claimed in assigned.runs.items():
        assignments = by_instance.setdefault(poll_candidates[poll_id].ask.instance, [])
        assignments += [Assignment(poll_id, run.run_id, run.claim_token or "") for run in claimed]
    again = preview.more or assigned.retry or len(locked) < len(preview.poll_candidates)
    return Dispatched(by_instance, again)
