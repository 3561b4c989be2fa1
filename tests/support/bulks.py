"""Bulks and replays by the verbs themselves: dry runs, starts, and workers that execute chunk by chunk."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Row

from models.bulk.chunks import Executed, execute_chunk, take_chunk
from models.bulk.jobs import Bulk, NewBulk, StartBulk, get_bulk, new_bulk_id, prepare_bulks, start_bulks, token_of
from models.bulk.match import Matched, match_runs
from models.bulk.stored_search import write_search
from models.core.callers import ADMIN, Caller
from models.core.errors import CoordinatorError
from models.core.ids import new_id
from models.core.limits import DEFAULT_LIMITS
from models.core.statuses import BulkAction
from models.runs.replay import Replay, replay_runs
from models.runs.search import RunSearch
from models.runs.submission import Submitted
from tests.support.db_verbs import DbVerbs


def runs_of(db: DbVerbs, sessions: Iterable[str]) -> list[str]:
    """Return the runs of these sessions, oldest first."""
    rows = db.rows("SELECT run_id FROM runs WHERE session_id = ANY(:s) ORDER BY run_id", s=list(sessions))
    return [row.run_id for row in rows]


def pending(db: DbVerbs, number: int, caller: Caller = ADMIN, **values: Any) -> list[str]:
    """Submit so many runs; return their ids."""
    return [db.start(caller=caller, **values).run_id for _ in range(number)]


def matched(db: DbVerbs, action: BulkAction, which: RunSearch, caller: Caller = ADMIN, limit: int = 50_000) -> Matched:
    return db.do(match_runs, caller, which, action=action, limit=limit)


def prepared(
    db: DbVerbs,
    action: BulkAction,
    chunks: Sequence[Sequence[str]],
    *,
    caller: Caller = ADMIN,
    which: RunSearch | None = None,
    changes: str | None = None,
) -> str:
    """Keep a dry run that matched these runs; return its token."""
    given = None if which is None else "{}"
    search = None if which is None else write_search(which)
    new = NewBulk(new_bulk_id(), caller, action, chunks, given, search, changes)
    db.do(prepare_bulks, [new])
    return token_of(new.bulk_id)


def started(
    db: DbVerbs, action: BulkAction, run_ids: Sequence[str], *, chunk: int = 2, caller: Caller = ADMIN, **more: Any
) -> str:
    """Start a bulk on these runs in chunks of this size; return its id."""
    chunks = [run_ids[place : place + chunk] for place in range(0, len(run_ids), chunk)]
    return start(db, prepared(db, action, chunks, caller=caller, **more), caller).bulk_id


def start(db: DbVerbs, token: str, caller: Caller = ADMIN) -> Bulk:
    (bulk,) = db.do(start_bulks, [StartBulk(caller, token)])
    assert isinstance(bulk, Bulk), bulk
    return bulk


def work(db: DbVerbs, **values: Any) -> Executed | None:
    """Execute the next chunk that is due, in one transaction; None if there is none."""
    with db.engine.begin() as connection:
        chunk = take_chunk(connection)
        if chunk is None:
            return None
        return execute_chunk(connection, chunk, limits=DEFAULT_LIMITS, **values)


def work_all(db: DbVerbs) -> list[Executed]:
    """Execute chunks until none is due."""
    done: list[Executed] = []
    while (executed := work(db)) is not None:
        done.append(executed)
    return done


def state(db: DbVerbs, bulk_id: str, caller: Caller = ADMIN) -> Bulk:
    bulk = db.do(get_bulk, caller, bulk_id)
    assert isinstance(bulk, Bulk), bulk
    return bulk


def ledger(db: DbVerbs) -> dict[str, int]:
    """Return how many replays each replayed run has."""
    rows = db.rows("SELECT replay_of, count(*) AS number FROM runs WHERE replay_of IS NOT NULL GROUP BY replay_of")
    return {row.replay_of: row.number for row in rows}


def replay(
    db: DbVerbs, run_id: str, changes: Mapping[str, Any] | None = None, caller: Caller = ADMIN, **values: Any
) -> Submitted | CoordinatorError:
    item = Replay(caller, run_id, new_id("run_"), new_id("ses_"), changes or {}, **values)
    (result,) = db.do(replay_runs, [item])
    return result


def replayed(db: DbVerbs, run_id: str, changes: Mapping[str, Any] | None = None, **values: Any) -> Row[Any]:
    """Replay a run that has ended; return the new run."""
    result = replay(db, run_id, changes, **values)
    assert isinstance(result, Submitted), result
    return db.run(result.run_id)
