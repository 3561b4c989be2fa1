from typing import Final

from models.overview.rollup import MOST_EVENTS, drop_old_stats, roll_up
from runtime.names import Actor
from workers.context import WorkerContext
from workers.passes import is_due, passes

PASSES: Final = 50
DROP: Final = "old stats"
DROP_SECONDS: Final = 600.0


def roll_up_due(context: WorkerContext, older_than: float) -> bool:
    """Count what is new on the feed unless that was begun within `older_than` seconds; return whether it was done."""
    if not is_due(context, Actor.STATS, older_than):
        return False
    for passed in passes(context, roll_up, PASSES):
        if passed < MOST_EVENTS:
            break
    if is_due(context, DROP, DROP_SECONDS):
        for dropped in passes(context, drop_old_stats, PASSES):
            if not dropped:
                break
    return True
