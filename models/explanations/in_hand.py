"""Reasons of a run that a runner has, and of one that has ended."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final, TypeAlias

from models.claims.orders import STOP_RESEND_SECONDS
from models.core.limits import Limits
from models.core.statuses import RunStatus, StopCause
from models.explanations.reasons import Reason, ReasonCode
from models.explanations.run_facts import RunFacts
from models.explanations.words import ago, ahead_of, counted, first_line
from models.runners.heartbeat import lost_after
from models.state.endings import MAX_FAILED_DELIVERIES, MAX_MISSED_HEARTBEATS
from models.state.runs import iso

Check: TypeAlias = Callable[[RunFacts, Limits], Reason | None]


def _returns(facts: RunFacts) -> str:
    due = facts.claim_deadline_at
    return "" if due is None else f"; it returns to the queue {ahead_of(facts.now, due)}"


def _undelivered(facts: RunFacts, _: Limits) -> Reason | None:
    if facts.delivered_at is not None:
        return None
    return Reason(
        ReasonCode.UNDELIVERED,
        f"It is claimed for runner {facts.run.runner_id}, whose poll has not got it yet{_returns(facts)}",
        since=facts.run.claimed_at,
        until=facts.claim_deadline_at,
        fix="nothing to do",
    )


def _delivered_not_started(facts: RunFacts, _: Limits) -> Reason | None:
    if facts.delivered_at is None:
        return None
    failed = facts.failed_deliveries
    before = f"; {counted(failed, 'delivery', 'deliveries')} before ended the same way" if failed else ""
    return Reason(
        ReasonCode.DELIVERED_NOT_STARTED,
        f"Runner {facts.run.runner_id} got it {ago(facts.now, facts.delivered_at)} and has not reported its start"
        f"{before}{_returns(facts)}",
        since=facts.delivered_at,
        until=facts.claim_deadline_at,
        detail={
            "failed_deliveries": facts.failed_deliveries,
            "most": MAX_FAILED_DELIVERIES,
            "missed_heartbeats": facts.missed_heartbeats,
        },
        fix="look at the runner's log",
    )


def _silent(facts: RunFacts, limits: Limits) -> Reason | None:
    if facts.holder_seen is None or not (facts.holder_stale or facts.holder_lost_at):
        return None
    lost_at = facts.holder_seen + timedelta(seconds=lost_after(facts.holder_interval or 0, limits))
    return Reason(
        ReasonCode.SILENT,
        f"Runner {facts.run.runner_id} gave its last sign of life {ago(facts.now, facts.holder_seen)}; "
        f"it counts as lost {ahead_of(facts.now, lost_at)}",
        blocking=False,
        since=facts.holder_seen,
        until=lost_at,
        detail={"lost": facts.holder_lost_at is not None},
        fix="look whether its process and machine run, and reach the coordinator",
    )


def _not_held(facts: RunFacts, _: Limits) -> Reason | None:
    if not facts.missed_heartbeats:
        return None
    return Reason(
        ReasonCode.NOT_HELD,
        f"{counted(facts.missed_heartbeats, 'heartbeat')} of runner {facts.run.runner_id} did not name it; "
        f"at {MAX_MISSED_HEARTBEATS} in a row it is taken away",
        blocking=False,
        detail={"missed_heartbeats": facts.missed_heartbeats, "most": MAX_MISSED_HEARTBEATS},
        fix="look whether the runner still executes it",
    )


def _runs_out(facts: RunFacts, _: Limits) -> Reason | None:
    if facts.run_deadline_at is None:
        return None
    return Reason(
        ReasonCode.RUNS_OUT,
        f"It is stopped {ahead_of(facts.now, facts.run_deadline_at)}, at its limit of {facts.run_timeout_seconds} s",
        blocking=False,
        since=facts.run.started_at,
        until=facts.run_deadline_at,
        detail={"run_timeout_seconds": facts.run_timeout_seconds},
    )


def _told(facts: RunFacts, _: Limits) -> Reason | None:
    sent_at, again = facts.stop_sent_at, None
    if sent_at is None:
        told = "is told with its next poll"
    else:
        again = sent_at + timedelta(seconds=STOP_RESEND_SECONDS)
        told = f"was told {ago(facts.now, sent_at)}"
    given_up = facts.run_deadline_at or facts.stop_deadline_at
    ends = "" if given_up is None else f"; the stop is given up {ahead_of(facts.now, given_up)}"
    cause = " at its time limit" if facts.stop_cause == StopCause.TIMEOUT else ""
    return Reason(
        ReasonCode.TOLD,
        f"It is being stopped{cause}: runner {facts.run.runner_id} {told}{ends}",
        since=facts.stop_at,
        until=given_up,
        detail={"told_at": iso(sent_at), "told_again_at": iso(again), "cause": facts.stop_cause},
        fix="nothing to do: it ends when the runner reports it, or when the stop is given up",
    )


_CHECKS: Final[dict[RunStatus, Sequence[Check]]] = {
    RunStatus.CLAIMED: (_undelivered, _delivered_not_started, _silent, _not_held),
    RunStatus.RUNNING: (_silent, _not_held, _runs_out),
    RunStatus.STOPPING: (_told, _silent),
}


def in_hand(facts: RunFacts, limits: Limits) -> list[Reason]:
    checks = _CHECKS[RunStatus(facts.run.status)]
    return [reason for check in checks if (reason := check(facts, limits)) is not None]


_ENDS: Final = {
    "runner": "Runner {runner} ended it as {status}",
    "coordinator": "The coordinator ended it as {status}",
    "stop": "It was stopped before it started",
}


def _ended_by(facts: RunFacts) -> str:
    """Return what ended the run, for programs: the report of its runner, the coordinator for want of one, or a stop."""
    if not facts.ended_by_us:
        return "runner"
    is_stopped = facts.run.status == RunStatus.STOPPED
    return "stop" if is_stopped and facts.run.started_at is None else "coordinator"


def ended(facts: RunFacts) -> list[Reason]:
    run = facts.run
    by = _ended_by(facts)
    cause = f": {first_line(run.error)}" if run.error else ""
    fix = None
    if run.status == RunStatus.FAILED:
        final = "a reported failure is final" if facts.retry is None else "its retry policy does not try it again"
        fix = f"{final}: submit it again" if by == "runner" else "submit it again"
    return [
        Reason(
            ReasonCode.ENDED_BY,
            f"{_ENDS[by].format(runner=run.runner_id, status=run.status)}{cause}",
            since=run.completed_at,
            detail={
                "by": by,
                "cause": facts.stop_cause,
                "error": run.error,
                "attempt": run.attempt,
                "max_attempts": facts.most_attempts,
            },
            fix=fix,
        )
    ]
