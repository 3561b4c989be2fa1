"""Headlines of explanations: one line that counts, as Kubernetes does."""

from collections.abc import Sequence
from typing import assert_never

from models.core.statuses import RunStatus
from models.explanations.reasons import Reason, ReasonCode
from models.explanations.run_facts import RunFacts
from models.explanations.runner_facts import RunnerState
from models.explanations.waiting import Waiting, drained_since, slots
from models.explanations.words import ago, ahead_of, are, counted, duration, lack

MOST_PARTS = 3


def headline_of(facts: RunFacts, reasons: Sequence[Reason]) -> str:
    """Return the headline of a run that is not ready: its first reason, or what it is doing."""
    run = facts.run
    match RunStatus(run.status):
        case RunStatus.PENDING | RunStatus.CLAIMED | RunStatus.STOPPING:
            return reasons[0].text if reasons else f"It is {run.status}"
        case RunStatus.RUNNING:
            started = "" if run.started_at is None else f" for {duration((facts.now - run.started_at).total_seconds())}"
            silent = next((f"; {reason.text}" for reason in reasons if reason.code is ReasonCode.SILENT), "")
            return f"It has been running on {run.runner_id}{started}{silent}"
        case RunStatus.COMPLETED | RunStatus.FAILED | RunStatus.STOPPED:
            ended = "" if run.completed_at is None else f", {ago(facts.now, run.completed_at)}"
            return f"{reasons[0].text if reasons else 'It has ended'}{ended}"
        case status:
            assert_never(status)


def headline_of_ready(waiting: Waiting) -> str:
    """Return how many of the runners can take the run, what keeps the others from it, and what is before it."""
    runners = waiting.runners
    known = len(runners.known)
    if not known:
        return f"No runner is registered{_fails(waiting)}"
    if waiting.taken_now:
        return f"{runners.free:,} of {counted(known, 'runner')} can take it now: a claim is due"
    parts = [lack(number, lacking) for lacking, number in runners.rejections[:MOST_PARTS]]
    others = sum(number for _, number in runners.rejections[MOST_PARTS:])
    if others:
        parts.append(f"{others:,} lack other combinations")
    parts += [_matching(waiting, state) for state in RunnerState if runners.group(state)]
    return (
        f"{runners.free:,} of {counted(known, 'runner')} can take it: {', '.join(parts)}{_behind(waiting)}"
        f"{_fails(waiting)}"
    )


def _matching(waiting: Waiting, state: RunnerState) -> str:
    runners = waiting.runners.group(state)
    number = len(runners)
    match state:
        case RunnerState.FREE:
            return f"{number:,} {are(number)} free"
        case RunnerState.EXCLUDED:
            return f"{number:,} had it before and may not have it again"
        case RunnerState.FULL:
            used, capacity = slots(runners)
            does = f"{are(number)} full ({used:,} of {capacity:,})"
        case RunnerState.STALE:
            does = f"{are(number)} silent"
        case RunnerState.NOT_POLLING:
            does = f"{'does' if number == 1 else 'do'} not ask for runs now"
        case RunnerState.LEAVING:
            does = f"{are(number)} leaving"
        case RunnerState.DRAINING:
            now = waiting.facts.now
            does = f"{are(number)} draining since {ago(now, drained_since(runners, now))}"
        case _:
            assert_never(state)
    return f"{number:,} match{'es' if number == 1 else ''} and {does}"


def _behind(waiting: Waiting) -> str:
    ahead = waiting.ahead
    if ahead is None or not ahead.count:
        return ""
    eta = "" if ahead.eta_seconds is None else f", about {duration(ahead.eta_seconds)}"
    return f"; {counted(ahead.count, 'run', exact=ahead.exact)} {are(ahead.count)} ahead{eta}"


def _fails(waiting: Waiting) -> str:
    due = waiting.facts.run.timeout_at
    return "" if due is None else f"; it fails {ahead_of(waiting.facts.now, due)} unless one comes"
