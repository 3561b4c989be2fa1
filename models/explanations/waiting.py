"""Reasons of a pending run: what keeps it from being ready, and then what keeps each runner from getting it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from models.claims.fleet import Value, demanded
from models.claims.matching import AUTONOMOUS, Demands
from models.core.callers import Caller
from models.core.retries import read_policy
from models.core.statuses import Outcome
from models.explanations.reasons import Ahead, Reason, ReasonCode
from models.explanations.run_facts import RunFacts
from models.explanations.runner_facts import RunnerFacts, RunnerState
from models.explanations.sorting import MOST_NAMED, SortedRunners, may_name
from models.explanations.words import ago, ahead_of, are, counted, duration, first_line, named
from models.state.runs import iso

# Time after which what should have happened at once is a fault of ours.
FAULT_SECONDS: Final = 5
OPERATIONS: Final = "see docs/operations.md, Why does it wait"


@dataclass(frozen=True, slots=True)
class Waiting:
    """Ready run with the runners as they are now; ``taken_now``: a pass of dispatch would give it out."""

    facts: RunFacts
    caller: Caller
    runners: SortedRunners
    ahead: Ahead | None
    taken_now: bool

    def names(self, runners: Sequence[RunnerFacts]) -> dict[str, Any]:
        """Return detail with the ids of runners that the caller may list."""
        shown = [runner.runner_id for runner in runners if may_name(self.caller, runner)][:MOST_NAMED]
        return {"runners": len(runners)} | ({"runner_ids": shown} if shown else {})


# Runs that are not ready


def _delayed(facts: RunFacts) -> Reason | None:
    due = facts.run.not_before
    if due is None or due <= facts.now:
        return None
    if facts.retry is not None and facts.former_outcome == Outcome.FAILED:
        retry, most = facts.run.attempt, read_policy(facts.retry).max_attempts - 1
        return Reason(
            ReasonCode.DELAYED,
            f"It starts {ahead_of(facts.now, due)} at the earliest: retry {retry} of {most} after failure",
            until=due,
            detail={"retry": retry, "most_retries": most},
            fix="nothing to do: its retry policy says so; its timeline has the error of each attempt",
        )
    return Reason(
        ReasonCode.DELAYED,
        f"It starts {ahead_of(facts.now, due)} at the earliest, as it was submitted",
        since=facts.run.created_at,
        until=due,
        fix="submit it without not_before to start it at once",
    )


def _behind_in_session(facts: RunFacts) -> Reason | None:
    if facts.earlier_run_id is None:
        return None
    return Reason(
        ReasonCode.BEHIND_IN_SESSION,
        f"It waits for {facts.earlier_run_id} of its session, which is {facts.earlier_status}",
        detail={"run_id": facts.earlier_run_id, "status": facts.earlier_status},
        fix=f"runs of a session go one after the other: ask why {facts.earlier_run_id} is not finished",
    )


def _stop_open(facts: RunFacts) -> Reason | None:
    if facts.stop_at is None:
        return None
    told = "has not been told yet" if facts.stop_sent_at is None else f"was told {ago(facts.now, facts.stop_sent_at)}"
    ends = "" if facts.stop_deadline_at is None else f"; given up {ahead_of(facts.now, facts.stop_deadline_at)}"
    return Reason(
        ReasonCode.STOP_OPEN,
        f"Its session is being stopped: runner {facts.stop_runner_id} {told}{ends}",
        since=facts.stop_at,
        until=facts.stop_deadline_at,
        detail={"runner_id": facts.stop_runner_id, "told_at": iso(facts.stop_sent_at)},
        fix="nothing to do: it goes on when the runner reports the end, or when the stop is given up",
    )


def _held(facts: RunFacts) -> Reason | None:
    if facts.hold_name is None:
        return None
    itself = facts.hold_run_id is not None
    hold = "It is held" if itself else f"The hold {facts.hold_name} applies to it"
    since = "" if facts.held_at is None else f", since {ago(facts.now, facts.held_at)}"
    note = f": {first_line(facts.hold_note)}" if facts.hold_note else ""
    return Reason(
        ReasonCode.HELD,
        f"{hold}, by {facts.held_by or 'an administrator'}{since}{note}",
        since=facts.held_at,
        detail={"hold": facts.hold_name, "by": facts.held_by, "note": facts.hold_note},
        fix=f"release it: coordinator release {facts.run.run_id if itself else f'--hold {facts.hold_name}'}",
    )


NOT_READY: Final[Sequence[Callable[[RunFacts], Reason | None]]] = (_held, _delayed, _behind_in_session, _stop_open)


def not_ready(facts: RunFacts) -> list[Reason]:
    found = [reason for check in NOT_READY if (reason := check(facts)) is not None]
    return found or [_should_be_ready(facts)]


def _should_be_ready(facts: RunFacts) -> Reason:
    return Reason(
        ReasonCode.SHOULD_BE_READY,
        f"Nothing delays it: a worker makes it ready within seconds; {_expiry(facts)}",
        detail={"expired_at": iso(facts.expired_at)},
        fix=f"if it stays so, workers are away or late: {OPERATIONS}",
    )


def _expiry(facts: RunFacts) -> str:
    if facts.expired_at is None:
        return "no worker ever did its duties"
    return f"workers did their duties {ago(facts.now, facts.expired_at)}"


# Ready runs


def ready(waiting: Waiting) -> list[Reason]:
    """Return the reasons of a ready run; none of them blocks if a waiting poll would get it now."""
    if waiting.taken_now:
        found = _should_be_claimed(waiting)
    elif not waiting.runners.known:
        found = [_no_runner(waiting.facts)]
    elif not waiting.runners.matching:
        found = [_no_match(waiting)]
    else:
        found = [] if waiting.runners.free else _unavailable(waiting)
        found += _ahead(waiting)
    return found + _affinity(waiting, found) + retried(waiting.facts)


def _should_be_claimed(waiting: Waiting) -> list[Reason]:
    facts = waiting.facts
    since = facts.ready_at or facts.run.created_at
    if facts.now - since < timedelta(seconds=FAULT_SECONDS):
        return []
    return [
        Reason(
            ReasonCode.SHOULD_BE_CLAIMED,
            f"A free runner waits for it and no run is before it: a claim is due; {_expiry(facts)}",
            blocking=False,
            since=since,
            detail={"expired_at": iso(facts.expired_at)},
            fix=f"if it stays so, the coordinator is at fault: workers or Redis are away; {OPERATIONS}",
        )
    ]


def _no_runner(facts: RunFacts) -> Reason:
    return Reason(
        ReasonCode.NO_RUNNER,
        "No runner is registered",
        until=facts.run.timeout_at,
        fix="start one: coordinator runner -- COMMAND",
    )


def _no_match(waiting: Waiting) -> Reason:
    facts, runners = waiting.facts, waiting.runners
    wanted = named(_worth_naming(facts.demands)) or "a tag that the runners ask for"
    detail: dict[str, Any] = {"rejected": dict(runners.counts.rejected)}
    nearest = runners.nearest
    number = len(runners.known)
    text = f"{'The only runner does not offer' if number == 1 else f'None of {number:,} runners offers'} {wanted}"
    if nearest is not None and may_name(waiting.caller, nearest.runner):
        lacking = named(nearest.lacks) or "a tag in common: it takes tagged runs only"
        text += f"; {nearest.runner.runner_id} is nearest and lacks {lacking}"
        detail["nearest"] = {"runner_id": nearest.runner.runner_id, "lacks": [list(value) for value in nearest.lacks]}
    return Reason(
        ReasonCode.NO_MATCH,
        text,
        until=facts.run.timeout_at,
        detail=detail,
        fix=f"start a runner that offers {wanted}, or submit the run with other demands",
    )


def _worth_naming(demands: Demands) -> list[Value]:
    """Return the demanded values, but for the executor type that every run demands."""
    values = demanded(demands)
    return [value for value in values if value != ("executor_type", AUTONOMOUS)] or values


def _unavailable(waiting: Waiting) -> list[Reason]:
    """Return a reason for each group of runners that match and cannot take it now; none of them is free."""
    return [
        check(waiting, waiting.runners.group(state))
        for state, check in _UNAVAILABLE.items()
        if waiting.runners.group(state)
    ]


def _full(waiting: Waiting, runners: Sequence[RunnerFacts]) -> Reason:
    used, capacity = slots(runners)
    return Reason(
        ReasonCode.MATCHING_FULL,
        f"{counted(len(runners), 'runner')} that match{_es(runners)} {are(len(runners))} full ({used} of {capacity})",
        detail=waiting.names(runners) | {"used": used, "capacity": capacity},
        fix="wait for a run to end, start another runner, or raise a runner's capacity",
    )


def slots(runners: Sequence[RunnerFacts]) -> tuple[int, int]:
    """Return the runs in hand and the capacity of full runners; one without capacity takes what it has."""
    used = sum(runner.in_hand for runner in runners)
    return used, sum(runner.in_hand if runner.capacity is None else runner.capacity for runner in runners)


def _silent(waiting: Waiting, runners: Sequence[RunnerFacts]) -> Reason:
    newest = max(runner.last_seen for runner in runners)
    return Reason(
        ReasonCode.MATCHING_SILENT,
        f"{counted(len(runners), 'runner')} that match{_es(runners)} {are(len(runners))} silent, "
        f"the last sign of life was {ago(waiting.facts.now, newest)}",
        since=newest,
        until=waiting.facts.run.timeout_at,
        detail=waiting.names(runners) | {"lost": sum(runner.lost_at is not None for runner in runners)},
        fix="look whether their processes and machines run, and reach the coordinator",
    )


def _not_polling(waiting: Waiting, runners: Sequence[RunnerFacts]) -> Reason:
    busy = sum(runner.in_hand > 0 for runner in runners)
    return Reason(
        ReasonCode.MATCHING_NOT_POLLING,
        f"{counted(len(runners), 'runner')} that match{_es(runners)} {'does' if len(runners) == 1 else 'do'} not ask "
        f"for runs now, {busy} of them with runs in hand",
        detail=waiting.names(runners) | {"with_runs_in_hand": busy},
        fix="a runner may not ask while it handles a run; if it has none, look at its log",
    )


def _leaving(waiting: Waiting, runners: Sequence[RunnerFacts]) -> Reason:
    return Reason(
        ReasonCode.MATCHING_LEAVING,
        f"{counted(len(runners), 'runner')} that match{_es(runners)} {are(len(runners))} leaving",
        until=waiting.facts.run.timeout_at,
        detail=waiting.names(runners),
        fix="start another runner",
    )


def drained_since(runners: Sequence[RunnerFacts], now: datetime) -> datetime:
    """Return since when the first of these runners drains."""
    return min(runner.draining_since or now for runner in runners)


def _draining(waiting: Waiting, runners: Sequence[RunnerFacts]) -> Reason:
    since = drained_since(runners, waiting.facts.now)
    said = [runner.drain_reason for runner in runners if runner.drain_reason and may_name(waiting.caller, runner)]
    reason = f" ({first_line(said[0])})" if said else ""
    return Reason(
        ReasonCode.MATCHING_DRAINING,
        f"{counted(len(runners), 'runner')} that match{_es(runners)} {are(len(runners))} draining, since "
        f"{ago(waiting.facts.now, since)}{reason}",
        since=since,
        detail=waiting.names(runners),
        fix="undo the drain when the machine is back (coordinator drain RUNNER --undo), or start another runner",
    )


def _excluded(waiting: Waiting, runners: Sequence[RunnerFacts]) -> Reason:
    return Reason(
        ReasonCode.EXCLUDED,
        f"{counted(len(runners), 'runner')} that match{_es(runners)} had it before and may not have it again",
        until=waiting.facts.run.timeout_at,
        detail=waiting.names(runners),
        fix="start another runner, or restart one: it registers anew",
    )


_UNAVAILABLE: Final[Mapping[RunnerState, Callable[[Waiting, Sequence[RunnerFacts]], Reason]]] = {
    RunnerState.FULL: _full,
    RunnerState.NOT_POLLING: _not_polling,
    RunnerState.STALE: _silent,
    RunnerState.LEAVING: _leaving,
    RunnerState.DRAINING: _draining,
    RunnerState.EXCLUDED: _excluded,
}


def _es(runners: Sequence[RunnerFacts]) -> str:
    return "es" if len(runners) == 1 else ""


def _ahead(waiting: Waiting) -> list[Reason]:
    ahead = waiting.ahead
    if ahead is None or not ahead.count:
        return []
    eta = "" if ahead.eta_seconds is None else f", about {duration(ahead.eta_seconds)}"
    return [
        Reason(
            ReasonCode.AHEAD,
            f"{counted(ahead.count, 'run', exact=ahead.exact)} {are(ahead.count)} ahead of it{eta}",
            detail={"count": ahead.count, "exact": ahead.exact},
            fix="start more runners, or submit with a higher priority",
        )
    ]


def _affinity(waiting: Waiting, found: Sequence[Reason]) -> list[Reason]:
    """Name the affinity of a resume that other runners would take, if something keeps it from those that it demands."""
    facts = waiting.facts
    home = [("hostname", facts.home_hostname), ("executor_profile", facts.home_profile)]
    lives = [(name, value) for name, value in home if value is not None]
    if not lives or not set(lives) <= set(demanded(facts.demands)) or not any(reason.blocking for reason in found):
        return []
    return [
        Reason(
            ReasonCode.AFFINITY,
            f"It goes where its session lives, {named(lives)}: no other runner takes it",
            blocking=False,
            detail=dict(lives),
            fix='to leave that process, resume it with another hostname, or anywhere with "affinity": false',
        )
    ]


def retried(facts: RunFacts) -> list[Reason]:
    run = facts.run
    if not run.attempt:
        return []
    most = facts.most_attempts
    return [
        Reason(
            ReasonCode.RETRIED,
            f"It was started {counted(run.attempt, 'time')} before, of {most} allowed",
            blocking=False,
            detail={"attempt": run.attempt, "max_attempts": most},
        )
    ]
