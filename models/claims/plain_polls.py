"""Answers polls of the plain case in one round trip each; the verbs of ``models.claims.polls`` answer the others."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, TypeAlias

from sqlalchemy import BigInteger, Boolean, Connection, DateTime, Integer, column
from sqlalchemy.sql.selectable import TextualSelect

from models.claims.claim import Ask, PollCandidate, assign_runs, read_candidates, scan_ranges, scan_values, whole_ranges
from models.claims.claim_sql import CANDIDATES, TAKEN_RUN, claimed
from models.claims.known_offers import known_offers
from models.claims.matching import match_sets
from models.claims.orders import STOP_DUE, STOP_RESEND_SECONDS
from models.claims.polls import QUIET_SECONDS, PollAnswer
from models.claims.script_syncs import SYNC_DUE_OF_N
from models.claims.watermarks import claim_watermarks
from models.core.ids import uuid7
from models.core.limits import DEFAULT_LIMITS, Limits
from models.core.plain import NOT_PLAIN, NotPlain
from models.schema.driver import fetch_all
from models.schema.sql import sql
from models.state.runs import BLUEPRINT_OF_T, RUN_COLUMNS, Run, as_claimed_run

PlainAnswer: TypeAlias = PollAnswer | NotPlain

# Read some more candidates than the polls want: others may be taking the first of them.
SPARE_CANDIDATES: Final = 8

# Select in ``plain`` the polls of known runners that a claim alone answers: no order is due, nothing is assigned, no
# capacity has to be counted, and the process knows the offer and all demand profiles. Everything is read in the one
# snapshot of the statement; runs are locked and looked at again before they are taken. Planning takes longer than
# execution: arrays in subqueries look alike to the planner with and without their values, so that it keeps its plan.
_STATEMENT: Final = """
    WITH asked AS MATERIALIZED (
        SELECT a.*,
            (SELECT true FROM stop_commands c WHERE c.runner_id = a.runner_id AND $stop_due LIMIT 1) IS TRUE
                AS stop_due,
            (SELECT true FROM runs r WHERE r.claim_poll_id = a.poll_id AND r.status = $CLAIMED LIMIT 1) IS TRUE
                AS assigned,
            (SELECT true FROM waiting_polls w WHERE w.poll_id = a.poll_id) IS TRUE AS waits
        FROM unnest((SELECT CAST(:polls AS text[])), CAST(:runner_ids AS text[]), CAST(:registrations AS bigint[]),
                    CAST(:registered AS timestamptz[]), CAST(:subjects AS text[]), CAST(:instances AS text[]),
                    CAST(:wanted AS smallint[])) WITH ORDINALITY
            AS a(poll_id, runner_id, registration, registered_at, subject, instance, wanted, place)
    ), ${waiting}plain AS MATERIALIZED (
        SELECT a.place, a.poll_id, a.runner_id, a.registration, a.subject, a.instance, a.wanted, n.registered_at,
            coalesce(n.owner, a.subject) AS claimed_by
        FROM asked a
        JOIN runners n ON n.runner_id = a.runner_id AND n.runner_id = ANY(ARRAY(SELECT runner_id FROM asked))
        WHERE n.registration = a.registration AND n.capacity IS NULL
          AND (a.registered_at IS NULL OR n.registered_at = a.registered_at)
          AND (a.subject IS NULL OR n.owner IS NULL OR n.owner = a.subject)
          AND n.left_at IS NULL AND n.leave_requested_at IS NULL AND n.leave_told_at IS NULL AND n.lost_at IS NULL
          AND n.draining_since IS NULL
          AND n.last_seen >= now() - least(interval '$quiet seconds', make_interval(secs => :forget))
          AND coalesce((SELECT max(profile_id) FROM demand_profiles), 0) <= :newest_profile
          AND (SELECT true FROM demand_profiles
               WHERE profile_id = ANY(ARRAY(SELECT unnest(CAST(:skipped_profiles AS bigint[])))) LIMIT 1) IS NOT TRUE
          AND NOT a.stop_due AND NOT a.assigned AND NOT ($scripts_due) AND $waits
    ), $plan, $claimed, idle AS MATERIALIZED (
        SELECT p.* FROM plain p
        WHERE NOT p.poll_id = ANY(ARRAY(SELECT claim_poll_id FROM given WHERE run_id IS NOT NULL)) AND $found_nothing
    ), $parked
    SELECT $taken, p.place, p.registered_at, w.poll_id IS NOT NULL AS parked, g.profile_id, t.waited,
        $blueprint
    FROM plain p LEFT JOIN given g ON g.claim_poll_id = p.poll_id LEFT JOIN taken t ON t.run_id = g.run_id
    LEFT JOIN parked w ON w.poll_id = p.poll_id
    ORDER BY p.place, t.run_id
"""

# Give the runs, best first, to the polls in their order, as ``assign_runs`` does: all have the same profiles, and no
# candidate excludes one of them. Lock only as many runs as the polls want, and skip those that are locked. A poll that
# gets none is left to the verb if candidates were skipped. The condition on status keeps the planner from an index of
# pending runs, which may have looked empty to it.
_PLAN_OF_ONE_SET: Final = """candidates AS MATERIALIZED ($candidates), slots AS MATERIALIZED (
        SELECT row_number() OVER (ORDER BY p.place) AS slot, p.*
        FROM plain p CROSS JOIN LATERAL generate_series(1, p.wanted)
        WHERE (SELECT true FROM candidates WHERE not_for && CAST(:registrations AS bigint[]) LIMIT 1) IS NOT TRUE
    ), picked AS MATERIALIZED (
        SELECT r.run_id, r.priority, r.profile_id FROM runs r
        WHERE r.run_id = ANY(ARRAY(SELECT run_id FROM candidates)) AND coalesce(r.status = $PENDING AND r.ready, false)
        ORDER BY r.priority DESC, r.run_id LIMIT (SELECT count(*) FROM slots)
        FOR NO KEY UPDATE SKIP LOCKED
    ), given AS MATERIALIZED (
        SELECT k.run_id, k.profile_id, s.slot AS place, (CAST(:tokens AS text[]))[s.slot] AS claim_token,
            s.poll_id AS claim_poll_id, s.runner_id, s.registration, s.claimed_by
        FROM slots s
        LEFT JOIN (SELECT run_id, profile_id, row_number() OVER (ORDER BY priority DESC, run_id) AS slot FROM picked) k
            USING (slot)
    )"""
_NONE_OF_ONE_SET: Final = """:complete
          AND (SELECT count(*) FROM picked) = (SELECT count(*) FROM candidates)"""

# Take the runs of a plan made before, if all polls are plain.
_PLAN_MADE: Final = """picked AS MATERIALIZED (
        SELECT r.run_id, r.profile_id FROM runs r
        WHERE r.run_id = ANY(CAST(:run_ids AS text[])) AND coalesce(r.status = $PENDING AND r.ready, false)
          AND (SELECT count(*) FROM plain) = cardinality(CAST(:polls AS text[]))
        ORDER BY r.run_id FOR NO KEY UPDATE SKIP LOCKED
    ), given AS MATERIALIZED (
        SELECT k.run_id, k.profile_id, m.place, m.claim_token, p.poll_id AS claim_poll_id, p.runner_id, p.registration,
            p.claimed_by
        FROM unnest(CAST(:run_ids AS text[]), CAST(:takers AS bigint[]), CAST(:tokens AS text[])) WITH ORDINALITY
            AS m(run_id, taker, claim_token, place)
        LEFT JOIN picked k ON k.run_id = m.run_id JOIN plain p ON p.place = m.taker
    )"""
_NONE_OF_PLAN: Final = """:complete
          AND NOT p.place = ANY(CAST(:takers AS bigint[]))
          AND (SELECT count(*) FROM plain) = cardinality(CAST(:polls AS text[]))"""

# A row that is there already is of a first try, whose answer was lost.
_PARK: Final = """parked AS (
        INSERT INTO waiting_polls (poll_id, runner_id, registration, instance, wanted, subject, seen_at)
        SELECT poll_id, runner_id, registration, instance, wanted, subject, clock_timestamp() FROM idle
        ON CONFLICT (poll_id) DO NOTHING RETURNING poll_id
    )"""
_NOT_WAITING: Final = "NOT a.waits"

# Wait for rows that a dispatcher has locked: when a row is gone then, a run is committed for its poll.
_LOCK_WAITING: Final = """mine AS MATERIALIZED (
        SELECT poll_id FROM waiting_polls WHERE poll_id = ANY(ARRAY(SELECT poll_id FROM asked))
        ORDER BY poll_id FOR UPDATE
    ), """
_WAITING: Final = "a.poll_id IN (SELECT poll_id FROM mine)"
_RENEW_OR_UNPARK: Final = """parked AS (
        UPDATE waiting_polls w SET seen_at = clock_timestamp() FROM idle
        WHERE w.poll_id = idle.poll_id AND w.poll_id = ANY(ARRAY(SELECT poll_id FROM asked))
        RETURNING w.poll_id
    ), unparked AS (
        DELETE FROM waiting_polls w
        WHERE w.poll_id = ANY(ARRAY(SELECT claim_poll_id FROM given WHERE run_id IS NOT NULL))
    )"""


def _statement(*, plan: str, found_nothing: str, keys: str, **waiting: str) -> TextualSelect:
    statement = sql(
        _STATEMENT,
        plan=sql(plan, candidates=sql(CANDIDATES).text).text,
        claimed=claimed(keys),
        found_nothing=found_nothing,
        taken=TAKEN_RUN,
        blueprint=BLUEPRINT_OF_T,
        stop_due=STOP_DUE,
        scripts_due=SYNC_DUE_OF_N,
        quiet=str(QUIET_SECONDS),
        **waiting,
    )
    return statement.columns(
        *RUN_COLUMNS,
        column("place", Integer),
        column("registered_at", DateTime(timezone=True)),
        column("parked", Boolean),
        column("profile_id", BigInteger),
        column("waited"),
        column("blueprint"),
    )


_OF_ONE_SET: Final = {
    "plan": _PLAN_OF_ONE_SET,
    "found_nothing": _NONE_OF_ONE_SET,
    "keys": "ARRAY(SELECT run_id FROM given WHERE run_id IS NOT NULL)",
}
_OF_PLAN: Final = {"plan": _PLAN_MADE, "found_nothing": _NONE_OF_PLAN, "keys": "CAST(:run_ids AS text[])"}
_NEW: Final = {"waiting": "", "waits": _NOT_WAITING, "parked": _PARK}
_PARKED: Final = {"waiting": _LOCK_WAITING, "waits": _WAITING, "parked": _RENEW_OR_UNPARK}
_ANSWER: Final = _statement(**_OF_ONE_SET, **_NEW)
_ANSWER_PLANNED: Final = _statement(**_OF_PLAN, **_NEW)
_CLAIM_PARKED: Final = _statement(**_OF_ONE_SET, **_PARKED)
_CLAIM_PARKED_PLANNED: Final = _statement(**_OF_PLAN, **_PARKED)

# Leave a poll to the verb if it has a run beside its row: a first try that was given up as lost has committed after the
# second.
_GIVE_UP: Final = sql("""
    WITH unparked AS (
        DELETE FROM waiting_polls WHERE poll_id = ANY(CAST(:polls AS text[])) RETURNING poll_id
    )
    SELECT u.poll_id FROM unparked u
    WHERE (SELECT true FROM runs r WHERE r.claim_poll_id = u.poll_id AND r.status = $CLAIMED LIMIT 1) IS NOT TRUE
""")


def answer_plain_polls(conn: Connection, asks: Sequence[Ask], *, limits: Limits = DEFAULT_LIMITS) -> list[PlainAnswer]:
    """Answer like ``answer_polls`` the polls that get runs or are parked, and leave the others as they are."""
    return _answer(conn, asks, limits, _ANSWER, _ANSWER_PLANNED)


def claim_plain_parked(conn: Connection, asks: Sequence[Ask], *, limits: Limits = DEFAULT_LIMITS) -> list[PlainAnswer]:
    """Answer like ``claim_parked`` the polls that get runs or stay parked, and leave the others as they are."""
    return _answer(conn, asks, limits, _CLAIM_PARKED, _CLAIM_PARKED_PLANNED)


def give_up_plain_polls(conn: Connection, poll_ids: Sequence[str]) -> list[list[Run] | NotPlain]:
    """End like ``give_up_polls`` the polls to which nothing is assigned, and leave the others to it."""
    ended = {poll_id for (poll_id,) in fetch_all(conn, _GIVE_UP, {"polls": list(poll_ids)})}
    return [[] if poll_id in ended else NOT_PLAIN for poll_id in poll_ids]


def _answer(
    conn: Connection, asks: Sequence[Ask], limits: Limits, of_one_set: TextualSelect, of_plan: TextualSelect
) -> list[PlainAnswer]:
    answers: list[PlainAnswer] = [NOT_PLAIN] * len(asks)
    # Ageing priorities have candidates of their own; two requests of one poll are answered in turn.
    if limits.priority_ageing > 0 or len({ask.poll_id for ask in asks}) < len(asks):
        return answers
    sets, offers = match_sets(conn), known_offers(conn)
    newest, skipped = sets.upkeep(conn)
    polls: list[PollCandidate] = []
    places: list[int] = []
    for place, ask in enumerate(asks):
        offer = ask.offer or offers.get(ask.runner_id)
        if offer is not None:
            polls.append(PollCandidate(ask, offer, None, left=ask.wanted, matches=sets.of(offer)))
            places.append(place)
    if not polls:
        return answers
    values = _values(polls, limits) | {"newest_profile": newest, "skipped_profiles": skipped}
    if all(poll.matches == polls[0].matches for poll in polls):
        rows = _of_one_set(conn, polls, of_one_set, values)
    else:
        rows = fetch_all(conn, of_plan, values | _plan(conn, polls, limits))
    runs: dict[int, list[Run]] = {}
    states: dict[int, tuple[datetime, bool]] = {}
    taken: list[tuple[int, int]] = []
    for row in rows:
        states[row.place - 1] = row.registered_at, row.parked
        if row.run_id is not None:
            runs.setdefault(row.place - 1, []).append(as_claimed_run(row))
            taken.append((row.profile_id, row.priority))
    claim_watermarks(conn).count(taken)
    for at, (registered_at, parked) in states.items():
        given, poll = runs.get(at, []), polls[at]
        if given or parked:
            answers[places[at]] = PollAnswer(
                runs=given,
                parked=parked,
                offer=None if given else poll.offer,
                registered_at=poll.ask.registered_at or registered_at,
            )
    return answers


def _values(polls: Sequence[PollCandidate], limits: Limits) -> dict[str, Any]:
    asks = [poll.ask for poll in polls]
    return {
        "polls": [ask.poll_id for ask in asks],
        "runner_ids": [ask.runner_id for ask in asks],
        "registrations": [poll.offer.registration for poll in polls],
        "registered": [ask.registered_at for ask in asks],
        "subjects": [ask.subject for ask in asks],
        "instances": [ask.instance for ask in asks],
        "wanted": [ask.wanted for ask in asks],
        "forget": limits.forget_runner,
        "again": STOP_RESEND_SECONDS,
        "delivered": True,
        "claim_timeout": limits.claim_timeout,
        "start_timeout": limits.start_timeout,
    }


def _of_one_set(
    conn: Connection, polls: Sequence[PollCandidate], statement: TextualSelect, values: dict[str, Any]
) -> Sequence[Any]:
    """Execute the statement for polls of the same profiles; without watermarks if it finds nothing above them."""
    profiles = sorted(polls[0].matches)
    ranges = scan_ranges(conn, profiles)
    wanted = sum(poll.left for poll in polls)
    values |= {"passed": [], "most": wanted + SPARE_CANDIDATES, "tokens": [uuid7() for _ in range(wanted)]}
    complete = len(ranges) == len(profiles)
    rows = fetch_all(conn, statement, values | scan_values(ranges) | {"complete": complete})
    if complete or not rows or any(row.run_id is not None for row in rows):
        return rows
    return fetch_all(conn, statement, values | scan_values(whole_ranges(profiles)) | {"complete": True})


def _plan(conn: Connection, polls: Sequence[PollCandidate], limits: Limits) -> dict[str, Any]:
    """Return the runs that polls of different profiles are to take, of candidates read before."""
    most = sum(poll.left for poll in polls) + SPARE_CANDIDATES
    profiles = frozenset[int]().union(*(poll.matches for poll in polls))
    ready = read_candidates(conn, profiles, (), most, limits)
    place_of = {poll.ask.poll_id: place for place, poll in enumerate(polls, 1)}
    plan, _ = assign_runs(ready, polls, {})
    return {
        "run_ids": [run_id for run_id, _ in plan],
        "takers": [place_of[poll.ask.poll_id] for _, poll in plan],
        "tokens": [uuid7() for _ in plan],
        "complete": len(ready) < most and len(scan_ranges(conn, profiles)) == len(profiles),
    }
