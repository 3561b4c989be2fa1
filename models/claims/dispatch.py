from dataclasses import dataclass, field, replace
from typing import Final

from sqlalchemy import Connection

from models.claims.claim import Ask, ClaimPreview, claim_runs, poll_candidate, preview_claims
from models.claims.matching import OFFER_COLUMNS_OF_N, Offer, offer_of
from models.claims.parking import unpark_polls
from models.claims.script_syncs import SYNC_DUE_OF_N
from models.core.limits import DEFAULT_LIMITS, Limits
from models.schema.driver import fetch_all
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
    """Assignments of one dispatch pass, by the instance that holds the poll; ``again``: another pass is due.

    ``waits``: the seconds for which each assigned run was ready.
    """

    by_instance: dict[str, list[Assignment]] = field(default_factory=dict)
    again: bool = False
    waits: list[float] = field(default_factory=list, compare=False)


@dataclass(frozen=True, slots=True)
class ParkedPoll:
    poll_id: str
    instance: str
    offer: Offer


# Registration of the runner ``n`` for which nothing keeps the parked poll ``w`` from getting runs.
USABLE: Final = """n.runner_id = w.runner_id AND n.registration = w.registration
               AND n.left_at IS NULL AND n.leave_requested_at IS NULL AND n.lost_at IS NULL
               AND n.draining_since IS NULL"""
# The poll ``w`` was renewed lately: its process holds it.
HELD: Final = "w.seen_at > now() - make_interval(secs => :seen)"

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
    LEFT JOIN (page w JOIN runners n ON $usable AND NOT ($scripts_due))
        ON $held
    ORDER BY w.poll_id
    """,
    offer=OFFER_COLUMNS_OF_N,
    usable=USABLE,
    scripts_due=SYNC_DUE_OF_N,
    held=HELD,
)

_RECENT = sql(
    """
    SELECT w.poll_id, w.instance, $offer
    FROM (SELECT poll_id, runner_id, registration, instance, wanted, seen_at FROM waiting_polls
          ORDER BY poll_id DESC LIMIT :most) w
    JOIN runners n ON $usable
    WHERE w.instance <> :instance AND w.wanted > 0 AND $held
      AND (n.capacity IS NULL
           OR n.capacity > (SELECT count(*) FROM runs r WHERE r.runner_id = n.runner_id AND r.status IN $IN_HAND))
    """,
    offer=OFFER_COLUMNS_OF_N,
    usable=USABLE,
    held=HELD,
)

# Look at the runners again: the transaction that claims has to have read that they do not drain. A poll whose runner
# has scripts to fetch gets these first, from its own process.
_LOCK_SOME = sql(
    """
    SELECT w.poll_id FROM waiting_polls w
    JOIN runners n ON $usable AND NOT ($scripts_due) AND n.runner_id = ANY(CAST(:runner_ids AS text[]))
    WHERE w.poll_id = ANY(CAST(:polls AS text[]))
    ORDER BY w.poll_id FOR UPDATE OF w SKIP LOCKED
    """,
    usable=USABLE,
    scripts_due=SYNC_DUE_OF_N,
)


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


def recent_polls(conn: Connection, instance: str, most: int) -> list[ParkedPoll]:
    """Return those of the ``most`` polls parked last that other instances than this one hold and a run may be given to.

    Nothing is locked and no run is looked at.
    """
    rows = fetch_all(conn, _RECENT, {"instance": instance, "most": most, "seen": SEEN_SECONDS})
    return [ParkedPoll(poll_id, holder, offer_of(*offer)) for poll_id, holder, *offer in rows]


def dispatch_preview(conn: Connection, preview: ClaimPreview, *, limits: Limits = DEFAULT_LIMITS) -> Dispatched:
    """Claim ready runs for the previewed polls; the instances that hold the polls deliver them (ARCHITECTURE,
    Dispatch).

    A poll that has ended meanwhile, whose runner has begun to drain, or whose row its own process holds locked, is left
    out.
    """
    if not preview.poll_candidates:
        return Dispatched(again=preview.more)
    asks = [poll.ask for poll in preview.poll_candidates]
    values = {"polls": [ask.poll_id for ask in asks], "runner_ids": [ask.runner_id for ask in asks]}
    locked = set(conn.execute(_LOCK_SOME, values).scalars())
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
    waits = [run.waited or 0.0 for claimed in assigned.runs.values() for run in claimed]
    return Dispatched(by_instance, again, waits)
