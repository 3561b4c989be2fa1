import time
from typing import Final

from sqlalchemy.exc import TimeoutError as PoolTimeout

from models.bulk.chunks import Chunk, Executed, execute_chunk, set_chunk_aside, take_chunk
from runtime.logs import log
from runtime.metrics import BULK_RUNS
from runtime.names import Actor
from runtime.postgres import (
    DEADLOCK,
    LOCK_TIMEOUT,
    SERIALIZATION,
    STATEMENT_TIMEOUT,
    is_retryable,
    sqlstate,
    transaction,
)
from runtime.settings import blueprint_variables
from workers.context import WorkerContext
from workers.passes import is_due
from workers.poll_wakeups import wake_polls

logger = log(__name__)

# Leave what remains to the next message: a pass holds a thread, which may be the ticker's.
PASS_SECONDS: Final = 1.0
CONFLICT_PAUSE_SECONDS: Final = 0.05
CONFLICTS: Final = frozenset({DEADLOCK, SERIALIZATION})
PASSING: Final = frozenset({LOCK_TIMEOUT, STATEMENT_TIMEOUT})


def execute_bulks(context: WorkerContext) -> None:
    """Do one pass over the bulks that are due, chunk by chunk. A chunk is acted on once: it is deleted with the act."""
    until = time.monotonic() + PASS_SECONDS
    while _execute_next(context):
        if time.monotonic() >= until:
            context.wakeups.notify(Actor.BULK)
            break


def sweep_bulks(context: WorkerContext, older_than: float) -> bool:
    if due := is_due(context, Actor.BULK, older_than):
        execute_bulks(context)
    return due


def _execute_next(context: WorkerContext) -> bool:
    """Execute the next chunk that is due, if there is one; return whether there was."""
    chunk: Chunk | None = None
    settings = context.settings
    try:
        with transaction(context.engine) as connection:
            chunk = take_chunk(connection)
            if chunk is None:
                return False
            executed = execute_chunk(
                connection,
                chunk,
                limits=context.limits,
                most_demands=settings.demands_per_owner,
                submissions_per_minute=settings.submissions_per_minute,
                environment=blueprint_variables(settings),
            )
    except Exception as error:
        if chunk is not None and sqlstate(error) in CONFLICTS:
            time.sleep(CONFLICT_PAUSE_SECONDS)
            return True
        # Begin anew at the next tick after an outage; any other fault must not hold up the rest of the bulk.
        if chunk is None or is_retryable(error) or isinstance(error, PoolTimeout):
            raise
        _set_aside(context, chunk, error)
        return True
    _notify(context, chunk, executed)
    return True


def _set_aside(context: WorkerContext, chunk: Chunk, error: Exception) -> None:
    is_passing = sqlstate(error) in PASSING
    logger.warning(
        "chunk of a bulk failed",
        bulk=chunk.bulk_id,
        action=chunk.action,
        runs=len(chunk.run_ids),
        error=str(error).partition("\n")[0],
        exc_info=None if is_passing else error,
    )
    text = "Its lock was not free in time" if is_passing else "Internal error: see the log of the workers"
    with transaction(context.engine) as connection:
        set_chunk_aside(connection, chunk, text, is_passing=is_passing)


def _notify(context: WorkerContext, chunk: Chunk, executed: Executed) -> None:
    BULK_RUNS.labels(chunk.action).inc(executed.changed)
    if executed.changed:
        context.wakeups.notify(Actor.BROADCAST)
    if executed.wakes_dispatch:
        context.wakeups.notify(Actor.DISPATCH)
    if executed.wakes_callbacks:
        context.wakeups.notify(Actor.CALLBACKS)
    wake_polls(context, executed.runners)
    if not executed.more:
        logger.info("bulk has ended", bulk=executed.bulk_id, action=chunk.action)
