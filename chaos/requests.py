"""Which failed calls are nobody's fault: each fault excuses what it must break, at whom it must break it, and no more.

Redis, workers and clocks excuse nothing. A live web process is never excused a 5xx to a poll, nor a 500 to anything.
"""

from collections.abc import Iterable, Sequence

from chaos.faults import Done
from chaos.ledger import Failure, Ledger
from chaos.schedule import BALANCER, POSTGRES, WEBS, Kind
from chaos.verdict import Judgement

# A process that was killed is started again, a pool finds its connections dead, a held report gives up: all later.
AFTERMATH_SECONDS = 25.0
_BY_ITSELF = {502, 503, 504}
# What a call hears whose connection the load's own client has closed. httpcore picks connections that were idle for too
# long, then gives one of them to a call, then closes it; what the other side closes reads differently.
_CLOSED_BY_THE_CLIENT = "ClosedResourceError"


def judge_requests(failures: Iterable[Failure], done: Sequence[Done], ledger: Ledger, began: float) -> Judgement:
    """Every failure has an excuse. ``began``: when the first fault was to be done."""
    against: dict[str, list[str]] = {}
    failed = 0
    for failure in failures:
        failed += 1
        if not excused(failure, done):
            against.setdefault(str(failure), []).append(failure.at(began))
    lines = [f"{len(times)} x {times[0]}" if len(times) > 1 else times[0] for times in against.values()]
    looked_at = f"{ledger.answers.total()} answers, {failed} calls failed by what was done to them"
    return Judgement("No request failed that need not", looked_at, lines)


def excused(failure: Failure, done: Sequence[Done]) -> bool:
    """Whether something that was done explains it, or the load itself did it."""
    if failure.code is None and _CLOSED_BY_THE_CLIENT in failure.text:
        return True
    balanced = failure.where == BALANCER
    if failure.code is not None:
        # What the balancer says by itself has no body.
        from_balancer = balanced and failure.code in _BY_ITSELF and '"detail"' not in failure.text
        if failure.code != 503 and not from_balancer:
            return False
        if failure.kind == "poll" and not from_balancer:
            return False
    ways = WEBS if balanced else (failure.where,)
    return any(_explains(one, failure, ways) for one in done if _meets(one, failure))


def _explains(one: Done, failure: Failure, ways: Sequence[str]) -> bool:
    fault, name = one.fault, one.fault.target.partition("/")[0]
    if fault.target.partition("/")[2] == POSTGRES:
        return name == "all" or name in ways
    if fault.target == POSTGRES:
        # So long a web process holds what it is asked, or answers 503; it never just closes.
        return failure.code is not None or "Timeout" in failure.text
    if fault.kind in {Kind.KILL, Kind.FREEZE} and failure.code != 503:
        return name in ways or (name == BALANCER and failure.where == BALANCER)
    # The balancer says 503 by itself when no web process counts as healthy.
    return fault.kind in {Kind.KILL, Kind.FREEZE} and name in ways and failure.where == BALANCER


def _meets(one: Done, failure: Failure) -> bool:
    ended = one.ended or failure.ended
    return one.begun <= failure.ended and failure.begun <= ended + AFTERMATH_SECONDS
