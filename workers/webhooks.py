from typing import Final

from models.webhooks.match import MOST_EVENTS, match_webhooks
from runtime.names import Actor
from workers.context import WorkerContext
from workers.passes import is_due, passes

PASSES: Final = 50


def match_due(context: WorkerContext, older_than: float) -> bool:
    """Make messages of what is new on the feed unless that was begun within `older_than` seconds; return whether it was
    done.
    """
    if not is_due(context, Actor.WEBHOOKS, older_than):
        return False
    for passed in passes(context, match_webhooks, PASSES):
        if passed < MOST_EVENTS:
            break
    return True
