"""Group failed runs by the fingerprints of their errors."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row

from models.core.callers import Caller
from models.core.fingerprints import fingerprint, normalised
from models.core.statuses import RunStatus
from models.runs.search import RunSearch, search_ids
from models.schema.sql import sql

# Failed runs that are looked at, newest first; those of a group that can be named in one bulk.
MOST_RUNS: Final = 2_000
MOST_NAMED: Final = 1_000
MOST_GROUPS: Final = 100
LONGEST_EXAMPLE: Final = 2_000

# Read the head and the tail of an error, of which the fingerprint is made.
_READ = sql("""
    SELECT r.run_id, r.agent_name, r.created_at, r.completed_at,
        CASE WHEN length(r.error) <= 2000 THEN r.error
             ELSE left(r.error, 1000) || E'\\n…\\n' || right(r.error, 1000) END AS error
    FROM runs r WHERE r.run_id = ANY(CAST(:run_ids AS text[])) AND r.status = $FAILED
    ORDER BY r.created_at DESC, r.run_id DESC
""")


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Failed runs with one fingerprint. ``text`` is the error without what differs, ``example`` that of the newest.

    ``run_ids``: the newest MOST_NAMED of them.
    """

    fingerprint: str
    text: str
    count: int
    newest_run_id: str
    newest_at: datetime
    oldest_at: datetime
    example: str | None
    agents: dict[str, int]
    run_ids: list[str]


@dataclass(frozen=True, slots=True)
class Failures:
    """Groups, the largest first, of ``runs`` failed runs. ``searched_until``: older ones were not looked at."""

    groups: list[FailureGroup]
    runs: int
    searched_until: datetime | None


def group_failures(conn: Connection, caller: Caller, which: RunSearch, *, most: int = MOST_RUNS) -> Failures:
    """Group the newest failed runs that satisfy the search, up to MOST_RUNS and the bound of searches."""
    found = search_ids(conn, caller, replace(which, statuses=(RunStatus.FAILED.value,)), limit=most)
    rows = conn.execute(_READ, {"run_ids": found.run_ids}).all() if found.run_ids else []
    until = found.searched_until
    if found.more and until is None and rows:
        until = rows[-1].created_at
    groups: dict[str, list[Row[Any]]] = {}
    for row in rows:
        groups.setdefault(fingerprint(row.error), []).append(row)
    largest = sorted(groups.items(), key=lambda group: -len(group[1]))[:MOST_GROUPS]
    return Failures([_group(name, members) for name, members in largest], len(rows), until)


def _group(name: str, members: Sequence[Row[Any]]) -> FailureGroup:
    newest = members[0]
    ends = [row.completed_at for row in members]
    agents = Counter(row.agent_name for row in members if row.agent_name is not None)
    return FailureGroup(
        name,
        normalised(newest.error),
        len(members),
        newest.run_id,
        max(ends),
        min(ends),
        newest.error,
        dict(agents.most_common(10)),
        [row.run_id for row in members[:MOST_NAMED]],
    )
