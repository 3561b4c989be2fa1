"""Visibility: an admin sees everything, a user what it owns, a runner the trees under the sessions it holds.

A runner holds what its subject claimed (``runs.claimed_by``), not what is stored under a runner id, which any caller
can compute (docs/decisions/0023).
"""

from collections.abc import Collection, Iterable
from typing import Any, TypeAlias

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Table,
    TextClause,
    and_,
    bindparam,
    case,
    exists,
    or_,
    select,
    text,
)

from models.core.callers import Caller, Role
from models.schema.sql import sql
from models.schema.tables import runners, runs, sessions
from models.state.locked_rows import LockedRun

# Pairs of a runner's subject and a session that it may see.
Visible: TypeAlias = Collection[tuple[str, str]]

# Walk from each session upwards, within one owner, to one that the subject holds: its newest claim was made by the
# subject, or its live process is of a registration of its own. A claim without a subject (of the version before, or of
# a time without authentication) counts for the registration whose number it has, while that exists; if that has no
# owner, while the run is in hand. Stop after 1,000 steps, in case of a cycle made by hand.
_REACH = sql("""
    WITH RECURSIVE line AS (
        SELECT a.subject, a.session_id AS asked, s.session_id, s.parent_session_id, s.owner, s.runner_id,
            s.registration, 0 AS steps
        FROM unnest(CAST(:subjects AS text[]), CAST(:sessions AS text[])) AS a(subject, session_id)
        JOIN sessions s ON s.session_id = a.session_id
        UNION ALL
        SELECT line.subject, line.asked, s.session_id, s.parent_session_id, s.owner, s.runner_id, s.registration,
            line.steps + 1
        FROM line JOIN sessions s ON s.session_id = line.parent_session_id AND s.owner IS NOT DISTINCT FROM line.owner
        WHERE line.steps < 1000
    )
    SELECT DISTINCT line.subject, line.asked
    FROM line
    LEFT JOIN LATERAL (
        SELECT r.runner_id, r.registration, r.status,
            CASE WHEN r.claimed_by_registration = r.registration THEN r.claimed_by END AS claimed_by
        FROM runs r WHERE r.session_id = line.session_id AND r.runner_id IS NOT NULL
        ORDER BY r.session_seq DESC LIMIT 1
    ) newest ON true
    WHERE newest.claimed_by = line.subject
       OR EXISTS (
            SELECT 1 FROM runners n WHERE n.runner_id = line.runner_id AND n.registration = line.registration
              AND (n.owner = line.subject OR (n.owner IS NULL AND newest.claimed_by IS NULL)))
       OR (newest.claimed_by IS NULL AND EXISTS (
            SELECT 1 FROM runners n WHERE n.runner_id = newest.runner_id AND n.registration = newest.registration
              AND (n.owner = line.subject
                   OR (n.owner IS NULL AND newest.status IN $IN_HAND))))
""")

_EVER_HELD = text("""
    SELECT DISTINCT a.subject, a.session_id
    FROM unnest(CAST(:subjects AS text[]), CAST(:sessions AS text[])) AS a(subject, session_id)
    JOIN runs r ON r.session_id = a.session_id
    WHERE (r.claimed_by = a.subject AND r.claimed_by_registration = r.registration)
       OR a.subject = ANY(r.former_holders)
""")


def acts_for(subject: str | None, owner: str | None) -> bool:
    """Return whether a subject may act as the runner of a registration that ``owner`` made.

    ``subject`` None is an admin. A registration made while authentication was off has no owner: any runner may act for
    it until it registers again.
    """
    return subject is None or owner is None or owner == subject


def find_visible(conn: Connection, asked: Iterable[tuple[Caller, str]]) -> Visible:
    """Return the sessions that the runners among the callers may see; no query when no caller is a runner."""
    return _pairs(conn, _REACH, _of_runners(asked))


def ever_held(conn: Connection, asked: Iterable[tuple[Caller, str]]) -> Visible:
    """Return the sessions that the runners among the callers may see or once claimed."""
    pairs = _of_runners(asked)
    visible = set(_pairs(conn, _REACH, pairs))
    return visible | set(_pairs(conn, _EVER_HELD, [pair for pair in pairs if pair not in visible]))


def has_held(run: LockedRun, registration: int, subject: str | None) -> bool:
    """Return whether the subject, reporting as this registration, holds or once held the run; None is an admin."""
    if subject is None:
        return True
    claimed_by = run.claimed_by if run.claimed_by_registration == run.registration else None
    if claimed_by == subject or (claimed_by is None and run.registration == registration):
        return True
    return subject in (run.former_holders or ()) or registration in (run.excluded_registrations or ())


def _of_runners(asked: Iterable[tuple[Caller, str]]) -> list[tuple[str, str]]:
    return sorted({(caller.subject or "", session_id) for caller, session_id in asked if caller.role is Role.RUNNER})


def _pairs(conn: Connection, statement: TextClause, pairs: Collection[tuple[str, str]]) -> Visible:
    if not pairs:
        return ()
    values = {"subjects": [subject for subject, _ in pairs], "sessions": [session_id for _, session_id in pairs]}
    return {(row[0], row[1]) for row in conn.execute(statement, values)}


def can_view(caller: Caller, session_id: str, owner: str | None, visible: Visible) -> bool:
    return is_visible(caller, session_id, visible) and owner_filter(caller) in {None, owner}


def is_visible(caller: Caller, session_id: str, visible: Visible) -> bool:
    """Return False for a session that a runner may not see; other callers are limited by owner (``owner_filter``)."""
    return caller.role is not Role.RUNNER or (caller.subject or "", session_id) in visible


def owner_filter(caller: Caller) -> str | None:
    """Return the owner to whose sessions the caller is limited, None when it is not limited by owner."""
    return None if caller.role is Role.RUNNER else caller.subject


def in_scope(role: Role, owner: ColumnElement[Any], session_id: ColumnElement[Any]) -> ColumnElement[bool] | None:
    """Return the condition that limits a list to what a caller may see, ``:scope`` its own; None for everything.

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
    """Return the sessions under those that the subject has in hand or keeps alive, each tree within one owner."""
    scope: ColumnElement[Any] = bindparam("scope")
    claimed_by = case((runs.c.claimed_by_registration == runs.c.registration, runs.c.claimed_by))
    of_another = exists().where(runs.c.session_id == sessions.c.session_id, claimed_by != scope)
    live = (
        select(sessions.c.session_id, sessions.c.owner)
        .join(runners, _same_registration(sessions))
        .where(or_(runners.c.owner == scope, and_(runners.c.owner.is_(None), ~of_another)))
    )
    in_hand = (
        select(runs.c.session_id, runs.c.owner)
        .join(runners, _same_registration(runs))
        .where(
            sql("runs.status IN $IN_HAND"),
            or_(
                claimed_by == scope,
                and_(claimed_by.is_(None), or_(runners.c.owner.is_(None), runners.c.owner == scope)),
            ),
        )
    )
    held = live.union(in_hand).subquery("held")
    tree = select(held.c.session_id, held.c.owner).cte("tree", recursive=True)
    below = and_(sessions.c.parent_session_id == tree.c.session_id, sessions.c.owner.is_not_distinct_from(tree.c.owner))
    tree = tree.union(select(sessions.c.session_id, sessions.c.owner).join(tree, below))
    return select(tree.c.session_id)


def _same_registration(table: Table) -> ColumnElement[bool]:
    return and_(runners.c.runner_id == table.c.runner_id, runners.c.registration == table.c.registration)
