"""Explains why a run does not run: read-only, in at most four statements, by the matchmaker's own rules.

The statements see the database one after the other, so that a run which moves meanwhile may be explained as it was.
"""

from dataclasses import replace
from datetime import datetime
from typing import assert_never

from sqlalchemy import Connection

from models.core.callers import Caller
from models.core.errors import NotFound
from models.core.limits import DEFAULT_LIMITS, Limits
from models.core.statuses import RunStatus
from models.explanations.headlines import headline_of, headline_of_ready
from models.explanations.in_hand import ended, in_hand
from models.explanations.queues import dry_claim, most_read, read_queue, ready_profiles, satisfied_by
from models.explanations.reasons import Ahead, Reason, RunExplanation
from models.explanations.run_facts import RunFacts, read_run_facts
from models.explanations.runner_facts import read_runners
from models.explanations.sorting import SortedRunners
from models.explanations.waiting import Waiting, not_ready, ready, retried


def explain_run(
    conn: Connection, caller: Caller, run_id: str, *, limits: Limits = DEFAULT_LIMITS
) -> RunExplanation | NotFound:
    """Return why the run does not run now; NotFound for another owner's (PROTOCOL, Explanations).

    A ready run has no blocking reason if and only if a claim for the polls that wait now would give it out, as far as
    the bounds go: 1,000 runners and 1,000 runs before it.
    """
    facts = read_run_facts(conn, caller, run_id, limits)
    if isinstance(facts, NotFound):
        return facts
    match RunStatus(facts.run.status):
        case RunStatus.PENDING:
            return _of_ready(conn, caller, facts, limits) if facts.ready else _plain(facts, not_ready(facts))
        case RunStatus.CLAIMED | RunStatus.RUNNING | RunStatus.STOPPING:
            return _plain(facts, in_hand(facts, limits))
        case RunStatus.COMPLETED | RunStatus.FAILED | RunStatus.STOPPED:
            return _plain(facts, ended(facts))
        case status:
            assert_never(status)


def _plain(facts: RunFacts, reasons: list[Reason]) -> RunExplanation:
    if facts.run.status == RunStatus.PENDING:
        reasons = reasons + retried(facts)
    return RunExplanation(
        facts.run.run_id, facts.run.status, _since(facts), headline_of(facts, reasons), reasons, facts.now
    )


def _of_ready(conn: Connection, caller: Caller, facts: RunFacts, limits: Limits) -> RunExplanation:
    known = [runner for runner in read_runners(conn, limits) if runner.known]
    runners = SortedRunners(known, facts.demands, facts.excluded_registrations or ())
    ahead, taken_now = _queue(conn, facts, runners, limits) if runners.matching else (None, False)
    waiting = Waiting(facts, caller, runners, ahead, taken_now)
    reasons = ready(waiting)
    explained = _plain(facts, [])
    return replace(
        explained,
        headline=headline_of_ready(waiting),
        reasons=reasons,
        runners=runners.counts,
        ahead=ahead,
    )


def _queue(conn: Connection, facts: RunFacts, runners: SortedRunners, limits: Limits) -> tuple[Ahead, bool]:
    """Return how many runs are before this one, and whether a pass of dispatch would give it out all the same."""
    profiles = {profile_id: profile.demands for profile_id, profile in ready_profiles(conn).items()}
    profiles[facts.profile_id] = facts.demands
    polling_first = sorted(runners.matching, key=lambda runner: not runner.asks)
    competing = {facts.profile_id, *satisfied_by(polling_first, profiles)}
    read = read_queue(conn, competing, limits, lowest=facts.run.priority)
    place = next((place for place, run in enumerate(read) if run.run_id == facts.run.run_id), None)
    if place is None:
        more = len(read) >= most_read(len(competing))
        return Ahead(len(read), exact=not more), False
    taken_now = facts.run.run_id in dry_claim(read[: place + 1], runners.known, profiles) if runners.free else False
    seconds, based_on = _eta(place + 1, runners)
    return Ahead(place, exact=True, eta_seconds=seconds, based_on=based_on), taken_now


def _eta(place: int, runners: SortedRunners) -> tuple[float | None, str | None]:
    """Estimate the time until so many runs are claimed: that many ends of the runs in hand now, whose age so far is
    taken for what is left of them.
    """
    live = [runner for runner in runners.matching if runner.live and runner.draining_since is None]
    in_hand = sum(runner.in_hand for runner in live)
    if not in_hand or runners.free:
        return None, None
    seconds = sum(runner.seconds_in_hand for runner in live) / in_hand * place / in_hand
    return round(seconds, 1), f"age of the {in_hand} runs in hand of runners that match"


def _since(facts: RunFacts) -> datetime | None:
    """Return since when the run has its status."""
    run = facts.run
    match RunStatus(run.status):
        case RunStatus.PENDING:
            return facts.ready_at or run.created_at
        case RunStatus.CLAIMED:
            return run.claimed_at
        case RunStatus.RUNNING:
            return run.started_at
        case RunStatus.STOPPING:
            return facts.stop_at
        case RunStatus.COMPLETED | RunStatus.FAILED | RunStatus.STOPPED:
            return run.completed_at
        case status:
            assert_never(status)
