from dataclasses import asdict
from typing import Final

from models.claims.claim import ClaimPreview
from models.claims.dispatch import POLLS_A_PAGE, Dispatched, dispatch_preview, preview_waiting
from runtime.logs import log
from runtime.metrics import CLAIM_SECONDS, CLAIMS, RUN_WAIT
from runtime.names import Actor
from runtime.postgres import autocommit, transaction
from runtime.pubsub import publish_assignments
from runtime.redis_client import FAILED
from workers.context import WorkerContext
from workers.passes import is_due

logger = log(__name__)

POLLS_A_PASS: Final = 500
_CLAIMS: Final = CLAIMS.labels("dispatch")
_SECONDS: Final = CLAIM_SECONDS.labels("dispatch")
_WAITS: Final = RUN_WAIT.labels("dispatch")
# Read at most so many pages of parked polls in one pass; the next pass of this process goes on behind them.
PAGES_A_PASS: Final = 5


def dispatch(context: WorkerContext) -> None:
    """Do one pass over the parked polls. Idempotent: assignments are rows, and the re-check finds those whose message
    was lost.
    """
    with _SECONDS.time():
        dispatched = _dispatched(context)
    _publish_assignments(context, dispatched)
    if dispatched.by_instance:
        context.wakeups.notify(Actor.BROADCAST)
    if dispatched.again:
        context.wakeups.notify(Actor.DISPATCH)


def _dispatched(context: WorkerContext) -> Dispatched:
    preview = _preview(context)
    if not preview.poll_candidates:
        return Dispatched(again=bool(context.pages.after))
    with transaction(context.engine) as connection:
        return dispatch_preview(connection, preview, limits=context.limits)


def _preview(context: WorkerContext) -> ClaimPreview:
    after, context.pages.after = context.pages.after, ""
    for _ in range(PAGES_A_PASS):
        with autocommit(context.engine) as connection:
            preview = preview_waiting(connection, POLLS_A_PASS, after=after, page=POLLS_A_PAGE, limits=context.limits)
        after = preview.next_after
        if preview.poll_candidates or not after:
            return preview
    context.pages.after = after
    return ClaimPreview()


def sweep_dispatch(context: WorkerContext, older_than: float) -> bool:
    # Run it outside of the transaction of is_due, whose lock would let no other pass of this duty begin.
    if due := is_due(context, Actor.DISPATCH, older_than):
        dispatch(context)
    return due


def _publish_assignments(context: WorkerContext, dispatched: Dispatched) -> None:
    messages = {
        instance: [asdict(assignment) for assignment in assignments]
        for instance, assignments in dispatched.by_instance.items()
    }
    _CLAIMS.inc(sum(map(len, messages.values())))
    for seconds in dispatched.waits:
        _WAITS.observe(seconds)
    try:
        publish_assignments(context.redis, messages)
    except FAILED as error:
        logger.warning("assignments not published; left to the re-check", instances=len(messages), error=str(error))
