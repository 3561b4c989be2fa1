from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Final, TypeAlias

from sqlalchemy import Connection, text

from models.claims.claim import Ask, PollCandidate, claim_runs, may_take, poll_candidate
from models.claims.delivery import confirm_polls, release_polls
from models.claims.known_offers import known_offers
from models.claims.matching import CLAIM_CAPACITY_OF_N, OFFER_COLUMNS_OF_N, Offer, offer_of
from models.claims.orders import STOP_DUE, STOP_RESEND_SECONDS, send_leave, send_stops
from models.claims.parking import park_polls, unpark_polls
from models.claims.script_syncs import SYNC_DUE_OF_N, SentScripts, send_scripts
from models.core.errors import RunnerNotRegistered
from models.core.limits import DEFAULT_LIMITS, Limits
from models.schema.sql import sql
from models.state.runs import Run
from models.state.visibility import acts_for

# Renew a runner at its poll when its last sign of life is older than this.
QUIET_SECONDS: Final = 30


@dataclass(frozen=True, slots=True)
class PollAnswer:
    """Answer of a poll: the first of stops, scripts, leave and runs that there is; else it is parked or not.

    ``passed_over``: a run for it was locked by another transaction, which may release it, or was released because of
    this answer: notify dispatch once more. ``offer``, ``registered_at``, None where not read, and ``draining``: of its
    registration.
    """

    stop_sessions: list[str] = field(default_factory=list)
    scripts: SentScripts | None = None
    deregistered: bool = False
    runs: list[Run] = field(default_factory=list)
    parked: bool = False
    passed_over: bool = False
    offer: Offer | None = field(default=None, compare=False)
    registered_at: datetime | None = field(default=None, compare=False)
    draining: bool = field(default=False, compare=False)

    @property
    def empty(self) -> bool:
        return not (self.stop_sessions or self.scripts or self.deregistered or self.runs)

    def update(self, ask: Ask) -> Ask:
        if self.registered_at is None:
            return ask
        return replace(ask, offer=self.offer or ask.offer, registered_at=self.registered_at, draining=self.draining)


Answer: TypeAlias = PollAnswer | RunnerNotRegistered


@dataclass(frozen=True, slots=True)
class PollContext:
    offer: Offer
    runner_id: str
    capacity: int | None
    owner: str | None
    gone: bool
    to_leave: bool
    draining: bool
    registered_at: datetime
    quiet: bool
    stop_due: bool
    scripts_due: bool
    assigned: bool
    parked: bool
    newest_profile: int | None


# Number of the columns of a context, which are followed by those of the offer.
_CONTEXT_WIDTH: Final = len(fields(PollContext)) - 1


@dataclass(frozen=True, slots=True)
class _Looked:
    """Answers that need no claim, and candidates for the other polls; ``released`` polls had runs taken from them."""

    answers: dict[str, Answer]
    open_polls: list[PollCandidate]
    released: set[str]
    newest_profile: int


# Read per poll its registration, due stops and assigned runs by one probe each. EXISTS might be answered by reading all
# stops and all claimed runs.
_LOOK = sql(
    """
    SELECT a.poll_id, n.runner_id, $capacity AS capacity, n.owner,
        n.left_at IS NOT NULL OR n.leave_told_at IS NOT NULL
            OR now() - make_interval(secs => :forget) > n.last_seen
                AND n.last_seen < (SELECT silent_before(CAST(:forget AS float))) AS gone,
        n.leave_requested_at IS NOT NULL AS to_leave, n.draining_since IS NOT NULL AS draining, n.registered_at,
        n.lost_at IS NOT NULL OR n.last_seen < now() - interval '$quiet seconds' AS quiet,
        (SELECT true FROM stop_commands c WHERE c.runner_id = a.runner_id
            AND $stop_due LIMIT 1) IS TRUE AS stop_due, $scripts_due AS scripts_due,
        (SELECT true FROM runs r WHERE r.claim_poll_id = a.poll_id AND r.status = $CLAIMED LIMIT 1) IS TRUE
            AS assigned,
        (SELECT true FROM waiting_polls w WHERE w.poll_id = a.poll_id) IS TRUE AS parked,
        (SELECT max(profile_id) FROM demand_profiles) AS newest_profile, $offer
    FROM unnest(CAST(:polls AS text[]), CAST(:runner_ids AS text[])) AS a(poll_id, runner_id)
    JOIN runners n ON n.runner_id = a.runner_id AND n.runner_id = ANY(CAST(:runner_ids AS text[]))
    """,
    capacity=CLAIM_CAPACITY_OF_N,
    offer=OFFER_COLUMNS_OF_N,
    stop_due=STOP_DUE,
    scripts_due=SYNC_DUE_OF_N,
    quiet=str(QUIET_SECONDS),
)

# Renew a quiet runner before it claims: else expiry takes the runs of a lost one. A locked row is renewed later.
_RENEW_QUIET = text("""
    UPDATE runners SET last_seen = clock_timestamp(), lost_at = NULL
    WHERE runner_id IN (
        SELECT runner_id FROM runners WHERE runner_id = ANY(CAST(:runner_ids AS text[]))
        ORDER BY runner_id FOR NO KEY UPDATE SKIP LOCKED)
""")

# Wait for rows that a dispatcher has locked: when a row is gone then, the run of its poll is committed.
_RENEW = """
    WITH mine AS MATERIALIZED (
        SELECT poll_id FROM waiting_polls WHERE poll_id = ANY(CAST(:polls AS text[])) ORDER BY poll_id FOR UPDATE
    ), renewed AS (
        UPDATE waiting_polls w SET seen_at = clock_timestamp() FROM mine WHERE w.poll_id = mine.poll_id
        RETURNING w.poll_id
    )
"""
_RENEWED = "SELECT poll_id FROM renewed"
_LOCKED = _RENEW + _RENEWED
_LOCK_WAITING = text(_LOCKED)

# Return the newest demand profile in the first row; the others are the polls that changed since they were parked.
_CHANGED = """
    SELECT NULL AS poll_id, max(profile_id) AS newest_profile FROM demand_profiles
    UNION ALL
    SELECT a.poll_id, NULL
    FROM unnest(CAST(:polls AS text[]), CAST(:runner_ids AS text[]), CAST(:registrations AS bigint[]),
                CAST(:draining AS boolean[])) AS a(poll_id, runner_id, registration, draining)
    LEFT JOIN renewed USING (poll_id)
    LEFT JOIN runners n ON n.runner_id = a.runner_id AND n.runner_id = ANY(CAST(:runner_ids AS text[]))
    WHERE renewed.poll_id IS NULL OR n.runner_id IS NULL OR n.registration IS DISTINCT FROM a.registration
        OR n.left_at IS NOT NULL OR n.leave_requested_at IS NOT NULL OR n.lost_at IS NOT NULL
        OR (n.draining_since IS NOT NULL) <> a.draining OR n.last_seen < now() - interval '$quiet seconds'
        OR now() - make_interval(secs => :forget) > n.last_seen
            AND n.last_seen < (SELECT silent_before(CAST(:forget AS float)))
        OR (SELECT true FROM stop_commands c WHERE c.runner_id = a.runner_id
            AND $stop_due LIMIT 1)
        OR $scripts_due
        OR (SELECT true FROM runs r WHERE r.claim_poll_id = a.poll_id AND r.status = $CLAIMED LIMIT 1)
"""
_RENEWED_OR_CHANGED = _RENEW + _CHANGED
_FIND_CHANGED = sql(_RENEWED_OR_CHANGED, stop_due=STOP_DUE, scripts_due=SYNC_DUE_OF_N, quiet=str(QUIET_SECONDS))


def answer_polls(conn: Connection, asks: Sequence[Ask], *, limits: Limits = DEFAULT_LIMITS) -> list[Answer]:
    """Answer each poll with its stops, its scripts, its leave or runs, else park it (PROTOCOL, Runners).

    Runs are claimed and marked delivered here. Dispatchers see the row of a parked poll only after the commit, so
    ``claim_parked`` has to be called next, for what was submitted in between. Repeating a batch finds the runs it
    claimed by their poll id, and what it parked as parked. Errors per ask: RunnerNotRegistered.
    """
    contexts = _read_contexts(conn, asks, limits)
    if any(context.parked for context in contexts.values()):
        # Repeat of a committed batch: a worker may be claiming for these polls at this moment.
        return claim_parked(conn, asks, limits=limits)
    looked = _answer_without_claim(conn, asks, contexts, limits)
    claimed = _claim(conn, looked, looked.open_polls, limits)
    park_polls(conn, [poll for poll in looked.open_polls if claimed[poll.ask.poll_id].parked])
    answers = looked.answers | claimed
    return [answers[ask.poll_id] for ask in asks]


def claim_parked(conn: Connection, asks: Sequence[Ask], *, limits: Limits = DEFAULT_LIMITS) -> list[Answer]:
    """Claim again for polls that were just parked, or for which a re-check found something.

    Locks a poll's row and deletes it in the transaction that claims for it, so that no other transaction claims for it
    too; a poll without a row gets the runs assigned to it, or is parked anew when there are none (a crash restart
    empties the table). Renews ``seen_at``.
    """
    locked = {row.poll_id for row in conn.execute(_LOCK_WAITING, {"polls": [ask.poll_id for ask in asks]})}
    looked = _answer_without_claim(conn, asks, _read_contexts(conn, asks, limits), limits)
    claimed = _claim(conn, looked, [poll for poll in looked.open_polls if poll.ask.poll_id in locked], limits)
    answers = looked.answers | claimed
    done = [ask.poll_id for ask in asks if ask.poll_id in locked and not _waits(answers[ask.poll_id])]
    if done:
        unpark_polls(conn, done)
    idle = [poll for poll in looked.open_polls if claimed[poll.ask.poll_id].parked]
    park_polls(conn, [poll for poll in idle if poll.ask.poll_id not in locked])
    return [answers[ask.poll_id] for ask in asks]


def recheck_polls(conn: Connection, asks: Sequence[Ask], *, limits: Limits = DEFAULT_LIMITS) -> list[Answer]:
    """Re-check all parked polls of a process: ``claim_parked`` for those that changed or whose runner may take a ready
    run.

    Renews ``seen_at`` of all. Unchanged polls add one array element to this query and nothing else.
    """
    changed, newest_profile = _changed_polls(conn, asks, limits)
    may_claim = [ask for ask in asks if ask.wanted and not ask.draining and ask.poll_id not in changed]
    quiet = {ask.poll_id: ask.offer for ask in may_claim if ask.offer}
    if quiet:
        most = sum(ask.wanted for ask in asks)
        found = may_take(conn, list(quiet.values()), most, newest_profile, limits=limits)
        changed.update(poll_id for poll_id, may in zip(quiet, found, strict=True) if may)
    concerned = [ask for ask in asks if ask.poll_id in changed]
    claimed = claim_parked(conn, concerned, limits=limits) if concerned else []
    answers = {ask.poll_id: answer for ask, answer in zip(concerned, claimed, strict=True)}
    return [answers[ask.poll_id] if ask.poll_id in answers else PollAnswer(parked=True) for ask in asks]


def _changed_polls(conn: Connection, asks: Sequence[Ask], limits: Limits) -> tuple[set[str], int]:
    """Return the polls that changed since they were parked or have an order to tell, and the newest profile."""
    values = {
        "polls": [ask.poll_id for ask in asks],
        "runner_ids": [ask.runner_id for ask in asks],
        "registrations": [ask.offer.registration if ask.offer is not None else None for ask in asks],
        "draining": [ask.draining for ask in asks],
        "forget": limits.forget_runner,
        "again": STOP_RESEND_SECONDS,
    }
    rows = conn.execute(_FIND_CHANGED, values).all()
    newest_profile = max(row.newest_profile or 0 for row in rows)
    return {row.poll_id for row in rows if row.poll_id is not None}, newest_profile


def give_up_polls(
    conn: Connection,
    poll_ids: Sequence[str],
    *,
    limits: Limits = DEFAULT_LIMITS,
) -> list[list[Run]]:
    """End the polls; return the runs that a worker has just claimed for them, marked delivered: deliver or release
    them.
    """
    unpark_polls(conn, poll_ids)
    found = confirm_polls(conn, poll_ids, limits=limits)
    return [found.get(poll_id, []) for poll_id in poll_ids]


def _read_contexts(conn: Connection, asks: Sequence[Ask], limits: Limits) -> dict[str, PollContext]:
    rows = conn.execute(
        _LOOK,
        {
            "polls": [ask.poll_id for ask in asks],
            "runner_ids": [ask.runner_id for ask in asks],
            "forget": limits.forget_runner,
            "again": STOP_RESEND_SECONDS,
        },
    )
    contexts = {
        poll_id: PollContext(offer_of(*columns[_CONTEXT_WIDTH:]), *columns[:_CONTEXT_WIDTH])
        for poll_id, *columns in rows
    }
    known_offers(conn).note({context.runner_id: context.offer for context in contexts.values()})
    return contexts


def _answer_without_claim(
    conn: Connection, asks: Sequence[Ask], contexts: Mapping[str, PollContext], limits: Limits
) -> _Looked:
    """Answer the polls that need no claim: unknown runner, replaced process, order, or a run assigned already.

    A poll that is answered by a stop, scripts or a leave releases the runs that were assigned to it. Runs are locked
    before runners.
    """
    subjects = {ask.poll_id: ask.subject for ask in asks}
    known = {
        poll_id: context
        for poll_id, context in contexts.items()
        if not context.gone and acts_for(subjects[poll_id], context.owner)
    }
    replaced = _replaced(asks, known)
    live = {poll_id: context for poll_id, context in known.items() if poll_id not in replaced}
    stopping = _one_of_each(live, {poll_id for poll_id, context in live.items() if context.stop_due})
    fetching = _one_of_each(live, {poll_id for poll_id, context in live.items() if context.scripts_due} - stopping)
    interrupted = {*replaced, *stopping, *fetching, *(poll_id for poll_id, context in live.items() if context.to_leave)}
    assigned = [poll_id for poll_id, context in known.items() if context.assigned]
    released = interrupted.intersection(assigned)
    if released:
        release_polls(conn, sorted(released))
    rest = [poll_id for poll_id in assigned if poll_id not in released]
    assigned_runs = confirm_polls(conn, rest, limits=limits) if rest else {}
    quiet = sorted({context.runner_id for context in live.values() if context.quiet})
    if quiet:
        conn.execute(_RENEW_QUIET, {"runner_ids": quiet})
    stops = send_stops(conn, {live[poll_id].runner_id for poll_id in stopping})
    scripts = send_scripts(conn, {live[poll_id].runner_id: poll_id for poll_id in fetching})
    busy = {*stops, *(sent.runner_id for sent in scripts.values())}
    leaving = send_leave(
        conn, {context.runner_id for context in live.values() if context.to_leave and context.runner_id not in busy}
    )
    answers: dict[str, Answer] = {}
    open_polls: dict[str, PollCandidate] = {}
    for ask in asks:
        context = known.get(ask.poll_id)
        if context is None:
            answers[ask.poll_id] = RunnerNotRegistered(ask.runner_id)
            continue
        runs = assigned_runs.get(ask.poll_id, [])
        stop_sessions = stops.get(ask.runner_id, []) if ask.poll_id in stopping else []
        sent = scripts.get(ask.poll_id)
        answer = PollAnswer(
            stop_sessions=stop_sessions,
            scripts=sent,
            deregistered=not (stop_sessions or sent or runs) and (ask.poll_id in replaced or ask.runner_id in leaving),
            runs=runs,
            passed_over=ask.poll_id in released,
            registered_at=ask.registered_at or context.registered_at,
            draining=context.draining,
        )
        if answer.empty and not context.to_leave:
            open_polls[ask.poll_id] = poll_candidate(answer.update(ask), context.offer, context.capacity, context.owner)
        else:
            answers[ask.poll_id] = answer
    newest_profile = next((context.newest_profile or 0 for context in contexts.values()), 0)
    return _Looked(answers, list(open_polls.values()), released, newest_profile)


def _replaced(asks: Sequence[Ask], known: Mapping[str, PollContext]) -> set[str]:
    """Return the polls of processes whose registration another process has replaced since they first asked.

    A process that registers again as the same instance goes on, also with another offer.
    """
    return {
        ask.poll_id
        for ask in asks
        if ask.registered_at is not None
        and ask.poll_id in known
        and ask.registered_at != known[ask.poll_id].registered_at
    }


def _one_of_each(live: Mapping[str, PollContext], due: Collection[str]) -> set[str]:
    """Return for each runner the due poll that gets its order: one without an assigned run, if there is any."""
    chosen: dict[str, str] = {}
    for poll_id, context in live.items():
        if poll_id in due and (
            context.runner_id not in chosen or (live[chosen[context.runner_id]].assigned and not context.assigned)
        ):
            chosen[context.runner_id] = poll_id
    return set(chosen.values())


def _claim(
    conn: Connection, looked: _Looked, claimable: Sequence[PollCandidate], limits: Limits
) -> dict[str, PollAnswer]:
    assigned = claim_runs(conn, claimable, delivered=True, limits=limits, newest_profile=looked.newest_profile)
    asked = {poll.ask.poll_id for poll in claimable}
    answers: dict[str, PollAnswer] = {}
    for poll in looked.open_polls:
        poll_id = poll.ask.poll_id
        runs = assigned.runs.get(poll_id, [])
        answers[poll_id] = PollAnswer(
            runs=runs,
            parked=not runs,
            passed_over=poll_id in looked.released or (assigned.retry and poll_id in asked and not runs),
            offer=poll.offer if not runs else None,
            registered_at=poll.ask.registered_at,
            draining=poll.ask.draining,
        )
    return answers


def _waits(answer: Answer) -> bool:
    return isinstance(answer, PollAnswer) and answer.empty
