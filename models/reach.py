"""What a caller may know of: an admin everything, a user what it owns, a runner the trees under what it holds."""

from collections.abc import Collection, Iterable
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Connection, Select, bindparam, or_, select, text

from models.base import Caller, Role
from models.statuses import IN_HAND
from models.tables import runners, runs, sessions

# Pairs of a runner's subject and a session that is in its reach.
Reached: TypeAlias = Collection[tuple[str, str]]

# From each session upwards until one is met that a runner of the subject holds: the newest run that anybody claimed
# says who held it last. Bounded, so that a cycle made by hand does not turn for ever.
_REACH = text("""
    WITH RECURSIVE line AS (
        SELECT a.subject, a.session_id AS asked, s.session_id, s.parent_session_id, s.runner_id, 0 AS steps
        FROM unnest(CAST(:subjects AS text[]), CAST(:sessions AS text[])) AS a(subject, session_id)
        JOIN sessions s ON s.session_id = a.session_id
        UNION ALL
        SELECT line.subject, line.asked, s.session_id, s.parent_session_id, s.runner_id, line.steps + 1
        FROM line JOIN sessions s ON s.session_id = line.parent_session_id WHERE line.steps < 1000
    )
    SELECT DISTINCT line.subject, line.asked FROM line
    WHERE EXISTS (
        SELECT 1 FROM runners n
        WHERE n.runner_id IN (
                line.runner_id,
                (SELECT r.runner_id FROM runs r WHERE r.session_id = line.session_id AND r.runner_id IS NOT NULL
                 ORDER BY r.session_seq DESC LIMIT 1))
          AND (n.owner IS NULL OR n.owner = line.subject))
""")


def acts_for(subject: str | None, owner: str | None) -> bool:
    """Whether a subject may act as the runner of a registration that ``owner`` made.

    ``subject`` None is an admin. A registration that was made while authentication was off is nobody's: whoever is a
    runner may act for it until it registers again.
    """
    return subject is None or owner is None or owner == subject


def reach(conn: Connection, asked: Iterable[tuple[Caller, str]]) -> Reached:
    """Return which of the sessions are in the reach of the runners among the callers; no query when there is none."""
    pairs = sorted({(caller.scope or "", session_id) for caller, session_id in asked if caller.role is Role.RUNNER})
    if not pairs:
        return ()
    values = {"subjects": [subject for subject, _ in pairs], "sessions": [session_id for _, session_id in pairs]}
    return {(row.subject, row.asked) for row in conn.execute(_REACH, values)}


def sees(caller: Caller, session_id: str, owner: str | None, reached: Reached) -> bool:
    """Whether the caller may know of the session, which belongs to ``owner``."""
    return in_reach(caller, session_id, reached) and whose(caller) in {None, owner}


def in_reach(caller: Caller, session_id: str, reached: Reached) -> bool:
    """Whether the session is not out of a runner's reach; to others owners matter (``whose``)."""
    return caller.role is not Role.RUNNER or (caller.scope or "", session_id) in reached


def whose(caller: Caller) -> str | None:
    """Return the owner whose sessions alone the caller may know of, None when it does not matter whose they are."""
    return None if caller.role is Role.RUNNER else caller.scope


def in_scope(role: Role, owner: ColumnElement[Any], session_id: ColumnElement[Any]) -> ColumnElement[bool] | None:
    """Return the condition that limits a list to what a caller may know of, ``:scope`` its own; None for everything.

    A runner's lists show the trees under the sessions it holds at the moment, which their indexes find.
    """
    match role:
        case Role.ADMIN:
            return None
        case Role.USER:
            return owner == bindparam("scope")
        case Role.RUNNER:
            return session_id.in_(_trees())


def _trees() -> Select[Any]:
    its = or_(runners.c.owner.is_(None), runners.c.owner == bindparam("scope"))
    live = select(sessions.c.session_id).join(runners, runners.c.runner_id == sessions.c.runner_id).where(its)
    in_hand = (
        select(runs.c.session_id)
        .join(runners, runners.c.runner_id == runs.c.runner_id)
        .where(its, runs.c.status.in_(sorted(IN_HAND)))
    )
    tree = select(live.union(in_hand).subquery("held").c.session_id).cte("tree", recursive=True)
    tree = tree.union(select(sessions.c.session_id).join(tree, sessions.c.parent_session_id == tree.c.session_id))
    return select(tree.c.session_id)
