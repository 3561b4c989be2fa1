"""Explains why a runner gets no run: read-only, in at most three statements, by the matchmaker's own rules."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection

from models.core.callers import Caller
from models.core.errors import NotFound
from models.core.limits import DEFAULT_LIMITS, Limits
from models.explanations.idle import Idle, idle_reasons
from models.explanations.queues import (
    MOST_PROFILES,
    MOST_READ,
    dry_claim,
    read_queue,
    ready_profiles,
    satisfied_by,
)
from models.explanations.reasons import ReadyRuns, Reason, ReasonCode, RunnerExplanation
from models.explanations.runner_facts import RunnerFacts, read_runners
from models.explanations.sorting import MOST_REJECTED, OTHERWISE, Lacks, lacks
from models.state.visibility import acts_for

# Codes that say what the ready runs demand.
_OF_RUNS: Final = {ReasonCode.NO_READY_RUN, ReasonCode.NO_READY_MATCH, ReasonCode.ALL_EXCLUDED}


def explain_runner(
    conn: Connection, caller: Caller, runner_id: str, *, limits: Limits = DEFAULT_LIMITS
) -> RunnerExplanation | NotFound:
    """Return why the runner gets no run now; NotFound for one of another owner (PROTOCOL, Explanations).

    There is no blocking reason if and only if a claim for the polls that wait now would give it one, as far as the
    bounds go. Admins see what runs demand in full, others only the kind: the runs may be of any owner.
    """
    runners = read_runners(conn, limits, runner_id)
    runner = next((runner for runner in runners if runner.runner_id == runner_id), None)
    if runner is None or not acts_for(caller.subject, runner.owner):
        return NotFound("runner", runner_id)
    idle = _idle(conn, runner, [other for other in runners if other.known], limits, in_full=caller.subject is None)
    reasons = idle_reasons(idle)
    return RunnerExplanation(
        runner.runner_id,
        _status(runner),
        runner.last_seen if runner.stale or runner.lost_at else runner.registered_at,
        _headline(reasons),
        reasons,
        runner.in_hand,
        runner.capacity,
        len(runner.asks),
        ReadyRuns(idle.ready, idle.exact, idle.match, _rejected(idle)),
        runner.now,
    )


def _idle(
    conn: Connection, runner: RunnerFacts, known: Sequence[RunnerFacts], limits: Limits, *, in_full: bool
) -> Idle:
    found = ready_profiles(conn, each=MOST_READ)
    profiles = {profile_id: profile.demands for profile_id, profile in found.items()}
    matching = {profile_id for profile_id, demands in profiles.items() if runner.offer.satisfies(demands)}
    rejected: Counter[Lacks] = Counter()
    for profile_id in profiles.keys() - matching:
        rejected[lacks(runner.offer, profiles[profile_id])] += found[profile_id].runs
    polling = [runner, *(other for other in known if other.asks)]
    queue = read_queue(conn, satisfied_by(polling, profiles), limits) if matching else ()
    return Idle(
        runner,
        sum(found[profile_id].runs for profile_id in matching),
        rejected,
        len(found) < MOST_PROFILES and all(profile.exact for profile in found.values()),
        [run for run in queue if run.profile_id in matching],
        runner.runner_id in dry_claim(queue, known, profiles).values(),
        in_full,
    )


def _rejected(idle: Idle) -> dict[str, int]:
    texts: Counter[str] = Counter()
    for lacking, number in idle.rejections:
        text = idle.text_of(lacking)
        texts[text if text in texts or len(texts) < MOST_REJECTED else OTHERWISE] += number
    return dict(texts)


def _status(runner: RunnerFacts) -> str:
    if not runner.known:
        return "gone"
    if runner.leave_requested_at is not None:
        return "leaving"
    if runner.lost_at is not None:
        return "lost"
    return "stale" if runner.stale else "online"


def _headline(reasons: Sequence[Reason]) -> str:
    """Return the first reason of the runner itself, and the first one of the ready runs."""
    blocking = [reason for reason in reasons if reason.blocking] or list(reasons)
    first = blocking[:1] + [reason for reason in blocking[1:] if reason.code in _OF_RUNS][:1]
    return "; ".join(reason.text for reason in first)
