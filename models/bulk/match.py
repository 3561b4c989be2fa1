from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from models.bulk.actions import sessions_of
from models.bulk.chunks import in_chunks
from models.core.callers import Caller
from models.core.errors import BadCursor
from models.core.statuses import BulkAction
from models.runs.search import Bound, RunSearch, search_ids, search_runs
from models.runs.search_sql import RunSummary

# Search for longer than for a page: a bulk that misses runs has to be asked for again.
BULK_BOUND: Final = Bound(rows=1_000_000, seconds=2.0, unfinished=200_000)
SAMPLE: Final = 10


@dataclass(frozen=True, slots=True)
class Matched:
    """Runs that a dry run matched, in chunks. ``exact``: no other run matches."""

    chunks: list[list[str]]
    number: int
    exact: bool
    searched_until: datetime | None
    sample: Sequence[RunSummary]


def match_runs(
    conn: Connection,
    caller: Caller,
    which: RunSearch,
    *,
    action: BulkAction,
    limit: int,
    bound: Bound = BULK_BOUND,
) -> Matched:
    """Return the first ``limit`` runs of a search, newest first, that a bulk of the caller would act on."""
    found = search_ids(conn, caller, which, limit=limit, bound=bound)
    sessions = sessions_of(conn, found.run_ids) if action is BulkAction.DELETE else None
    chunks = in_chunks(action, found.run_ids, sessions)
    first = found.run_ids[:SAMPLE]
    return Matched(chunks, len(found.run_ids), not found.more, found.searched_until, _sample(conn, caller, first))


def _sample(conn: Connection, caller: Caller, run_ids: Sequence[str]) -> Sequence[RunSummary]:
    if not run_ids:
        return []
    which = RunSearch(summary=True, run_ids=tuple(run_ids))
    page = search_runs(conn, caller, which, limit=SAMPLE)
    return [] if isinstance(page, BadCursor) else [run for run in page.runs if isinstance(run, RunSummary)]
