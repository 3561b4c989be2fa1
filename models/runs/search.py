"""Search runs by any filters: exactly where an index serves them, else within a bound that the page names."""

import json
import re
from dataclasses import dataclass, fields
from datetime import datetime
from time import monotonic
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection

from models.core.callers import Caller, Role
from models.core.errors import BadCursor
from models.core.statuses import UNFINISHED, UNSUCCESSFUL, RunStatus
from models.runs.lists import PageKey, RunFilter, known_statuses, parse_key, read_page, write_key
from models.runs.search_sql import (
    CONDITIONS,
    IN_HAND,
    LABELLED,
    LABELLED_ESTIMATE,
    LAST_ENDED,
    LISTED,
    NEWEST,
    NEWEST_UNSUCCESSFUL,
    PENDING,
    WAITING,
    Order,
    RunSummary,
    Walk,
    exact_ids_statement,
    walk_statement,
)
from models.state.cursors import write_cursor
from models.state.runs import Run

# Walk at most so many rows, or so long, for a page. With the page itself an answer takes 50 ms at most.
MOST_ROWS: Final = 200_000
MOST_SECONDS: Final = 0.03
FIRST_ROWS: Final = 1_000
LARGEST_STEP: Final = 50_000
# Runs in hand are read wholly while there are no more of them.
MOST_UNFINISHED: Final = 20_000
# Runs with a label, and pending ones that are not ready, are read wholly while there are no more of them, if so many
# of the newest do not fill the page.
RARE_ROWS: Final = 2_000
# A label that the planner expects more runs to have is not looked up: all its index entries are read in any case.
LABELLED_ENTRIES: Final = 4_000
# A prefix of an id must name its time to about a minute.
SHORTEST_PREFIX: Final = 12
_RUN_ID: Final = re.compile(r"run_[0-9a-f]*")
_SESSION_ID: Final = re.compile(r"ses_[0-9a-f]*")
ENDED_MARK: Final = "e."
_PENDING_ALONE: Final[frozenset[str]] = frozenset({RunStatus.PENDING})
# Filters that an index of their own serves.
_EXACT: Final = frozenset({"run_ids", "session_id", "replay_of", "run_start", "session_start", "id"})
# Text behind every id of a run, in any collation.
BEHIND_ALL_IDS: Final = "runs"


@dataclass(frozen=True, slots=True)
class RunSearch(RunFilter):
    """Filters of runs, which all apply; periods include their begin and not their end.

    ``ready`` and ``held`` are about pending runs; ``id_start`` is a run or session id, or the begin of a generated one.
    """

    not_statuses: tuple[str, ...] = ()
    run_ids: tuple[str, ...] = ()
    id_start: str | None = None
    owner: str | None = None
    type: str | None = None
    parent_session_id: str | None = None
    replay_of: str | None = None
    min_attempt: int | None = None
    ready: bool | None = None
    held: bool | None = None
    error_contains: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    ended_after: datetime | None = None
    ended_before: datetime | None = None
    order: Order = Order.CREATED
    summary: bool = False


@dataclass(frozen=True, slots=True)
class FoundRuns:
    """Page of runs. ``searched_until``: the search stopped at its bound at runs of that moment, which ``next_cursor``
    continues; None: the page is full, or nothing more is there.
    """

    runs: list[Run] | list[RunSummary]
    next_cursor: str | None
    feed_cursor: str
    searched_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Bound:
    rows: int = MOST_ROWS
    seconds: float = MOST_SECONDS
    unfinished: int = MOST_UNFINISHED
    rare: int = RARE_ROWS


USUAL_BOUND: Final = Bound()


def search_runs(
    conn: Connection,
    caller: Caller,
    which: RunSearch,
    *,
    limit: int,
    after: str | None = None,
    bound: Bound = USUAL_BOUND,
) -> FoundRuns | BadCursor:
    """Return a page of runs in the order asked for; BadCursor for a cursor from elsewhere.

    The page is complete for ids, sessions, replays of a run, unfinished runs, runs that failed or were stopped, and
    rare labels. Other filters, also beside these, are checked along an index up to ``bound``: then ``searched_until``
    says how far.
    """
    key = _key(after, which.order)
    if after is not None and key is None:
        return BadCursor(after)
    search = _Search(conn, caller, which, limit, key, bound)
    return search.page()


def _key(after: str | None, order: Order) -> PageKey | None:
    if after is None or after.startswith(ENDED_MARK) != (order is Order.ENDED):
        return None
    return parse_key(after.removeprefix(ENDED_MARK))


class _Step(NamedTuple):
    feed_cursor: str
    walked: int
    last: PageKey | None
    hits: list[PageKey]


class _Walked(NamedTuple):
    """Hits of a walk, newest first. ``stopped_at``: its last row if it stopped at its bound."""

    hits: list[PageKey]
    feed_cursor: str
    stopped_at: PageKey | None


class _Search:
    def __init__(
        self, conn: Connection, caller: Caller, which: RunSearch, limit: int, after: PageKey | None, bound: Bound
    ) -> None:
        self._conn = conn
        self._caller = caller
        self._order = which.order
        self._listed = LISTED[which.order, which.summary]
        self._statuses = _statuses(which)
        self._wanted = {name: value for name, value in _wanted(which, self._statuses).items() if value is not None}
        self._limit = limit
        self._after = after
        self._bound = bound

    def page(self) -> FoundRuns | BadCursor:
        if self._wanted.keys() & _EXACT:
            return self._exact()
        if self._order is Order.ENDED:
            return self._walk(LAST_ENDED)
        if self._statuses is not None and self._statuses <= UNFINISHED:
            return self._unfinished(self._statuses) or self._walk(NEWEST)
        if self._statuses is not None and len(self._statuses) == 1 and self._statuses <= UNSUCCESSFUL:
            (status,) = self._statuses
            return self._walk(NEWEST_UNSUCCESSFUL[RunStatus(status)])
        if "labels" in self._wanted:
            return self._labelled()
        return self._walk(NEWEST)

    def _unfinished(self, statuses: frozenset[str]) -> FoundRuns | None:
        """Return the page from the pending runs, newest first, and all runs in hand; None if these are too many.

        Where the walk over pending runs stopped, older ones in hand are left to the next page.
        """
        if self._wanted.get("ready") is False or self._wanted.get("held"):
            return self._newest(PENDING) or self._at_once(WAITING, self._bound.rare) or self._walk(PENDING)
        if RunStatus.PENDING not in statuses:
            return self._at_once(IN_HAND, self._bound.unfinished)
        if statuses == _PENDING_ALONE:
            return self._walk(PENDING)
        # Read them in the order in which runs move: one that is claimed meanwhile is found twice, not missed.
        pending = self._walked(PENDING, self._bound.rows)
        in_hand = self._step(IN_HAND, self._bound.unfinished + 1, self._after)
        if in_hand.walked > self._bound.unfinished:
            return None
        stopped_at = pending.stopped_at
        reached = [hit for hit in in_hand.hits if stopped_at is None or hit > stopped_at]
        return self._shown(pending._replace(hits=sorted({*pending.hits, *reached}, reverse=True)))

    def _labelled(self) -> FoundRuns:
        found = self._newest(NEWEST)
        if found is None and self._labelled_estimate() <= LABELLED_ENTRIES:
            found = self._at_once(LABELLED, self._bound.rare)
        return found or self._walk(NEWEST)

    def _newest(self, walk: Walk) -> FoundRuns | None:
        """Return the page from the newest runs of the walk, None if they do not fill it and others are left."""
        found = self._walked(walk, self._bound.rare)
        is_whole = found.stopped_at is None or len(found.hits) > self._limit
        return self._shown(found) if is_whole else None

    def _labelled_estimate(self) -> float:
        values = {"labels": json.dumps(self._wanted["labels"])}
        (plan,) = self._conn.execute(LABELLED_ESTIMATE, values).scalar_one()
        return float(plan["Plan"]["Plan Rows"])

    def _exact(self) -> FoundRuns | BadCursor:
        after = None if self._after is None else write_key(*self._after)
        found = read_page(self._conn, self._caller, self._listed, self._wanted, limit=self._limit, after=after)
        if isinstance(found, BadCursor):
            return found
        return FoundRuns(found[0], self._mark(found[1]), found[2])

    def _at_once(self, walk: Walk, most: int) -> FoundRuns | None:
        """Return the page from all runs of the walk, None if there are more than ``most``."""
        step = self._step(walk, most + 1, self._after)
        return None if step.walked > most else self._shown(_Walked(step.hits, step.feed_cursor, None))

    def _walk(self, walk: Walk) -> FoundRuns:
        return self._shown(self._walked(walk, self._bound.rows))

    def _walked(self, walk: Walk, most: int) -> _Walked:
        """Walk in steps until the page is full, nothing is left, or ``most`` rows or the time are used up."""
        until = monotonic() + self._bound.seconds
        found = _Walked([], "", None)
        last = self._after
        walked = 0
        rows, largest = self._first_rows(walk), self._largest_step()
        while True:
            rows = min(rows, most - walked)
            began = monotonic()
            step = self._step(walk, rows, last)
            found = found._replace(hits=found.hits + step.hits, feed_cursor=found.feed_cursor or step.feed_cursor)
            walked += step.walked
            last = step.last or last
            if len(found.hits) > self._limit or step.walked < rows:
                return found
            now = monotonic()
            # Fit the next step into the time that is left, at the pace of this one.
            fitting = int((until - now) * rows / max(now - began, 1e-6))
            if walked >= most or fitting < min(FIRST_ROWS, rows):
                break
            rows = min(4 * rows, fitting, largest)
        if "scope" in self._checked(walk) and last is not None:
            hits, last = self._without_foreign_id(found.hits, last)
            found = found._replace(hits=hits)
        return found._replace(stopped_at=last)

    def _without_foreign_id(self, hits: list[PageKey], last: PageKey) -> tuple[list[PageKey], PageKey]:
        """Stop before the runs of the last moment: the last row may be another owner's, and its id in the cursor.

        A page that came no further than that moment goes on from the row all the same: it holds more than the bound.
        """
        moment = last[0]
        if self._after is not None and self._after[0] == moment:
            return hits, last
        return [hit for hit in hits if hit[0] != moment], (moment, BEHIND_ALL_IDS)

    def _first_rows(self, walk: Walk) -> int:
        """Return the number of rows of the first step: the page's own when each row is a hit."""
        return self._limit + 1 if not self._checked(walk) else max(FIRST_ROWS, self._limit + 1)

    def _largest_step(self) -> int:
        # A long error takes long to read and to search: look at the time more often.
        return max(FIRST_ROWS, self._limit + 1) if "error_contains" in self._wanted else LARGEST_STEP

    def _checked(self, walk: Walk) -> frozenset[str]:
        """Return the filters that are checked row by row."""
        served = walk.filters
        if walk is PENDING and self._statuses == _PENDING_ALONE:
            served |= {"statuses"}
        role = self._caller.role
        scope = set() if role is Role.ADMIN or (role is Role.USER and walk.by_owner) else {"scope"}
        return frozenset(self._wanted.keys() - served | scope)

    def _step(self, walk: Walk, rows: int, after: PageKey | None) -> _Step:
        values = dict(self._wanted)
        at_once = rows if walk.at_once else None
        statement = walk_statement(walk, frozenset(values), self._caller.role, is_next=bool(after), at_once=at_once)
        if after is not None:
            values["after_moment"], values["after_row"] = after
        if self._caller.subject is not None:
            values["scope"] = self._caller.subject
        found = self._conn.execute(statement, values | {"rows": rows, "most": self._limit + 1}).all()
        first = found[0]
        return _Step(
            write_cursor(first.epoch, first.last_pos),
            first.walked or 0,
            None if first.last_id is None else (first.last_moment, first.last_id),
            [(row.moment, row.run_id) for row in found if row.run_id is not None],
        )

    def _shown(self, walked: _Walked) -> FoundRuns:
        """Read the runs that were found. One that has changed since is left out; the feed tells of it.

        ``feed_cursor`` is that of the first step: a later one would skip what came in between.
        """
        hits, feed_cursor, stopped_at = walked
        shown = hits[: self._limit]
        next_key = shown[-1] if len(hits) > self._limit else stopped_at
        next_cursor = None if next_key is None else write_key(*next_key)
        found: list[Any] = []
        if shown:
            values = {**self._wanted, "run_ids": [run_id for _, run_id in shown]}
            page = read_page(self._conn, self._caller, self._listed, values, limit=self._limit, after=None)
            if not isinstance(page, BadCursor):
                found = page[0]
                if page[1] is not None:
                    # Ended by its bytes.
                    return FoundRuns(found, self._mark(page[1]), feed_cursor)
        until = stopped_at[0] if stopped_at is not None and len(hits) <= self._limit else None
        return FoundRuns(found, self._mark(next_cursor), feed_cursor, until)

    def _mark(self, cursor: str | None) -> str | None:
        return cursor if cursor is None or self._order is Order.CREATED else ENDED_MARK + cursor


@dataclass(frozen=True, slots=True)
class FoundIds:
    """Ids of runs, in the order of the search. ``more``: others satisfy the filters too, or may do; ``searched_until``
    as of ``FoundRuns``.
    """

    run_ids: list[str]
    more: bool
    searched_until: datetime | None


def search_ids(
    conn: Connection, caller: Caller, which: RunSearch, *, limit: int, bound: Bound = USUAL_BOUND
) -> FoundIds:
    """Return the ids of up to ``limit`` runs that ``search_runs`` would show on its pages, without their rows."""
    search = _IdSearch(conn, caller, which, limit, None, bound)
    found = search.page()
    assert isinstance(found, FoundRuns)  # noqa: S101 -- no cursor was given
    return FoundIds(search.ids, found.next_cursor is not None, found.searched_until)


class _IdSearch(_Search):
    """Search that keeps the ids of its hits and reads no run."""

    ids: list[str]

    def _exact(self) -> FoundRuns:
        statement = exact_ids_statement(frozenset(self._wanted), self._caller.role, self._order)
        values = {**self._wanted, "most": self._limit + 1}
        if self._caller.subject is not None:
            values["scope"] = self._caller.subject
        rows = self._conn.execute(statement, values).all()
        return self._shown(_Walked([(row.moment, row.run_id) for row in rows], "", None))

    def _shown(self, walked: _Walked) -> FoundRuns:
        hits, feed_cursor, stopped_at = walked
        self.ids = [run_id for _, run_id in hits[: self._limit]]
        more = stopped_at is not None or len(hits) > self._limit
        until = stopped_at[0] if stopped_at is not None and len(hits) <= self._limit else None
        return FoundRuns([], BEHIND_ALL_IDS if more else None, feed_cursor, until)


def _statuses(which: RunSearch) -> frozenset[str] | None:
    """Return the statuses that runs may have, None for all."""
    given = known_statuses(which.statuses, RunStatus)
    if which.ready is not None or which.held is not None:
        given = [RunStatus.PENDING.value] if given is None or RunStatus.PENDING in given else []
    if given is None and not which.not_statuses:
        return None
    return frozenset(map(str, RunStatus) if given is None else given) - frozenset(which.not_statuses)


def _wanted(which: RunSearch, statuses: frozenset[str] | None) -> dict[str, Any]:
    by_name = {
        field.name: getattr(which, field.name)
        for field in fields(which)
        if field.name in CONDITIONS and field.name not in {"statuses", "labels", "run_ids"}
    }
    return by_name | {
        "statuses": None if statuses is None else sorted(statuses),
        "labels": dict(which.labels) or None,
        "run_ids": list(which.run_ids) or None,
        "ended": True if which.order is Order.ENDED else None,
        **_id_filter(which.id_start),
    }


def _id_filter(start: str | None) -> dict[str, Any]:
    if start is None:
        return {}
    name = "run_start" if _RUN_ID.fullmatch(start) else "session_start" if _SESSION_ID.fullmatch(start) else "id"
    return {name: start}
