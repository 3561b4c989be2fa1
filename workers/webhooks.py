from functools import partial
from typing import Final

import structlog
from psycopg.errors import QueryCanceled
from sqlalchemy.exc import DBAPIError

from models.webhooks.match import MOST_EVENTS, match_webhooks
from runtime.names import Actor
from workers.context import WorkerContext
from workers.passes import is_due, passes

PASSES: Final = 50
# Divide the positions of a pass by so much if its statement is cancelled: each may become a message to 200 webhooks.
FEWER: Final = 10
logger = structlog.get_logger(__name__)


def match_due(context: WorkerContext, older_than: float) -> bool:
    """Make messages of what is new on the feed unless that was begun within `older_than` seconds; return whether it was
    done.
    """
    if not is_due(context, Actor.WEBHOOKS, older_than):
        return False
    most = MOST_EVENTS
    while True:
        try:
            for passed in passes(context, partial(match_webhooks, most=most), PASSES):
                if passed < most:
                    break
        except DBAPIError as error:
            if most == 1 or not isinstance(error.orig, QueryCanceled):
                raise
            most = max(1, most // FEWER)
            logger.warning("fewer ends at once are told to webhooks", positions=most)
        else:
            return True
