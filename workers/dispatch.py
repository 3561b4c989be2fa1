"""Gives pending runs to polls that wait on any web process, and tells those processes."""

from dataclasses import asdict
from typing import Final

from models.claims.claim import Promised
from models.claims.dispatch import POLLS_A_PAGE, Dispatched, dispatch_promised, promise_waiting
from models.expiry.duties import duty_due
from runtime.logs import log
from runtime.metrics import CLAIM_SECONDS, CLAIMS
from runtime.names import Actor
from runtime.postgres import autocommit, transaction
from runtime.redis_client import FAILED
from runtime.subscriptions import publish_assignments
from workers.room import Room

logger = log(__name__)

POLLS_A_PASS: Final = 500
# Pages of parked polls that one pass reads at most; the next pass of this process goes on behind them.
PAGES_A_PASS: Final = 5


def dispatch(room: Room) -> None:
    """One pass over the waiting polls. Twice, or never, is as good: assignments are rows, and the re-check of parked
    polls finds those whose message was lost.
    """
    with CLAIM_SECONDS.labels("dispatch").time():
        dispatched = _dispatched(room)
    _tell(room, dispatched)
    if dispatched.by_instance:
        room.ringer.ring(Actor.BROADCAST)
    if dispatched.again:
        room.ringer.ring(Actor.DISPATCH)


def _dispatched(room: Room) -> Dispatched:
    """Most passes find nothing to give: those are one read a page."""
    promised = _promised(room)
    if not promised.seekers:
        return Dispatched(again=bool(room.pages.after))
    with transaction(room.engine) as connection:
        return dispatch_promised(connection, promised, limits=room.limits)


def _promised(room: Room) -> Promised:
    """Look at page after page until there is something to give, beginning where the last pass had to break off."""
    after, room.pages.after = room.pages.after, ""
    for _ in range(PAGES_A_PASS):
        with autocommit(room.engine) as connection:
            promised = promise_waiting(connection, POLLS_A_PASS, after=after, page=POLLS_A_PAGE, limits=room.limits)
        after = promised.next_after
        if promised.seekers or not after:
            return promised
    room.pages.after = after
    return Promised()


def sweep_dispatch(room: Room, older_than: float) -> bool:
    """A pass if none was swept for `older_than` seconds; whether there was one."""
    with transaction(room.engine) as connection:
        due = duty_due(connection, Actor.DISPATCH, older_than)
    # Outside of that transaction, whose lock would let no other pass of this duty begin.
    if due:
        dispatch(room)
    return due


def _tell(room: Room, dispatched: Dispatched) -> None:
    messages = {
        instance: [asdict(assignment) for assignment in assignments]
        for instance, assignments in dispatched.by_instance.items()
    }
    CLAIMS.labels("dispatch").inc(sum(map(len, messages.values())))
    try:
        publish_assignments(room.redis, messages)
    except FAILED as error:
        logger.warning("assignments are left to the re-check", instances=len(messages), error=str(error))
