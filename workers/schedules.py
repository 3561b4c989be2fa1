from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import TimeoutError as PoolTimeout

from models.schedules.decide import Decided, Rules, decide_due
from models.schedules.faults import decide_one, due_numbers, recompute_times, set_aside
from runtime.logs import log
from runtime.metrics import SCHEDULE_FIRES, SCHEDULE_LATENESS
from runtime.names import Actor
from runtime.postgres import LOCK_TIMEOUT, STATEMENT_TIMEOUT, is_retryable, sqlstate, transaction
from runtime.settings import blueprint_variables
from workers.context import WorkerContext
from workers.passes import is_due, passes
from workers.poll_wakeups import wake_polls

Result = TypeVar("Result")

logger = log(__name__)

# Leave what remains to the next second.
PASSES: Final = 100
PASSING: Final = frozenset({LOCK_TIMEOUT, STATEMENT_TIMEOUT})


def decide_schedules_due(context: WorkerContext, older_than: float) -> bool:
    """Decide the times of schedules unless that was begun within `older_than` seconds; return whether it was done."""
    if not is_due(context, Actor.SCHEDULES, older_than):
        return False
    decide_schedules(context)
    return True


def decide_schedules(context: WorkerContext) -> None:
    """Decide all that is due. Each time is decided once, in the transaction that submits its run."""
    if not context.pages.recomputed:
        for moved in passes(context, recompute_times, PASSES):
            if not moved:
                break
        context.pages.recomputed = True
    rules = rules_of(context)
    for _ in range(PASSES):
        try:
            with transaction(context.engine) as connection:
                decided = decide_due(connection, rules)
        except Exception as error:
            # Begin anew at the next tick after an outage; any other fault is of one schedule.
            if is_outage(error):
                raise
            _decide_one_by_one(context, rules)
            return
        _notify(context, decided)
        if not decided.full:
            return


def rules_of(context: WorkerContext) -> Rules:
    settings = context.settings
    environment = blueprint_variables(settings)
    return Rules(context.limits, settings.demands_per_owner, settings.submissions_per_minute, environment)


def is_outage(error: Exception) -> bool:
    return is_retryable(error) or isinstance(error, PoolTimeout)


def _decide_one_by_one(context: WorkerContext, rules: Rules) -> None:
    for number in _in_transaction(context, due_numbers):
        try:
            decided = _in_transaction(context, partial(decide_one, schedule_no=number, rules=rules))
        except Exception as error:
            if is_outage(error):
                raise
            decided = _set_aside(context, number, error)
        _notify(context, decided)


def _set_aside(context: WorkerContext, number: int, error: Exception) -> Decided:
    is_passing = sqlstate(error) in PASSING
    logger.warning(
        "schedule could not be decided",
        schedule=number,
        error=str(error).partition("\n")[0],
        exc_info=None if is_passing else error,
    )
    text = "A lock was not free in time" if is_passing else "Internal error: see the log of the workers"
    return _in_transaction(context, partial(set_aside, schedule_no=number, reason=text, is_passing=is_passing))


def _in_transaction(context: WorkerContext, work: Callable[[Connection], Result]) -> Result:
    with transaction(context.engine) as connection:
        return work(connection)


def _notify(context: WorkerContext, decided: Decided) -> None:
    for outcome, number in decided.outcomes.items():
        SCHEDULE_FIRES.labels(outcome).inc(number)
    for seconds in decided.late:
        SCHEDULE_LATENESS.observe(seconds)
    if decided.has_events:
        context.wakeups.notify(Actor.BROADCAST)
        context.wakeups.notify(Actor.DISPATCH)
    if any(stopped.ended for stopped in decided.stopped):
        context.wakeups.notify(Actor.CALLBACKS)
    runners = (stopped.runner_to_notify for stopped in decided.stopped)
    wake_polls(context, frozenset(runner for runner in runners if runner is not None))
