"""Verbs of a runner's poll: answer it, park it, re-check it, give it up."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, text

from models.claims.claim import Ask, PollCandidate, claim_runs, may_take, poll_candidate
from models.claims.delivery import confirm_polls, release_polls
from models.claims.parking import park_polls, unpark_polls
from models.core.errors import RunnerNotRegistered
from models.core.limits import DEFAULT_LIMITS, Limits
from models.schema.sql import sql
from models.state.runs import Run
from models.state.visibility import acts_for

STOP_RESEND_SECONDS = 10


@dataclass(slots=True)
class PollAnswer:
    """Answer of a poll: the first of stops, leave and runs that there is; else it is parked or not.

    ``passed_over``: a run for it was locked by another transaction, which may release it, or was released because of
    this answer: notify dispatch once more.
    """

    stop_sessions: list[str] = field(default_factory=list)
    deregistered: bool = False
    runs: list[Run] = field(default_factory=list)
    parked: bool = False
    passed_over: bool = False

    @property
    def empty(self) -> bool:
        return not (self.stop_sessions or self.deregistered or self.runs)


Answer = PollAnswer | RunnerNotRegistered

# Read per poll its registration, due stops and assigned runs by one probe each. EXISTS might be answered by reading all
# stops and all claimed runs.
_LOOK = sql("""
    SELECT a.poll_id, n.runner_id, n.registration, n.hostname, n.project_dir, n.executor_profile, n.executor_type,
        n.tags, n.require_matching_tags, n.capacity, n.owner,
        n.left_at IS NOT NULL OR n.leave_told_at IS NOT NULL
            OR now() - make_interval(secs => :forget) > n.last_seen
                AND n.last_seen < (SELECT silent_before(CAST(:forget AS float))) AS gone,
        n.leave_requested_at IS NOT NULL AS to_leave, n.registered_at,
        n.lost_at IS NOT NULL OR n.last_seen < now() - interval '30 seconds' AS quiet,
        (SELECT true FROM stop_commands c WHERE c.runner_id = a.runner_id
            AND (c.sent_at IS NULL OR c.sent_at < now() - make_interval(secs => :again)) LIMIT 1) IS TRUE AS stop_due,
        (SELECT true FROM runs r WHERE r.claim_poll_id = a.poll_id AND r.status = $CLAIMED LIMIT 1) IS TRUE
            AS assigned,
        (SELECT true FROM waiting_polls w WHERE w.poll_id = a.poll_id) IS TRUE AS parked,
        (SELECT max(profile_id) FROM demand_profiles) AS newest_profile
    FROM unnest(CAST(:polls AS text[]), CAST(:runner_ids AS text[])) AS a(poll_id, runner_id)
    JOIN runners n ON n.runner_id = a.runner_id AND n.runner_id = ANY(CAST(:runner_ids AS text[]))
""")

# Renew a quiet runner before it claims: else expiry takes the runs of a lost one. A locked row is renewed later.
_RENEW_QUIET = text("""
    UPDATE runners SET last_seen = clock_timestamp(), lost_at = NULL
    WHERE runner_id IN (
        SELECT runner_id FROM runners WHERE runner_id = ANY(CAST(:runner_ids AS text[]))
        ORDER BY runner_id FOR NO KEY UPDATE SKIP LOCKED)
""")

_SEND_STOPS = text("""
    UPDATE stop_commands c SET sent_at = clock_timestamp()
    FROM (SELECT stop_id FROM stop_commands
          WHERE runner_id = ANY(CAST(:runner_ids AS text[]))
            AND (sent_at IS NULL OR sent_at < now() - make_interval(secs => :again))
          ORDER BY stop_id FOR UPDATE SKIP LOCKED) due
    WHERE c.stop_id = due.stop_id
    RETURNING c.runner_id, c.session_id, c.stop_id
""")

_SEND_LEAVE = text("""
    UPDATE runners SET leave_told_at = clock_timestamp()
    WHERE runner_id IN (
        SELECT runner_id FROM runners WHERE runner_id = ANY(CAST(:runner_ids AS text[])) AND leave_told_at IS NULL
        ORDER BY runner_id FOR NO KEY UPDATE)
    RETURNING runner_id
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
    FROM unnest(CAST(:polls AS text[]), CAST(:runner_ids AS text[]), CAST(:registrations AS bigint[]))
        AS a(poll_id, runner_id, registration)
    LEFT JOIN renewed USING (poll_id)
    LEFT JOIN runners n ON n.runner_id = a.runner_id AND n.runner_id = ANY(CAST(:runner_ids AS text[]))
    WHERE renewed.poll_id IS NULL OR n.runner_id IS NULL OR n.registration IS DISTINCT FROM a.registration
        OR n.left_at IS NOT NULL OR n.leave_requested_at IS NOT NULL OR n.lost_at IS NOT NULL
        OR n.last_seen < now() - interval '30 seconds'
        OR now() - make_interval(secs => :forget) > n.last_seen
            AND n.last_seen < (SELECT silent_before(CAST(:forget AS float)))
        OR (SELECT true FROM stop_commands c WHERE c.runner_id = a.runner_id
            AND (c.sent_at IS NULL OR c.sent_at < now() - make_interval(secs => :again)) LIMIT 1)
        OR (SELECT true FROM runs r WHERE r.claim_poll_id = a.poll_id AND r.status = $CLAIMED LIMIT 1)
"""
_RENEWED_OR_CHANGED = _RENEW + _CHANGED
_FIND_CHANGED = sql(_RENEWED_OR_CHANGED)


def answer_polls(conn: Connection, asks: Sequence[Ask], *, limits: Limits = DEFAULT_LIMITS) -> list[Answer]:
    """Answer each poll with its stops, its leave or runs, else park it (PROTOCOL, Runners).

    Runs are claimed and marked delivered here. Dispatchers see the row of a parked poll only after the commit, so
    ``claim_parked`` has to be called next, for what was submitted in between. Repeating a batch finds the runs it
    claimed by their poll id, and what it parked as parked. Errors per ask: RunnerNotRegistered.
    """
    states = _read_states(conn, asks, limits)
    if any(row.parked for row in states.values()):
        # Repeat of a committed batch: a worker may be claiming for these polls at this moment.
        return claim_parked(conn, asks, limits=limits)
    answers, open_asks = _answer_without_claim(conn, asks, states, limits)
    _claim(conn, open_asks, answers, limits, _newest_profile(states))
    idle = [poll for poll in open_asks if _answer(answers, poll).empty]
    _park(conn, idle, answers)
    return [answers[ask.poll_id] for ask in asks]


def claim_parked(conn: Connection, asks: Sequence[Ask], *, limits: Limits = DEFAULT_LIMITS) -> list[Answer]:
    """Claim again for polls that were just parked, or for which a re-check found something.

    Locks a poll's row and deletes it in the transaction that claims for it, so that no other transaction claims for it
    too; a poll without a row gets the runs assigned to it, or is parked anew when there are none (a crash restart
    empties the table). Renews ``seen_at``.
    """
    locked = {row.poll_id for row in conn.execute(_LOCK_WAITING, {"polls": [ask.poll_id for ask in asks]})}
    states = _read_states(conn, asks, limits)
    answers, open_asks = _answer_without_claim(conn, asks, states, limits)
    _claim(conn, [poll for poll in open_asks if poll.ask.poll_id in locked], answers, limits, _newest_profile(states))
    done = [ask.poll_id for ask in asks if ask.poll_id in locked and not _waits(answers[ask.poll_id])]
    if done:
        unpark_polls(conn, done)
    idle = [poll for poll in open_asks if _answer(answers, poll).empty]
    _park(conn, idle, answers, locked)
    return [answers[ask.poll_id] for ask in asks]


def recheck_polls(conn: Connection, asks: Sequence[Ask], *, limits: Limits = DEFAULT_LIMITS) -> list[Answer]:
    """Re-check all parked polls of a process: ``claim_parked`` for those that changed or whose runner may take a ready
    run.

    Renews ``seen_at`` of all. Unchanged polls add one array element to this query and nothing else.
    """
    changed, newest_profile = _changed_polls(conn, asks, limits)
    quiet = {ask.poll_id: ask.offer for ask in asks if ask.offer and ask.wanted and ask.poll_id not in changed}
    if quiet:
        most = sum(ask.wanted for ask in asks)
        found = may_take(conn, list(quiet.values()), most, newest_profile, limits=limits)
        changed.update(poll_id for poll_id, may in zip(quiet, found, strict=True) if may)
    concerned = [ask for ask in asks if ask.poll_id in changed]
    claimed = claim_parked(conn, concerned, limits=limits) if concerned else []
    answers = {ask.poll_id: answer for ask, answer in zip(concerned, claimed, strict=True)}
    return [answers[ask.poll_id] if ask.poll_id in answers else PollAnswer(parked=True) for ask in asks]


def _changed_polls(conn: Connection, asks: Sequence[Ask], limits: Limits) -> tuple[set[str], int]:
    """Return the polls that changed since they were parked or have a stop or leave to tell, and the newest profile."""
    values = {
        "polls": [ask.poll_id for ask in asks],
        "runner_ids": [ask.runner_id for ask in asks],
        "registrations": [ask.offer.registration if ask.offer is not None else None for ask in asks],
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


def _read_states(conn: Connection, asks: Sequence[Ask], limits: Limits) -> dict[str, Row[Any]]:
    """Return the state of each poll, without locks; polls of unknown runners are left out."""
    rows = conn.execute(
        _LOOK,
        {
            "polls": [ask.poll_id for ask in asks],
            "runner_ids": [ask.runner_id for ask in asks],
            "forget": limits.forget_runner,
            "again": STOP_RESEND_SECONDS,
        },
    )
    return {row.poll_id: row for row in rows}


def _answer_without_claim(
    conn: Connection,
    asks: Sequence[Ask],
    states: dict[str, Row[Any]],
    limits: Limits,
) -> tuple[dict[str, Answer], list[PollCandidate]]:
    """Answer the polls that need no claim: unknown runner, replaced process, stop, leave, or a run assigned already.

    A poll that is answered by a stop or a leave releases the runs that were assigned to it. Runs are locked before
    runners.
    """
    subjects = {ask.poll_id: ask.subject for ask in asks}
    known = {poll_id: row for poll_id, row in states.items() if not row.gone and acts_for(subjects[poll_id], row.owner)}
    replaced = _replaced(asks, known)
    live = {poll_id: row for poll_id, row in known.items() if poll_id not in replaced}
    stopping = _polls_to_stop(live)
    interrupted = {*replaced, *stopping, *(poll_id for poll_id, row in live.items() if row.to_leave)}
    assigned = [poll_id for poll_id, row in known.items() if row.assigned]
    given_back = interrupted.intersection(assigned)
    if given_back:
        release_polls(conn, sorted(given_back))
    rest = [poll_id for poll_id in assigned if poll_id not in given_back]
    assigned_runs = confirm_polls(conn, rest, limits=limits) if rest else {}
    quiet = sorted({row.runner_id for row in live.values() if row.quiet})
    if quiet:
        conn.execute(_RENEW_QUIET, {"runner_ids": quiet})
    stops = _due_stops(conn, [live[poll_id] for poll_id in stopping])
    leaving = _send_leave(conn, [row for row in live.values() if row.to_leave and row.runner_id not in stops])
    answers: dict[str, Answer] = {}
    open_asks: list[PollCandidate] = []
    for ask in asks:
        if ask.poll_id in answers:
            continue
        row = known.get(ask.poll_id)
        if row is None:
            answers[ask.poll_id] = RunnerNotRegistered(ask.runner_id)
            continue
        answer = PollAnswer(runs=assigned_runs.get(ask.poll_id, []), passed_over=ask.poll_id in given_back)
        if ask.poll_id in stopping:
            answer.stop_sessions = stops.get(ask.runner_id, [])
        if not answer.stop_sessions and not answer.runs:
            answer.deregistered = ask.poll_id in replaced or ask.runner_id in leaving
        answers[ask.poll_id] = answer
        if answer.empty and not row.to_leave:
            open_asks.append(poll_candidate(ask, row))
    return answers, open_asks


def _replaced(asks: Sequence[Ask], known: Mapping[str, Row[Any]]) -> set[str]:
    """Return the polls of processes whose registration another process has replaced since they first asked.

    A process that registers again as the same instance goes on, also with another offer.
    """
    replaced: set[str] = set()
    for ask in asks:
        row = known.get(ask.poll_id)
        if row is not None and ask.registered_at is None:
            ask.registered_at = row.registered_at
        if row is not None and ask.registered_at != row.registered_at:
            replaced.add(ask.poll_id)
    return replaced


def _polls_to_stop(live: Mapping[str, Row[Any]]) -> set[str]:
    """Return for each runner with due stops the poll that gets them: one without an assigned run, if there is any."""
    chosen: dict[str, str] = {}
    for poll_id, row in live.items():
        if row.stop_due and (
            row.runner_id not in chosen or (live[chosen[row.runner_id]].assigned and not row.assigned)
        ):
            chosen[row.runner_id] = poll_id
    return set(chosen.values())


def _due_stops(conn: Connection, rows: Sequence[Row[Any]]) -> dict[str, list[str]]:
    if not rows:
        return {}
    parameters = {"runner_ids": sorted({row.runner_id for row in rows}), "again": STOP_RESEND_SECONDS}
    stops: dict[str, list[str]] = {}
    for row in sorted(conn.execute(_SEND_STOPS, parameters), key=lambda row: int(row.stop_id)):
        stops.setdefault(row.runner_id, []).append(row.session_id)
    return stops


def _send_leave(conn: Connection, rows: Sequence[Row[Any]]) -> set[str]:
    if not rows:
        return set()
    reached = conn.execute(_SEND_LEAVE, {"runner_ids": sorted({row.runner_id for row in rows})})
    return set(reached.scalars())


def _newest_profile(states: dict[str, Row[Any]]) -> int:
    return next((row.newest_profile or 0 for row in states.values()), 0)


def _claim(
    conn: Connection,
    poll_candidates: Sequence[PollCandidate],
    answers: dict[str, Answer],
    limits: Limits,
    newest_profile: int,
) -> None:
    assigned = claim_runs(conn, poll_candidates, delivered=True, limits=limits, newest_profile=newest_profile)
    for poll in poll_candidates:
        answer = _answer(answers, poll)
        answer.runs = assigned.runs.get(poll.ask.poll_id, [])
        answer.passed_over = answer.passed_over or (assigned.retry and not answer.runs)


def _park(
    conn: Connection, idle: Sequence[PollCandidate], answers: dict[str, Answer], locked: Collection[str] = ()
) -> None:
    """Park the polls; locked ones have their row already."""
    park_polls(conn, [poll for poll in idle if poll.ask.poll_id not in locked])
    for poll in idle:
        poll.ask.offer = poll.offer
        _answer(answers, poll).parked = True


def _answer(answers: dict[str, Answer], poll: PollCandidate) -> PollAnswer:
    answer = answers[poll.ask.poll_id]
    if isinstance(answer, RunnerNotRegistered):
        raise TypeError(answer)
    return answer


def _waits(answer: Answer) -> bool:
    return isinstance(answer, PollAnswer) and answer.empty
