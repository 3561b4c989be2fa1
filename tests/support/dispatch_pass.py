"""Run a pass of dispatch in one transaction of the test's own."""

from sqlalchemy import Connection

from models.claims.dispatch import Dispatched, dispatch_preview, preview_waiting
from models.core.limits import DEFAULT_LIMITS, Limits


def dispatch_waiting(conn: Connection, limit: int = 500, *, limits: Limits = DEFAULT_LIMITS) -> Dispatched:
    """Do in one transaction what a worker does in two: find polls with claimable runs, then assign them."""
    return dispatch_preview(conn, preview_waiting(conn, limit, limits=limits), limits=limits)
