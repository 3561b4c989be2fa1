"""Count unfinished runs: exactly, by indexes that hold no others."""

from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import Connection, Row, TextClause

from models.schema.sql import sql
from models.state.holds import ANY_HOLD, IS_HELD_OF_R

# The moment at which a run became ready.
READY_AT: Final = "r.match_deadline_at - make_interval(secs => r.no_match_timeout_seconds)"
# Rows to join with runners ``n`` from the left: the runs in hand of each, by one pass over them.
IN_HAND_OF_N: Final = sql("""(SELECT runner_id, count(*) AS runs FROM runs
          WHERE status IN $IN_HAND AND runner_id IS NOT NULL GROUP BY runner_id) hand
        ON hand.runner_id = n.runner_id""").text


class CountedBy(StrEnum):
    """Column by which the counts are kept apart."""

    NOTHING = "NULL"
    PROFILE = "r.profile_id"


# Read the index alone, without the rows. Group by the timeout first: then the moment of readiness is computed for each
# group and not for each run. A delayed run's own time has not come; others wait behind another run or a stop.
_PENDING: Final = """
    SELECT p.profile_id, CAST(sum(p.ready) AS bigint) AS ready, CAST(sum(p.delayed) AS bigint) AS delayed,
        CAST(sum(p.waiting) AS bigint) AS waiting,
        min(p.deadline_at - make_interval(secs => p.no_match_timeout_seconds)) AS oldest_ready_at
    FROM (SELECT $by AS profile_id, r.no_match_timeout_seconds, count(*) FILTER (WHERE r.ready) AS ready,
              count(*) FILTER (WHERE NOT r.ready AND coalesce(r.not_before > now(), false)) AS delayed,
              count(*) FILTER (WHERE NOT r.ready AND NOT coalesce(r.not_before > now(), false)) AS waiting,
              min(r.match_deadline_at) FILTER (WHERE r.ready) AS deadline_at
          FROM runs r WHERE r.status = $PENDING $which GROUP BY 1, 2) p
    GROUP BY 1
"""
_IN_HAND: Final = """
    SELECT $by AS profile_id, r.status, count(*) AS number
    FROM runs r WHERE r.status IN $IN_HAND $which GROUP BY 1, 2
"""
# Pending runs whose time has come and to which a hold applies; nothing is read while there is no hold.
_HELD: Final = sql(
    """
    SELECT CASE WHEN $any_hold THEN (
        SELECT count(*) FROM runs r
        WHERE r.status = $PENDING AND NOT r.ready AND NOT coalesce(r.not_before > now(), false) AND $is_held)
    ELSE 0 END
    """,
    any_hold=ANY_HOLD,
    is_held=IS_HELD_OF_R,
)
# Leave out what is not asked for: the plan of a prepared statement must suit every value.
_OWNER: Final = "AND r.owner = :owner"
_AGENT: Final = "AND r.agent_name = :agent"


def count_pending(
    conn: Connection, by: CountedBy, *, owner: str | None = None, agent: str | None = None
) -> Sequence[Row[Any]]:
    """Return rows with ``profile_id``, ``ready``, ``delayed``, ``waiting`` and ``oldest_ready_at`` of pending runs."""
    return _counted(conn, _PENDING, by, owner, agent)


def count_held(conn: Connection) -> int:
    """Return the number of held runs that are counted as ``waiting``."""
    return int(conn.execute(_HELD).scalar_one())


def count_in_hand(
    conn: Connection, by: CountedBy, *, owner: str | None = None, agent: str | None = None
) -> Sequence[Row[Any]]:
    """Return rows with ``profile_id``, ``status`` and ``number`` of runs that runners have."""
    return _counted(conn, _IN_HAND, by, owner, agent)


def _counted(
    conn: Connection, template: str, by: CountedBy, owner: str | None, agent: str | None
) -> Sequence[Row[Any]]:
    statement = _statement(template, by, of_owner=owner is not None, of_agent=agent is not None)
    values = {name: value for name, value in {"owner": owner, "agent": agent}.items() if value is not None}
    return conn.execute(statement, values).all()


@lru_cache
def _statement(template: str, by: CountedBy, *, of_owner: bool, of_agent: bool) -> TextClause:
    return sql(template, by=by, which=" ".join([_OWNER] * of_owner + [_AGENT] * of_agent))
