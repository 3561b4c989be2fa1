"""Gives pending runs to polls that wait on any web process, and tells those processes."""

from dataclasses import asdict
from typing import Final

from models.claims.claim import ClaimPreview
from models.claims.dispatch import POLLS_A_PAGE, Dispatched, dispatch_preview, preview_waiting
from models.expiry.duties import duty_due
from runtime.logs import log
from runtime.metrics import CLAIM_SECONDS, CLAIMS
from runtime.names import Actor
from runtime.postgres import autocommit, transaction
from runtime.redis_client import FAILED
from runtime.subscriptions import publish_assignments
from workers.context import WorkerContext

logger = log(__name__)

POLLS_A_PASS: Final = 500
# Pages of parked polls that one pass reads at most; the next pass of this process goes on behind them.
PAGES_A_PASS: Final = 5


def dispatch(context: WorkerContext) -> None:
    """One pass over the waiting polls. Twice, or never, is as good: assignments are rows, and the re-check of parked
    polls finds those whose message was lost.
    """
    with CLAIM_SECONDS.labels("dispatch").time():
        dispatched = _dispatched(context)
    _tell(context, dispatched)
    if dispatched.by_instance:
        context.wakeups.notify(Actor.BROADCAST)
    if dispatched.again:
        context.wakeups.notify(Actor.DISPATCH)


def _dispatched(context: WorkerContext) -> Dispatched:
    """Most passes find nothing to give: those are one read a page."""
    preview = _preview(context)
    if not preview.poll_candidates:
        return Dispatched(again=bool(context.pages.after))
    with transaction(context.engine) as connection:
        return dispatch_preview(connection, preview, limits=context.limits)


def _preview(context: WorkerContext) -> ClaimPreview:
    """Look at page after page until there is something to give, beginning where the last pass had to break off."""
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
    """A pass if none was swept for `older_than` seconds; whether there was one."""
    with transaction(context.engine) as connection:
        due = duty_due(connection, Actor.DISPATCH, older_than)
    # Outside of that transaction, whose lock would let no other pass of this duty begin.
    if due:
        dispatch(context)
    return due


def _tell(context: WorkerContext, dispatched: Dispatched) -> None:
    messages = {
        instance: [asdict(assignment) for assignment in assignments]
        for instance, assignments in dispatched.by_instance.items()
    }
    CLAIMS.labels("dispatch").inc(sum(map(len, messages.values())))
    try:
        publish_assignments(context.redis, messages)
    except FAILED as error:
        logger.warning("assignments are left to the re-check", instances=len(messages), error=str(error))
