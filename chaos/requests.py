"""Verdict on failed calls: each fault excuses what it must break, where it must break it, and no more.

Faults of Redis, workers and clocks excuse nothing. A live web process is never excused a 5xx to a poll, nor any 500.
"""

from collections.abc import Iterable, Sequence

from chaos.faults import Done
from chaos.ledger import Failure, Ledger
from chaos.schedule import BALANCER, POSTGRES, WEBS, Kind
from chaos.verdict import Verdict

# Seconds after a fault: a killed process restarts, a pool finds its connections dead, a held report gives up.
AFTERMATH_SECONDS = 25.0
_BY_ITSELF = {502, 503, 504}
# Error of a call whose connection the load's own client has closed. httpcore picks connections that were idle for too
# long, then gives one of them to a call, then closes it; a close by the other side reads differently.
_CLOSED_BY_THE_CLIENT = "ClosedResourceError"


def judge_requests(failures: Iterable[Failure], done: Sequence[Done], ledger: Ledger, began: float) -> Verdict:
    against: dict[str, list[str]] = {}
    failed = 0
    for failure in failures:
        failed += 1
        if not excused(failure, done):
            against.setdefault(str(failure), []).append(failure.at(began))
    lines = [f"{len(times)} x {times[0]}" if len(times) > 1 else times[0] for times in against.values()]
    checked = f"{ledger.answers.total()} answers, {failed} calls failed by what was done to them"
    return Verdict("Only requests that a fault excuses have failed", checked, lines)


def excused(failure: Failure, done: Sequence[Done]) -> bool:
    if failure.code is None and _CLOSED_BY_THE_CLIENT in failure.text:
        return True
    balanced = failure.where == BALANCER
    if failure.code is not None:
        # The balancer's own responses have no body.
        from_balancer = balanced and failure.code in _BY_ITSELF and '"detail"' not in failure.text
        if failure.code != 503 and not from_balancer:
            return False
        if failure.kind == "poll" and not from_balancer:
            return False
    ways = WEBS if balanced else (failure.where,)
    return any(_explains(fault, failure, ways) for fault in done if _meets(fault, failure))


def _explains(done: Done, failure: Failure, ways: Sequence[str]) -> bool:
    fault, name = done.fault, done.fault.target.partition("/")[0]
    if fault.target.partition("/")[2] == POSTGRES:
        return name == "all" or name in ways
    if fault.target == POSTGRES:
        # Meanwhile a web process holds requests or answers 503; it never just closes.
        return failure.code is not None or "Timeout" in failure.text
    if fault.kind in {Kind.KILL, Kind.FREEZE} and failure.code != 503:
        return name in ways or (name == BALANCER and failure.where == BALANCER)
    # The balancer itself answers 503 when no web process counts as healthy.
    return fault.kind in {Kind.KILL, Kind.FREEZE} and name in ways and failure.where == BALANCER


def _meets(done: Done, failure: Failure) -> bool:
    ended = done.ended or failure.ended
    return done.begun <= failure.ended and failure.begun <= ended + AFTERMATH_SECONDS
