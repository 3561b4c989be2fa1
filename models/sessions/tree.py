"""Read the tree of sessions under one, level by level, within a bound."""

from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection, text

from models.core.callers import Caller, Role
from models.core.errors import NotFound
from models.schema.sql import sql
from models.state.sessions import SESSION_COLUMNS_OF_S, Session, as_session, get_session

DEEPEST: Final = 20
MOST_NODES: Final = 1_000

# A tree is of one owner but for admins, who may have moved a session of another below it.
_LEVEL = sql(
    """
    SELECT $session FROM sessions s
    WHERE s.parent_session_id = ANY(CAST(:parents AS text[]))
      AND (CAST(:any_owner AS boolean) OR s.owner IS NOT DISTINCT FROM CAST(:owner AS text))
    ORDER BY s.created_at, s.session_id LIMIT :most
    """,
    session=SESSION_COLUMNS_OF_S,
)

_CHILDREN = text("""
    SELECT s.parent_session_id, count(*) AS number FROM sessions s
    WHERE s.parent_session_id = ANY(CAST(:parents AS text[]))
      AND (CAST(:any_owner AS boolean) OR s.owner IS NOT DISTINCT FROM CAST(:owner AS text))
    GROUP BY s.parent_session_id
""")

_RUNS = text("""
    SELECT session_id, status, count(*) AS number FROM runs WHERE session_id = ANY(CAST(:sessions AS text[]))
    GROUP BY session_id, status
""")


@dataclass(frozen=True, slots=True)
class Node:
    """Session of a tree: the numbers of its runs by status and of its children, shown ones or not."""

    session: Session
    runs: dict[str, int] = field(default_factory=dict)
    children: int = 0


@dataclass(frozen=True, slots=True)
class Tree:
    """Nodes by level, oldest first; ``truncated``: some level has more, or a deeper one follows."""

    root: str
    nodes: list[Node]
    truncated: bool


def session_tree(conn: Connection, caller: Caller, session_id: str, *, depth: int, limit: int) -> Tree | NotFound:
    """Return a session and those under it, down to ``depth`` levels and ``limit`` sessions; NotFound as get_session."""
    root = get_session(conn, caller, session_id)
    if isinstance(root, NotFound):
        return root
    scope = {"any_owner": caller.role is Role.ADMIN, "owner": root.owner}
    found, level = {root.session_id: root}, [root.session_id]
    for _ in range(depth):
        left = limit - len(found)
        if not level or left <= 0:
            break
        rows = conn.execute(_LEVEL, scope | {"parents": level, "most": left}).all()
        # A cycle made by hand ends here.
        new = [session for session in map(as_session, rows) if session.session_id not in found]
        found.update((session.session_id, session) for session in new)
        level = [session.session_id for session in new]
    ids = list(found)
    children = {row.parent_session_id: row.number for row in conn.execute(_CHILDREN, scope | {"parents": ids})}
    runs: dict[str, dict[str, int]] = {}
    for row in conn.execute(_RUNS, {"sessions": ids}):
        runs.setdefault(row.session_id, {})[row.status] = row.number
    nodes = [Node(found[name], dict(sorted(runs.get(name, {}).items())), children.get(name, 0)) for name in ids]
    return Tree(root.session_id, nodes, sum(children.values()) > len(nodes) - 1)
