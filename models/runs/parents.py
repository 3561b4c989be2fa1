"""Checks of parents: a session's parent must be of the same owner, none of its descendants, and not too deep.

Checked when a resume names a parent, and again when it starts, since the parent is set then.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

from sqlalchemy import Connection, text

from models.state.locks import LockedRows
from models.state.transitions import Move

# Serialise changes of parents: two that are good each by itself may form a cycle together.
_ONE_AT_A_TIME: Final = text("SELECT pg_advisory_xact_lock(hashtextextended('coordinator.parents', 0))")

# Stop after 1,000 steps, in case of a cycle made by hand.
_ANCESTORS = text("""
    WITH RECURSIVE line AS (
        SELECT s.session_id AS start, s.session_id, s.parent_session_id, 0 AS steps
        FROM sessions s WHERE s.session_id = ANY(CAST(:sessions AS text[]))
        UNION ALL
        SELECT line.start, s.session_id, s.parent_session_id, line.steps + 1
        FROM line JOIN sessions s ON s.session_id = line.parent_session_id WHERE line.steps < 1000
    )
    SELECT start, session_id FROM line
""")

_HEIGHTS = text("""
    WITH RECURSIVE line AS (
        SELECT a.session_id AS start, a.session_id, 0 AS steps
        FROM unnest(CAST(:sessions AS text[])) AS a(session_id)
        UNION ALL
        SELECT line.start, s.session_id, line.steps + 1
        FROM line JOIN sessions s ON s.parent_session_id = line.session_id WHERE line.steps <= :most
    )
    SELECT start, max(steps) AS height FROM line GROUP BY start
""")

# Require the session that existed when the run was submitted, not one that took its id later.
_STILL_ABOVE = text("""
    WITH RECURSIVE above AS (
        SELECT p.session_id, p.parent_session_id, 1 AS steps
        FROM runs r
        JOIN sessions s ON s.session_id = r.session_id
        JOIN sessions p ON p.session_id = r.parent_session_id AND p.created_at <= r.created_at
            AND p.owner IS NOT DISTINCT FROM s.owner
        WHERE r.run_id = :run_id
        UNION ALL
        SELECT p.session_id, p.parent_session_id, above.steps + 1
        FROM above JOIN sessions p ON p.session_id = above.parent_session_id WHERE above.steps < 1000
    )
    SELECT count(*) AS depth, coalesce(bool_or(session_id = :session_id), false) AS is_cycle FROM above
""")

_SET_PARENT = text("UPDATE sessions SET parent_session_id = :parent, depth = :depth WHERE session_id = :session_id")
_DROP_PARENT = text("UPDATE runs SET parent_session_id = NULL WHERE run_id = :run_id")


def ancestors(conn: Connection, session_ids: Collection[str]) -> dict[str, set[str]]:
    """Return for each session itself and all its ancestors; their number is the depth of a child of it."""
    if not session_ids:
        return {}
    found: dict[str, set[str]] = {}
    for row in conn.execute(_ANCESTORS, {"sessions": sorted(set(session_ids))}):
        found.setdefault(row.start, set()).add(row.session_id)
    return found


def heights(conn: Connection, session_ids: Collection[str], most: int) -> dict[str, int]:
    """Return how many levels of children each session has, counted up to one more than ``most``."""
    if not session_ids:
        return {}
    rows = conn.execute(_HEIGHTS, {"sessions": sorted(set(session_ids)), "most": most})
    return {row.start: row.height for row in rows}


def set_parents(conn: Connection, locked: LockedRows, moves: Sequence[Move], most: int) -> list[Move]:
    """Set the parents that starting runs bring to their locked sessions, where that is still allowed.

    Return the moves, without a parent where it is not: that session keeps the parent it has, and the run's end calls
    no parent back. Waits for another transaction that changes a parent; locks no rows.
    """
    changing = {
        move.run.run_id: move
        for move in moves
        if move.change.parent_session_id not in {None, locked.sessions[move.change.session_id].parent_session_id}
    }
    if not changing:
        return list(moves)
    conn.execute(_ONE_AT_A_TIME)
    for run_id, move in changing.items():
        session_id = move.change.session_id
        above = conn.execute(_STILL_ABOVE, {"run_id": run_id, "session_id": session_id}).one()
        deepest = above.depth + heights(conn, [session_id], most)[session_id]
        if above.depth == 0 or above.is_cycle or deepest > most:
            changing[run_id] = replace(move, change=replace(move.change, parent_session_id=None))
            conn.execute(_DROP_PARENT, {"run_id": run_id})
        else:
            parent = move.change.parent_session_id
            conn.execute(_SET_PARENT, {"parent": parent, "depth": above.depth, "session_id": session_id})
    return [changing.get(move.run.run_id, move) for move in moves]
