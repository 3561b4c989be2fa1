"""Find the schedules that a request for many of them is about."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection

from models.core.callers import Caller
from models.schema.sql import sql
from models.state.visibility import owner_filter

# Schedules that one request changes: each takes a dozen statements.
MOST_AT_ONCE: Final = 200


@dataclass(frozen=True, slots=True)
class Selection:
    """Schedules by their ids, or those that satisfy all conditions that are given."""

    schedule_ids: Sequence[str] | None = None
    paused: bool | None = None
    owner: str | None = None
    id_prefix: str | None = None


@dataclass(frozen=True, slots=True)
class Selected:
    """Tell by its id which schedule is paused; ``more``: others satisfy the conditions, too."""

    paused: dict[str, bool]
    more: bool


_SELECT: Final = sql("""
    SELECT s.schedule_id, s.paused FROM schedules s
    WHERE (CAST(:visible AS text) IS NULL OR s.owner = CAST(:visible AS text))
      AND (CAST(:ids AS text[]) IS NULL OR s.schedule_id = ANY(CAST(:ids AS text[])))
      AND (CAST(:paused AS boolean) IS NULL OR s.paused = CAST(:paused AS boolean))
      AND (CAST(:owner AS text) IS NULL OR s.owner = CAST(:owner AS text))
      AND (CAST(:prefix AS text) IS NULL OR starts_with(s.schedule_id, CAST(:prefix AS text)))
    ORDER BY s.schedule_id LIMIT :most
""")


def changes(action: str, *, paused: bool) -> bool:
    """Return whether `pause`, `resume` or `delete` changes a schedule."""
    return action == "delete" or paused != (action == "pause")


def for_action(which: Selection, action: str) -> Selection:
    """Leave out of a filter what the action does not change, so that a repeat comes to the others."""
    if which.schedule_ids is not None or action == "delete" or which.paused is not None:
        return which
    return replace(which, paused=action == "resume")


def select_schedules(conn: Connection, caller: Caller, which: Selection, *, limit: int) -> Selected:
    """Return the first ``limit`` schedules of the caller, for an admin of all, by their ids; changes nothing."""
    values = {
        "visible": owner_filter(caller),
        "ids": None if which.schedule_ids is None else list(which.schedule_ids),
        "paused": which.paused,
        "owner": which.owner,
        "prefix": which.id_prefix,
        "most": limit + 1,
    }
    rows = conn.execute(_SELECT, values).all()
    return Selected({row.schedule_id: row.paused for row in rows[:limit]}, len(rows) > limit)
