"""Claims pending runs for polls that are parked at any web process, and notifies those processes."""

from dataclasses import asdict
from typing import Final

from models.claims.claim import ClaimPreview
from models.claims.dispatch import POLLS_A_PAGE, Dispatched, dispatch_preview, preview_waiting
from models.expiry.duties import duty_due
from runtime.logs import log
from runtime.metrics import CLAIM_SECONDS, CLAIMS
from runtime.names import Actor
from runtime.postgres import autocommit, transaction
from runtime.pubsub import publish_assignments
from runtime.redis_client import FAILED
from workers.context import WorkerContext

logger = log(__name__)

POLLS_A_PASS: Final = 500
# Read at most so many pages of parked polls in one pass; the next pass of this process goes on behind them.
PAGES_A_PASS: Final = 5


def dispatch(context: WorkerContext) -> None:
    """Do one pass over the parked polls. Idempotent: assignments are rows, and the re-check finds those whose message
    was lost.
    """
    with CLAIM_SECONDS.labels("dispatch").time():
        dispatched = _dispatched(context)
    _publish_assignments(context, dispatched)
    if dispatched.by_instance:
        context.wakeups.notify(Actor.BROADCAST)
    if dispatched.again:
        context.wakeups.notify(Actor.DISPATCH)


def _dispatched(context: WorkerContext) -> Dispatched:
    """Claim for the previewed polls; most passes find none and cost one read a page."""
    preview = _preview(context)
    if not preview.poll_candidates:
        return Dispatched(again=bool(context.pages.after))
    with transaction(context.engine) as connection:
        return dispatch_preview(connection, preview, limits=context.limits)


def _preview(context: WorkerContext) -> ClaimPreview:
    """Read page after page until a poll can get a run, beginning where the last pass had to break off."""
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
    with transaction(context.engine) as connection:
        due = duty_due(connection, Actor.DISPATCH, older_than)
    # Run it outside of that transaction, whose lock would let no other pass of this duty begin.
    if due:
        dispatch(context)
    return due


def _publish_assignments(context: WorkerContext, dispatched: Dispatched) -> None:
    messages = {
        instance: [asdict(assignment) for assignment in assignments]
        for instance, assignments in dispatched.by_instance.items()
    }
    CLAIMS.labels("dispatch").inc(sum(map(len, messages.values())))
    try:
        publish_assignments(context.redis, messages)
    except FAILED as error:
        logger.warning("assignments not published; left to the re-check", instances=len(messages), error=str(error))
